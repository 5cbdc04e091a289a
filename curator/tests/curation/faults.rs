//! Faults of the released code of MLLMRec-R1 that are excluded here, numbered as in docs/guides/curation.md.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::captions::{caption_of, picture_of, undisturbed};
use crate::reasoning::{answer, assessed, caption, captioned, steps};
use crate::server::{Conduct, Server};
use crate::shop::{ITEMS, Shop, USERS, items_of, run, title};

/// Reads the rows of the training file.
fn mixed(shop: &Shop) -> Vec<Value> {
    shop.read("shop_mixed.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn mix(shop: &Shop, arguments: &[&str]) -> Vec<Value> {
    run(shop.command(&[&["mix", "--threshold", "0"], arguments].concat())).expect(0);
    mixed(shop)
}

#[test]
fn fault_05_requests_for_reasoning_do_not_contain_the_target() {
    let (_shop, server) = assessed();
    let requests: Vec<String> = server
        .received()
        .iter()
        .map(crate::server::Received::words)
        .filter(|words| !words.starts_with("Somebody"))
        .collect();
    assert_eq!(requests.len() as u64, 3 * USERS);
    for user in 1..=USERS {
        let items = items_of(user);
        let shown = |words: &&String| {
            items[..3].iter().all(|&item| words.contains(&title(item)) || words.contains(&caption(item)))
        };
        let about: Vec<&String> = requests.iter().filter(shown).collect();
        assert_eq!(about.len(), 3, "user {user}");
        for words in about {
            let target = items[3];
            for tell in [title(target), caption(target), format!("[ITEM_{target}]")] {
                assert!(!words.contains(&tell), "user {user}: {tell}");
            }
        }
    }
}

#[test]
fn fault_05_a_draft_that_names_the_target_is_not_sent() {
    let shop = captioned();
    let target = title(items_of(3)[3]);
    let draft = |user| serde_json::json!({ "user_id": user, "reasoning": steps(if user == 3 { &target } else { "x" }) });
    shop.write("drafts.json", (1..=4).map(draft).collect::<Value>().to_string());
    let server = Server::start(answer, |_, _, _| Conduct::Answer);
    let path = shop.file("drafts.json");
    let ended = run(shop.asking(&server, &["refine", "--draft", path.to_str().unwrap()])).expect(1);
    assert!(
        ended.output.contains("failed: user 3: the request for user 3 would contain the title"),
        "{}",
        ended.output
    );
    assert!(server.received().iter().all(|request| !request.words().contains(&target)));
}

#[test]
fn fault_05_reasoning_is_part_of_the_completion_and_never_of_a_prompt() {
    let (shop, _server) = assessed();
    for row in mix(&shop, &["--share", "0.5"]) {
        assert!(!row["prompt"]["user"].as_str().unwrap().contains("Step 1"));
        let reasoned = row["completion"].as_str().unwrap().starts_with("<think>\nStep 1:");
        assert_eq!(reasoned, row["kind"] == "reasoned");
    }
    // The behaviour of the released code is available as an explicit option and is found by the check.
    let rows = mix(&shop, &["--share", "0.5", "--placement", "prompt"]);
    assert_eq!(rows.iter().filter(|row| row["kind"] == "leaking_prompt").count(), 6);
    let ended = run(shop.command(&["check"])).expect(1);
    assert!(ended.output.contains("6  leak: reasoning in a prompt"), "{}", ended.output);
}

#[test]
fn fault_05_held_out_users_are_never_requested_or_read() {
    let (shop, server) = assessed();
    for user in 101..=104 {
        let shown = &items_of(user)[..3];
        let asked = server.received().iter().any(|request| {
            let words = request.words();
            words.starts_with("You") && shown.iter().all(|&item| words.contains(&title(item)))
        });
        assert!(!asked, "user {user}");
    }
    // Scores of a held-out user in the file are ignored.
    let mut assessment = shop.json("shop_assessment.json");
    let rows = assessment["rows"].as_array_mut().unwrap();
    let mut stranger = rows[0].clone();
    stranger["user_id"] = 101.into();
    stranger["reasoning"] = "Step 1: a stranger's".into();
    rows.push(stranger);
    shop.write("shop_assessment.json", assessment.to_string());
    mix(&shop, &["--share", "1"]);
    assert!(!shop.read("shop_mixed.jsonl").contains("stranger"));
    let ended = run(shop.command(&["check"])).expect(1);
    assert!(
        ended.output.contains("leak: reasoning about users other than training users"),
        "{}",
        ended.output
    );
}

#[test]
fn fault_06_reasoning_is_keyed_by_user_not_by_line() {
    let (shop, _server) = assessed();
    let expected: BTreeMap<u64, String> = shop.json("shop_assessment.json")["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["user_id"].as_u64().unwrap(), row["reasoning"].as_str().unwrap().to_owned()))
        .collect();
    // Line numbers change: users with too short a history come first, and the others in another order.
    let lines = shop.read("train.tsv");
    let moved: Vec<&str> = ["201\t1 2", "202\t3 4"].into_iter().chain(lines.lines().rev()).collect();
    shop.write("train.tsv", moved.join("\r\n"));
    let rows = mix(&shop, &["--share", "1"]);
    assert_eq!(rows.len() as u64, USERS);
    for row in rows {
        let user = row["user"].as_u64().unwrap();
        assert!(row["completion"].as_str().unwrap().contains(&expected[&user]), "user {user}");
    }
}

#[test]
fn fault_07_the_share_is_exact_and_seeded_and_negatives_are_resampled() {
    let (shop, _server) = assessed();
    let arguments = ["--share", "0.25", "--epochs", "3"];
    let rows = mix(&shop, &arguments);
    let bytes = shop.read("shop_mixed.jsonl");
    mix(&shop, &arguments);
    assert_eq!(shop.read("shop_mixed.jsonl"), bytes, "the same seed gives the same file");

    let reasoned = |rows: &[Value]| -> BTreeSet<u64> {
        let reasoned = rows.iter().filter(|row| row["kind"] == "reasoned");
        reasoned.map(|row| row["user"].as_u64().unwrap()).collect()
    };
    assert_eq!(reasoned(&rows).len(), 3);
    assert_eq!(rows.len() as u64, 3 * USERS);
    let mut lists: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for row in &rows {
        let user = row["user"].as_u64().unwrap();
        let candidates: BTreeSet<u64> =
            row["candidates"].as_array().unwrap().iter().map(|item| item.as_u64().unwrap()).collect();
        assert_eq!(candidates.len(), 10);
        let known: Vec<u64> = items_of(user).into_iter().filter(|item| candidates.contains(item)).collect();
        assert_eq!(known, [items_of(user)[3]], "of the user's items only the target is a candidate");
        lists.entry(user).or_default().insert(row["candidates"].to_string());
    }
    assert!(lists.values().all(|lists| lists.len() == 3), "every epoch has its own candidates");
    let others: Vec<BTreeSet<u64>> = (1..6)
        .map(|seed| reasoned(&mix(&shop, &["--share", "0.25", "--set", &format!("run.seed={seed}")])))
        .collect();
    assert!(others.iter().any(|other| *other != reasoned(&rows)), "another seed samples other users");
}

#[test]
fn fault_11_failures_are_listed_and_never_stored_as_empty_text() {
    let shop = Shop::new();
    let poor =
        |body: &Value| body.to_string().contains(&picture_of(7)) || body.to_string().contains(&picture_of(9));
    let server = Server::start(caption_of, move |body, before, _| {
        if !poor(body) {
            Conduct::Answer
        } else if before < 4 {
            Conduct::Body("{\"choices\": [{\"message\": {\"content\": \"\"}}]}")
        } else {
            Conduct::Answer
        }
    });
    let asking = || shop.asking(&server, &["caption", "--retries", "1"]);
    let ended = run(asking()).expect(1);
    assert!(ended.output.contains("failed: [ITEM_7]: no reply in 2 attempts"), "{}", ended.output);
    let captions = shop.json("shop_captions.json");
    assert_eq!(captions.as_object().unwrap().len() as u64, ITEMS - 2);
    assert!(captions.as_object().unwrap().values().all(|entry| entry["caption"] != ""));
    let failures = shop.json("shop_captions.failures.json");
    assert_eq!(failures.as_array().unwrap().len(), 2);
    assert_eq!(failures[0]["item"], "[ITEM_7]");

    // Only the failed ones are requested again.
    run(asking()).expect(1);
    let before = server.received().len();
    let ended = run(asking()).expect(0);
    assert!(ended.output.contains("2 asked, 38 from the store"), "{}", ended.output);
    assert_eq!(server.received().len() - before, 2);
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
    assert!(!shop.file("shop_captions.failures.json").exists());
}
