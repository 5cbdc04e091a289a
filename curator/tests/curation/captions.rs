//! `caption`: requests, validation of answers, and handling of failures.

use serde_json::Value;

use crate::server::{Conduct, Server, words};
use crate::shop::{ITEMS, Shop, run, title};

/// Returns a caption that identifies the picture of a request.
pub(crate) fn caption_of(body: &Value) -> String {
    let picture = body["messages"][0]["content"][1]["image_url"]["url"].as_str().unwrap();
    format!("Something drawn in ink, mark {}.", &blake3::hash(picture.as_bytes()).to_hex()[..8])
}

/// Returns the output of `caption` with an endpoint without faults.
pub(crate) fn undisturbed() -> String {
    let shop = Shop::new();
    let server = Server::start(caption_of, |_, _, _| Conduct::Answer);
    run(shop.asking(&server, &["caption"])).expect(0);
    assert_eq!(server.received().len() as u64, ITEMS);
    shop.read("shop_captions.json")
}

#[test]
fn endpoint_faults_are_retried_without_loss() {
    let faults = [
        Conduct::Status(500, "oops"),
        Conduct::Status(503, ""),
        Conduct::RateLimit("0"),
        Conduct::Truncate,
        Conduct::Body("{\"choices\": [{\"message\""),
        Conduct::Body("{}"),
        Conduct::Body("{\"choices\": [{\"message\": {\"content\": \"  \"}}]}"),
    ];
    let shop = Shop::new();
    let server = Server::start(caption_of, move |_, before, total| match before {
        0 | 1 => faults[(total + before) % faults.len()].clone(),
        _ => Conduct::Answer,
    });
    let ended = run(shop.asking(&server, &["caption"])).expect(0);
    assert!(ended.output.contains("40 asked, 0 from the store, 80 repeated"), "{}", ended.output);
    assert!(ended.output.contains("440 + 280 tokens"), "{}", ended.output);
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
    assert!(server.paid().values().all(|&times| times == 1));

    // All replies are stored: a second run sends no request and writes the same output.
    let before = server.received().len();
    let again = run(shop.asking(&server, &["caption"])).expect(0);
    assert!(again.output.contains("0 asked, 40 from the store"), "{}", again.output);
    assert_eq!(server.received().len(), before);
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
}

#[test]
fn a_stalled_request_times_out_and_is_retried() {
    let shop = Shop::new();
    let server =
        Server::start(caption_of, |_, _, total| if total < 2 { Conduct::Stall } else { Conduct::Answer });
    run(shop.asking(&server, &["caption", "--deadline-ms", "1500"])).expect(0);
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
}

#[test]
fn retry_after_is_respected() {
    let shop = Shop::new();
    let server =
        Server::start(
            caption_of,
            |_, _, total| {
                if total == 0 { Conduct::RateLimit("1") } else { Conduct::Answer }
            },
        );
    run(shop.asking(&server, &["caption", "--concurrency", "1"])).expect(0);
    let received = server.received();
    assert!(received[1].at - received[0].at >= std::time::Duration::from_secs(1));

    // Longer than the maximum wait.
    let shop = Shop::new();
    let server = Server::start(caption_of, |_, _, _| Conduct::RateLimit("86400"));
    let ended = run(shop.asking(&server, &["caption"])).expect(1);
    assert!(ended.output.contains("429 Too Many Requests"), "{}", ended.output);
    assert_eq!(server.received().len() as u64, ITEMS);
}

#[test]
fn implausible_token_counts_are_tolerated() {
    let shop = Shop::new();
    let server = Server::start(caption_of, |_, _, _| {
        Conduct::Body(
            "{\"choices\": [{\"message\": {\"content\": \"Ink.\"}}], \"usage\": {\"prompt_tokens\": \
             18446744073709551615, \"completion_tokens\": 18446744073709551615}}",
        )
    });
    let ended = run(shop.asking(&server, &["caption"])).expect(0);
    assert!(ended.output.contains("40 asked, 0 from the store, 0 repeated"), "{}", ended.output);

    // The same for a flag.
    let ended = run(shop.asking(&server, &["caption", "--max-tokens", "18446744073709551615"])).expect(2);
    assert!(ended.logs.contains("--max-tokens"), "{}", ended.logs);
}

