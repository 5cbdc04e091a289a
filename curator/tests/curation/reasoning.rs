//! `reason`, `refine`, `assess` and `mix` in sequence.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::server::{Conduct, Server, words};
use crate::shop::{ITEMS, Shop, USERS, items_of, run, title};

/// Returns the caption of an item.
pub(crate) fn caption(item: u64) -> String {
    format!("ink drawing no. {item}.")
}

/// Returns a shop whose items have captions.
pub(crate) fn captioned() -> Shop {
    let shop = Shop::new();
    let captions: serde_json::Map<String, Value> = (1..=ITEMS)
        .map(|item| (item.to_string(), json!({ "title": title(item), "caption": caption(item) })))
        .collect();
    shop.write("shop_captions.json", Value::Object(captions).to_string());
    shop
}

/// Returns four steps that contain `mark`.
pub(crate) fn steps(mark: &str) -> String {
    format!(
        "Step 1: likes ink, mark {mark}\nStep 2: more ink\nStep 3:\n- ink\n- paper\n- lines\nStep 4: An ink drawing."
    )
}

/// Answers every request of the curator.
pub(crate) fn answer(body: &Value) -> String {
    let words = words(body);
    if words.starts_with("You study") || words.starts_with("You edit") {
        steps(&blake3::hash(words.as_bytes()).to_hex()[..8])
    } else {
        // The judge ranks in the order shown.
        assert!(words.starts_with("Somebody reasoned"), "{words}");
        let listed = words.split_once("The candidates:").unwrap().1;
        let mut list = String::new();
        for line in listed.lines().filter(|line| line.starts_with("[ITEM_")) {
            writeln!(list, "{}", line.split_once(' ').unwrap().0).unwrap();
        }
        list
    }
}

/// Returns a shop with reasoning of every kind and its scores.
pub(crate) fn assessed() -> (Shop, Server) {
    let shop = captioned();
    let server = Server::start(answer, |_, _, _| Conduct::Answer);
    for arguments in [
        &["reason", "--from", "images"] as &[&str],
        &["reason", "--from", "captions"],
        &["refine"],
        &["assess"],
    ] {
        run(shop.asking(&server, arguments)).expect(0);
    }
    (shop, server)
}

#[test]
fn reasoning_is_generated_refined_and_scored_for_every_training_user() {
    let (shop, server) = assessed();
    for file in ["images", "captions", "refined"] {
        let rows = shop.json(&format!("shop_reasoning_{file}.json"));
        let users: Vec<u64> =
            rows.as_array().unwrap().iter().map(|row| row["user_id"].as_u64().unwrap()).collect();
        assert_eq!(users, (1..=USERS).collect::<Vec<_>>(), "{file}");
    }
    let assessment = shop.json("shop_assessment.json");
    let rows = assessment["rows"].as_array().unwrap();
    assert_eq!(rows.len() as u64, USERS);
    for row in rows {
        // Steps 2 to 4 are equal; the first steps share 3 of 4 words, since their marks differ.
        let agreement = row["agreement"].as_f64().unwrap();
        assert!((agreement - (0.75 + 3.0) / 4.0).abs() < 1e-12, "{agreement}");
        let ranks: Vec<f64> =
            row["ranks"].as_array().unwrap().iter().map(|rank| rank.as_f64().unwrap()).collect();
        assert_eq!(ranks.len(), 3);
        let prediction = ranks.iter().map(|rank| 1.0 / (1.0 + rank).log2()).sum::<f64>() / 3.0;
        assert!((row["prediction"].as_f64().unwrap() - prediction).abs() < 1e-12);
        assert!((row["confidence"].as_f64().unwrap() - (agreement * prediction).sqrt()).abs() < 1e-12);
    }
    // The judge receives the reasoning and the candidates, and no history.
    for request in server.received().iter().filter(|request| request.words().starts_with("Somebody")) {
        let words = request.words();
        let user = (1..=USERS).find(|&user| {
            let row = &rows[(user - 1) as usize];
            words.contains(row["reasoning"].as_str().unwrap())
        });
        let items = items_of(user.unwrap());
        assert!(items[..3].iter().all(|&item| !words.contains(&title(item))));
        assert_eq!(words.matches(&title(items[3])).count(), 1, "the target occurs only as a candidate");
    }
}

#[test]
fn reasoning_in_a_wrong_format_is_requested_again() {
    let shop = captioned();
    let server = Server::start(
        |body| match body["messages"].as_array().unwrap().len() {
            2 => "They like ink.".to_owned(),
            _ => answer(body),
        },
        |_, _, _| Conduct::Answer,
    );
    let ended = run(shop.asking(&server, &["reason", "--from", "captions"])).expect(0);
    assert!(
        ended.output.contains("24 asked, 0 from the store, 0 repeated, 12 corrected"),
        "{}",
        ended.output
    );
    assert!(
        server.received().iter().any(|request| request.words().contains("no line starts with \"Step 1:\""))
    );
}

#[test]
fn histories_without_captions_are_listed_without_requests() {
    let shop = captioned();
    let mut captions = shop.json("shop_captions.json");
    for item in &items_of(2)[..3] {
        captions.as_object_mut().unwrap().remove(&item.to_string());
    }
    shop.write("shop_captions.json", captions.to_string());
    let server = Server::start(answer, |_, _, _| Conduct::Answer);
    let ended = run(shop.asking(&server, &["reason", "--from", "captions"])).expect(1);
    assert!(
        ended.output.contains("failed: user 2: there are no captions of the items in the history"),
        "{}",
        ended.output
    );
    assert_eq!(server.received().len() as u64, USERS - 1);
}

#[test]
fn too_little_reasoning_of_high_confidence_is_rejected() {
    let (shop, _server) = assessed();
    let ended = run(shop.command(&["mix", "--share", "0.5", "--threshold", "1.01"])).expect(1);
    assert!(ended.logs.contains("6 of 12 users, and 0 have reasoning"), "{}", ended.logs);
    let ended = run(shop.command(&["mix", "--set", "answer.require_thinking=true"])).expect(1);
    assert!(ended.logs.contains("answer.require_thinking = false"), "{}", ended.logs);
    assert!(!shop.file("shop_mixed.jsonl").exists());
}
