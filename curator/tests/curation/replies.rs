//! Replies with text before, around or instead of an answer: it never becomes a caption or a reasoning, its tokens are
//! counted, and requests are rarely repeated.

use crate::captions::{caption_of, undisturbed};
use crate::reasoning::captioned;
use crate::server::{Conduct, Server};
use crate::shop::{ITEMS, Shop, USERS, run};

/// Message and finish reason of a reply, its answer, and the number of requests per item.
type Case = (&'static str, &'static str, Option<&'static str>, u64);

/// Runs `caption` on an endpoint that always sends this reply; returns the first item's caption, the output, and the
/// number of requests.
fn captioned_by(message: &'static str, finish: &'static str) -> (Option<String>, String, u64) {
    let shop = Shop::new();
    let server = Server::start(caption_of, move |_, _, _| Conduct::Reply(message, finish));
    let ended = run(shop.asking(&server, &["caption"]));
    let caption = (ended.code == Some(0))
        .then(|| shop.json("shop_captions.json")["1"]["caption"].as_str().unwrap().to_owned());
    (caption, ended.output, server.received().len() as u64)
}

#[test]
fn reasoning_and_template_tokens_are_removed_from_captions() {
    let cases: [Case; 12] = [
        (r#"{"content": "<think>hm</think>\nA cat."}"#, r#""stop""#, Some("A cat."), 1),
        (r#"{"content": "<think>hm, a cat"}"#, r#""stop""#, None, 3),
        (r#"{"content": "<think>hm, a cat"}"#, r#""length""#, None, 1),
        (r#"{"content": null, "reasoning_content": "hm"}"#, r#""length""#, None, 1),
        (r#"{"content": "[THINK]hm[/THINK]A cat."}"#, r#""stop""#, Some("A cat."), 1),
        (r#"{"content": "[THINK]hm"}"#, r#""stop""#, None, 3),
        (
            r#"{"content": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>A cat.<|return|>"}"#,
            r#""stop""#,
            Some("A cat."),
            1,
        ),
        (r#"{"content": "<|channel|>analysis<|message|>hm"}"#, r#""stop""#, None, 3),
        (r#"{"content": "A cat.<|im_end|>\n<|im_start|>user\nAnd now?"}"#, r#""stop""#, Some("A cat."), 1),
        (r#"{"content": "A cat.<|eot_id|></s>"}"#, r#""STOP""#, Some("A cat."), 1),
        (
            r#"{"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "A"}, {"type": "text", "text": " cat."}]}"#,
            r#""stop""#,
            Some("A cat."),
            1,
        ),
        (r#"{"content": "A \ud83d cat."}"#, r#""stop""#, Some("A \u{FFFD} cat."), 1),
    ];
    for (message, finish, expected, times) in cases {
        let (caption, output, requests) = captioned_by(message, finish);
        assert_eq!(caption.as_deref(), expected, "{message}: {output}");
        assert_eq!(requests, times * ITEMS, "{message}");
        let tokens = format!("{} + {} tokens", 11 * times * ITEMS, 7 * times * ITEMS);
        assert!(output.contains(&tokens), "{message}: {output}");
    }
}

#[test]
fn declined_withheld_and_truncated_replies_are_not_captions() {
    for (message, finish, expected, times) in [
        (r#"{"content": null, "refusal": "I will not."}"#, r#""stop""#, "declined to answer: I will not.", 1),
        (
            r#"{"content": "A c"}"#,
            r#""content_filter""#,
            "declined to answer: finish_reason is content_filter",
            1,
        ),
        (r#"{"content": "A c"}"#, r#""SAFETY""#, "finish_reason is safety", 1),
        (r#"{"content": null}"#, r#""stop""#, "choices[0].message.content is empty", 3),
        (r#"{"content": ""}"#, r#""stop""#, "choices[0].message.content is empty", 3),
        (r#"{"content": "A c"}"#, r#""error""#, "finish_reason is error, expected stop", 3),
        (r#"{"content": "A c"}"#, r#""tool_calls""#, "finish_reason is tool_calls", 3),
        // Truncated answers are requested again with the reason, like all invalid answers.
        (r#"{"content": "A c"}"#, r#""length""#, "4 answers violated the rules", 4),
        (r#"{"content": "A c"}"#, r#""MAX_TOKENS""#, "because it was cut off", 4),
        (r#"{"content": "A c"}"#, r#""max_output_tokens""#, "because it was cut off", 4),
    ] {
        let (caption, output, requests) = captioned_by(message, finish);
        assert_eq!(caption, None, "{message} {finish}");
        assert!(output.contains(expected), "{message} {finish}: {output}");
        assert_eq!(requests, times * ITEMS, "{message} {finish}");
    }
}

#[test]
fn declined_replies_are_stored() {
    let shop = Shop::new();
    let declined = Conduct::Reply(r#"{"content": null, "refusal": "I will not."}"#, r#""stop""#);
    let server = Server::start(caption_of, move |_, _, _| declined.clone());
    run(shop.asking(&server, &["caption"])).expect(1);
    let again = run(shop.asking(&server, &["caption"])).expect(1);
    assert!(again.output.contains("0 asked, 40 from the store"), "{}", again.output);
    assert!(again.output.contains("declined to answer: I will not."), "{}", again.output);
    assert_eq!(server.received().len() as u64, ITEMS);
}

#[test]
fn reasoning_texts_exclude_the_models_own_reasoning() {
    let shop = captioned();
    let steps = r"Step 1: a\nStep 2: b\nStep 3:\n- c\n- d\n- e\nStep 4: f.";
    let text = format!(r#"{{"content": "[THINK]Step 1: no[/THINK]{steps}<|im_end|>"}}"#);
    let message: &'static str = text.leak();
    let server = Server::start(caption_of, move |_, _, _| Conduct::Reply(message, r#""stop""#));
    run(shop.asking(&server, &["reason", "--from", "captions"])).expect(0);
    let rows = shop.json("shop_reasoning_captions.json");
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len() as u64, USERS);
    assert!(rows.iter().all(|row| row["reasoning"] == steps.replace(r"\n", "\n")), "{}", rows[0]);
}

#[test]
fn errors_in_replies_of_status_200_stop_skip_or_retry() {
    let errors = |body: &'static str| {
        let shop = Shop::new();
        let server = Server::start(caption_of, move |_, _, _| Conduct::Body(body));
        let ended = run(shop.asking(&server, &["caption"])).expect(1);
        (format!("{}{}", ended.output, ended.logs), server.received().len() as u64)
    };
    let (output, requests) = errors(r#"{"error": {"code": 402, "message": "no credit"}}"#);
    assert!(
        output.contains("the endpoint rejects every request") && output.contains("no credit"),
        "{output}"
    );
    assert!(requests <= 4, "only requests in flight");
    let (output, requests) = errors(r#"{"error": {"code": 400, "message": "too long"}}"#);
    assert!(output.contains("the reply is an error: too long"), "{output}");
    assert_eq!(requests, ITEMS);
    let (output, requests) = errors(r#"{"error": {"code": 503, "message": "busy"}}"#);
    assert!(output.contains("no reply in 7 attempts: the reply is an error: busy"), "{output}");
    assert_eq!(requests, 7 * ITEMS, "nothing was computed or billed");
    let paid = r#"{"choices": [{"error": {"code": 502, "message": "broke"}, "finish_reason": "error"}],
                   "usage": {"prompt_tokens": 11, "completion_tokens": 7}}"#;
    let (output, requests) = errors(paid);
    assert!(output.contains("no reply in 3 attempts") && output.contains("1320 + 840 tokens"), "{output}");
    assert_eq!(requests, 3 * ITEMS);
}

#[test]
fn compressed_replies_are_supported() {
    let shop = Shop::new();
    let server = Server::start(caption_of, |_, _, _| Conduct::Gzip);
    run(shop.asking(&server, &["caption"])).expect(0);
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
}

#[test]
fn waits_may_be_fractional_seconds_or_milliseconds() {
    for (limit, least_ms) in [(Conduct::RateLimit("0.4"), 400), (Conduct::RateLimitMs("300"), 300)] {
        let shop = Shop::new();
        let server = Server::start(caption_of, move |_, _, total| match total {
            0 => limit.clone(),
            _ => Conduct::Answer,
        });
        run(shop.asking(&server, &["caption", "--concurrency", "1"])).expect(0);
        let received = server.received();
        assert!((received[1].at - received[0].at).as_millis() >= least_ms);
    }
}
