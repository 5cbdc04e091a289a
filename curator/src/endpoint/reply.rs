//! Replies of the chat completions interface: an answer that was paid for, or why a reply is none.
//!
//! Endpoints differ in how they say that an answer is not whole, is withheld, or is an error in spite of status 200. What
//! is said is kept apart here, since it decides whether it is of use to ask, and to pay, again.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer;

/// An endpoint that counts more tokens in a request miscounts: no model takes as many.
pub(crate) const MOST_TOKENS: u64 = 1 << 24;

/// Ways to say that an answer ended by itself.
const WHOLE: [&str; 7] = ["stop", "end_turn", "stop_sequence", "eos", "eos_token", "completed", "end"];
/// Ways to say that it was cut off at its longest.
const CUT: [&str; 6] =
    ["length", "max_tokens", "max_output_tokens", "model_length", "token_limit", "incomplete"];
/// Ways to say that it was withheld.
const WITHHELD: [&str; 9] = [
    "content_filter",
    "content_filtered",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "refusal",
    "guardrail_intervened",
    "spii",
];

/// Tokens of a request, as the endpoint counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Read.
    pub(crate) prompt_tokens: u64,
    /// Written.
    pub(crate) completion_tokens: u64,
}

/// A reply that was paid for and that another one would not better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// What the model wrote, thinking included. Empty where it declined, or never left its thinking.
    pub(crate) text: String,
    /// Whether it was cut off at the longest length.
    pub(crate) cut: bool,
    /// Why there is no answer, where the model declined or the endpoint withheld it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) declined: Option<String>,
    /// Tokens read, as the endpoint counts them.
    pub(crate) prompt_tokens: u64,
    /// Tokens written, as the endpoint counts them.
    pub(crate) completion_tokens: u64,
}

impl Reply {
    /// What the model answers, without its thinking and without marks of a chat template; `None` if it is nothing.
    pub(crate) fn answer(&self) -> Option<&str> {
        answer::of(&self.text)
    }

    /// Whether the same request need not be sent again: there is an answer, or it is known that there will be none.
    pub(crate) fn is_settled(&self) -> bool {
        self.declined.is_some() || self.cut || self.answer().is_some()
    }

    /// Its tokens.
    pub(crate) const fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.completion_tokens }
    }
}

/// Why a body is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not JSON, or cut off.
    #[error("the reply is no JSON")]
    Json(#[source] serde_json::Error),
    /// No message where it belongs.
    #[error("the reply has no choices[0].message")]
    NoMessage,
    /// An error in a reply of status 200.
    #[error("the reply is an error: {text}")]
    Said {
        /// The status that it should have had, if it says one.
        status: Option<u16>,
        /// Its beginning.
        text: String,
        /// What it cost.
        usage: Usage,
    },
    /// The model ran, and there is no answer.
    #[error("the reply has no answer: {why}")]
    Unanswered {
        /// What is there instead.
        why: String,
        /// What it cost.
        usage: Usage,
    },
}

impl Error {
    /// What the reply cost; `None` if nobody says that anything was computed.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Json(_) | Self::NoMessage => None,
            Self::Said { usage, .. } => (*usage != Usage::default()).then_some(*usage),
            Self::Unanswered { usage, .. } => Some(*usage),
        }
    }
}