/// Returns the end of a picture's `data:` URL.
pub(crate) fn picture_of(item: u64) -> String {
    use base64::Engine as _;
    let mut bytes = b"\x89PNG\r\n\x1A\n".to_vec();
    bytes.extend(format!("picture of item {item}").bytes());
    format!("{}\"", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[test]
fn an_invalid_caption_is_requested_again_with_the_reason() {
    let shop = Shop::new();
    let server = Server::start(
        |body| {
            let corrections = body["messages"].as_array().unwrap().len() / 2;
            let text = body.to_string();
            if text.contains(&picture_of(3)) && corrections == 0 {
                format!("A poster of {}.", title(3))
            } else if text.contains(&picture_of(4)) && corrections == 0 {
                "very ".repeat(60) + "long"
            } else if text.contains(&picture_of(5)) {
                format!("Again {}.", title(5).to_uppercase())
            } else {
                caption_of(body)
            }
        },
        |_, _, _| Conduct::Answer,
    );
    let ended = run(shop.asking(&server, &["caption"])).expect(1);
    assert!(ended.output.contains("[ITEM_5]: 4 answers violated the rules"), "{}", ended.output);
    let captions = shop.json("shop_captions.json");
    assert_eq!(captions.as_object().unwrap().len() as u64, ITEMS - 1);
    let second = server.received().into_iter().find(|request| {
        request.body.to_string().contains(&picture_of(4)) && words(&request.body).contains("61 words")
    });
    assert!(second.is_some(), "the request contains the reason");

    // Billed captions that violate the rules are not requested again.
    let before = server.received().len();
    run(shop.asking(&server, &["caption"])).expect(1);
    assert_eq!(server.received().len(), before);
}

#[test]
fn the_title_is_not_in_the_request() {
    let shop = Shop::new();
    let server = Server::start(caption_of, |_, _, _| Conduct::Answer);
    run(shop.asking(&server, &["caption"])).expect(0);
    let received = server.received();
    for item in 1..=ITEMS {
        assert!(received.iter().all(|request| !request.words().contains(&title(item))));
    }
    assert_eq!(received[0].body["model"], "test-model");
}

#[test]
fn unusable_files_are_reported_and_long_titles_are_handled() {
    let shop = Shop::new();
    shop.write("images/2.png", "<html>404</html>");
    shop.write("images/notes.txt", "mine");
    let titles = shop
        .read("shop_titles.csv")
        .replace(&format!("6,{}", title(6)), &format!("6,{}", "long ".repeat(200_000)));
    shop.write("shop_titles.csv", titles);
    let server = Server::start(caption_of, |_, _, _| Conduct::Answer);
    let ended = run(shop.asking(&server, &["caption"])).expect(0);
    assert!(ended.output.contains("2.png: neither JPEG nor PNG nor WebP"), "{}", ended.output);
    assert!(ended.output.contains("notes.txt: not named <item>.jpg"), "{}", ended.output);
    assert!(ended.output.contains("39 pictures of 40 items, 2 files skipped, 1 items without a picture"));
    assert_eq!(server.received().len() as u64, ITEMS - 1);
}

#[test]
fn a_wrong_key_or_model_stops_immediately() {
    for (status, text) in [
        (301, "moved"),
        (401, "wrong key"),
        (403, "no such right"),
        (404, "no such model"),
        (405, "not here"),
        (429, "{\"code\": \"insufficient_quota\"}"),
    ] {
        let shop = Shop::new();
        let server = Server::start(caption_of, move |_, _, _| Conduct::Status(status, text));
        let ended = run(shop.asking(&server, &["caption"])).expect(1);
        assert!(ended.logs.contains("the endpoint rejects every request"), "{}", ended.logs);
        assert!(server.received().len() <= 4, "only requests in flight");
        assert!(!shop.file("shop_captions.json").exists());
    }
}