/// Reads the body of a reply. `shown` makes what the endpoint said fit for errors: short and without secrets.
pub(crate) fn read(body: &str, shown: impl Fn(&str) -> String) -> Result<Reply, Error> {
    let body = body.trim_start_matches('\u{FEFF}');
    let value: Value = serde_json::from_str(body)
        .or_else(|error| serde_json::from_str(&without_lone_surrogates(body)).map_err(|_| error))
        .map_err(Error::Json)?;
    let tokens = |field: &str| value["usage"][field].as_u64().unwrap_or(0).min(MOST_TOKENS);
    let usage =
        Usage { prompt_tokens: tokens("prompt_tokens"), completion_tokens: tokens("completion_tokens") };
    let choice = &value["choices"][0];
    let message = &choice["message"];
    if let Some(error) =
        [&value["error"], &choice["error"], &message["error"]].into_iter().find(|e| is_error(e))
    {
        let code = [&error["code"], &error["status"]].into_iter().find_map(number);
        return Err(Error::Said { status: code, text: shown(&said(error)), usage });
    }
    if !message.is_object() {
        return Err(Error::NoMessage);
    }
    let (text, refusal) = content(message);
    let finish = choice["finish_reason"].as_str().unwrap_or_default().to_ascii_lowercase();
    let finish = finish.trim_start_matches("finish_reason_");
    let declined = match refusal {
        Some(refusal) => Some(shown(&refusal)),
        None if WITHHELD.contains(&finish) => Some(format!("finish_reason is {}", shown(finish))),
        None => None,
    };
    let reply = Reply {
        text: if declined.is_some() { String::new() } else { text },
        cut: CUT.contains(&finish),
        declined,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
    };
    let known = finish.is_empty() || WHOLE.contains(&finish) || reply.cut || reply.declined.is_some();
    let why = if !known {
        format!("finish_reason is {}, expected stop", shown(finish))
    } else if reply.is_settled() {
        return Ok(reply);
    } else if reply.text.trim().is_empty() {
        "choices[0].message.content is empty".to_owned()
    } else {
        "the text never leaves its thinking".to_owned()
    };
    Err(Error::Unanswered { why, usage })
}

fn is_error(value: &Value) -> bool {
    value.is_object() || value.as_str().is_some_and(|text| !text.is_empty())
}

/// A status as a number, or as the text of one.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())?.try_into().ok()
}

/// What an error says of itself.
fn said(error: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = [&error["code"], &error["type"]].into_iter().find_map(text);
    match (text(error).or_else(|| text(&error["message"])), kind) {
        (Some(message), Some(kind)) => format!("{kind}: {message}"),
        (Some(message), None) => message,
        (None, _) => error.to_string(),
    }
}

/// The text of a message, which may be in parts, and its refusal. Parts of thinking are not text.
fn content(message: &Value) -> (String, Option<String>) {
    let filled =
        |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut refusal = filled(&message["refusal"]);
    let text = match &message["content"] {
        Value::Array(parts) => {
            let mut text = String::new();
            for part in parts {
                match part["type"].as_str().unwrap_or("text") {
                    "text" | "output_text" => {
                        text.push_str(part.as_str().or_else(|| part["text"].as_str()).unwrap_or_default());
                    }
                    "refusal" => refusal = refusal.or_else(|| filled(&part["refusal"])),
                    _ => {}
                }
            }
            text
        }
        content => content.as_str().unwrap_or_default().to_owned(),
    };
    (text.trim().to_owned(), refusal)
}

/// The text with the replacement character in place of escapes that are half of a pair, which JSON in Rust cannot hold and
/// other languages write.
fn without_lone_surrogates(body: &str) -> String {
    let mut mended = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        mended.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = match (escaped(rest), rest.get(6..).and_then(escaped)) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => 12,
            (Some(0xD800..0xE000), _) => {
                mended.push_str("\\ufffd");
                rest = &rest[6..];
                continue;
            }
            (Some(_), _) => 6,
            // A backslash, and what it stands before: itself, perhaps.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended + rest
}

/// The number of an escape that the text begins with.
fn escaped(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Result<Reply, Error> {
        super::read(&body.to_string(), str::to_owned)
    }

    fn choice(message: &Value, finish: &str) -> Value {
        let usage = json!({ "prompt_tokens": 5, "completion_tokens": 7 });
        json!({ "choices": [{ "message": message, "finish_reason": finish }], "usage": usage })
    }

    const USAGE: Usage = Usage { prompt_tokens: 5, completion_tokens: 7 };

    #[test]
    fn token_counts_of_no_model_are_not_believed() {
        let usage = json!({ "prompt_tokens": u64::MAX, "completion_tokens": 7 });
        let body = json!({ "choices": [{ "message": { "content": "yes" } }], "usage": usage });
        let reply = read(&body).unwrap();
        assert_eq!((reply.prompt_tokens, reply.completion_tokens), (MOST_TOKENS, 7));
    }

    #[test]
    fn text_in_parts_is_joined_and_thinking_is_none_of_it() {
        let parts = json!([
            { "type": "thinking", "thinking": [{ "type": "text", "text": "hm" }] },
            { "type": "text", "text": "a cat" },
            { "type": "output_text", "text": " on a mat" },
        ]);
        assert_eq!(
            read(&choice(&json!({ "content": parts }), "stop")).unwrap().answer(),
            Some("a cat on a mat")
        );
    }

    #[test]
    fn how_an_answer_ended_is_understood_in_every_spelling() {
        for whole in ["stop", "STOP", "end_turn", "eos"] {
            assert!(!read(&choice(&json!({ "content": "yes" }), whole)).unwrap().cut, "{whole}");
        }
        for cut in ["length", "max_tokens", "MAX_TOKENS", "FINISH_REASON_MAX_TOKENS", "max_output_tokens"] {
            assert!(read(&choice(&json!({ "content": "ye" }), cut)).unwrap().cut, "{cut}");
            let thought = read(&choice(&json!({ "content": null }), cut)).unwrap();
            assert!(thought.cut && thought.answer().is_none(), "{cut}");
        }
        for withheld in ["content_filter", "SAFETY"] {
            let reply = read(&choice(&json!({ "content": "ye" }), withheld)).unwrap();
            assert!(reply.declined.unwrap().contains(&withheld.to_lowercase()) && reply.text.is_empty());
        }
        for other in ["tool_calls", "error", "cancelled"] {
            let error = read(&choice(&json!({ "content": "ye" }), other)).unwrap_err();
            assert!(error.to_string().contains(&format!("finish_reason is {other}")), "{error}");
            assert_eq!(error.usage(), Some(USAGE));
        }
    }

    #[test]
    fn refusals_are_kept_apart() {
        for message in [
            json!({ "content": null, "refusal": "I cannot describe that." }),
            json!({ "content": [{ "type": "refusal", "refusal": "I cannot describe that." }] }),
        ] {
            let reply = read(&choice(&message, "stop")).unwrap();
            assert_eq!((reply.declined.as_deref(), reply.usage()), (Some("I cannot describe that."), USAGE));
        }
        assert!(
            read(&choice(&json!({ "content": "yes", "refusal": null }), "stop")).unwrap().declined.is_none()
        );
    }

    #[test]
    fn replies_without_an_answer_say_what_they_cost() {
        for empty in
            [json!(""), json!("  "), Value::Null, json!(7), json!([]), json!("<think>hm"), json!("</s>")]
        {
            let error = read(&choice(&json!({ "content": empty }), "stop")).unwrap_err();
            assert!(matches!(error, Error::Unanswered { .. }) && error.usage() == Some(USAGE), "{empty}");
        }
        assert!(matches!(read(&json!({})), Err(Error::NoMessage)));
        assert!(matches!(read(&json!([1, 2])), Err(Error::NoMessage)));
        assert!(matches!(super::read("{\"choices\": [{\"mess", str::to_owned), Err(Error::Json(_))));
    }

    #[test]
    fn errors_in_replies_of_status_200_are_named() {
        let status = |body: &Value| match read(body).unwrap_err() {
            Error::Said { status, text, .. } => (status, text),
            error => panic!("{error}"),
        };
        let body = json!({ "error": { "code": 402, "message": "no credit" } });
        assert_eq!(status(&body), (Some(402), "no credit".to_owned()));
        let body = json!({ "error": { "code": "insufficient_quota", "message": "pay" } });
        assert_eq!(status(&body), (None, "insufficient_quota: pay".to_owned()));
        let body = json!({ "choices": [{ "error": { "code": "502", "message": "bad" }, "finish_reason": "error" }] });
        assert_eq!(status(&body).0, Some(502));
        assert_eq!(status(&json!({ "error": "overloaded" })), (None, "overloaded".to_owned()));
        assert!(read(&json!({ "error": null, "choices": [{ "message": { "content": "yes" } }] })).is_ok());
    }

    #[test]
    fn halves_of_pairs_of_escapes_are_replaced() {
        let body = r#"{"choices": [{"message": {"content": "a \ud83d\ude00 b \ud800 c \\ud800 d \udc00"}}]}"#;
        let reply = super::read(&format!("\u{FEFF}{body}"), str::to_owned).unwrap();
        assert_eq!(reply.text, "a 😀 b \u{FFFD} c \\ud800 d \u{FFFD}");
    }

    proptest! {
        #[test]
        fn no_body_is_too_odd_to_mend(body in r#"(\\|u|d8|dc|00|"|é|😀){0,20}"#) {
            let _ = without_lone_surrogates(&body);
            let _ = super::read(&body, str::to_owned);
        }
    }
}
