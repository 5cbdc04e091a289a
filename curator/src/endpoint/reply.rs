//! Replies of the chat completions interface: a billed answer, or the reason for a missing answer.
//!
//! Endpoints report truncated and withheld answers, and errors with status 200, in different ways. They are
//! distinguished here, since only some of them are worth another billed request.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer;

/// Maximum plausible token count of a request; higher counts are ignored.
pub(crate) const MOST_TOKENS: u64 = 1 << 24;

/// Finish reasons of complete answers.
const WHOLE: [&str; 7] = ["stop", "end_turn", "stop_sequence", "eos", "eos_token", "completed", "end"];
/// Finish reasons of truncated answers.
const CUT: [&str; 6] =
    ["length", "max_tokens", "max_output_tokens", "model_length", "token_limit", "incomplete"];
/// Finish reasons of withheld answers.
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

/// Token counts of a request as reported by the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    /// Input tokens.
    pub(crate) prompt_tokens: u64,
    /// Output tokens.
    pub(crate) completion_tokens: u64,
}

/// A billed reply that need not be requested again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// Generated text, including reasoning. Empty if the model declined or did not finish its reasoning.
    pub(crate) text: String,
    /// Whether the text was truncated at the maximum length.
    pub(crate) cut: bool,
    /// Reason if the model declined or the endpoint withheld the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) declined: Option<String>,
    /// Input tokens as reported by the endpoint.
    pub(crate) prompt_tokens: u64,
    /// Output tokens as reported by the endpoint.
    pub(crate) completion_tokens: u64,
}

impl Reply {
    /// Returns the answer without reasoning and special tokens; `None` if it is empty.
    pub(crate) fn answer(&self) -> Option<&str> {
        answer::of(&self.text)
    }

    /// Whether the request need not be repeated: it has an answer, or will have none.
    pub(crate) fn is_settled(&self) -> bool {
        self.declined.is_some() || self.cut || self.answer().is_some()
    }

    /// Returns its token counts.
    pub(crate) const fn usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.completion_tokens }
    }
}

/// Reason why a body is not a reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not JSON, or truncated.
    #[error("the reply is not JSON")]
    Json(#[source] serde_json::Error),
    /// The message is missing.
    #[error("the reply has no choices[0].message")]
    NoMessage,
    /// An error with status 200.
    #[error("the reply is an error: {text}")]
    Reported {
        /// The status in the error, if it has one.
        status: Option<u16>,
        /// The beginning of its text.
        text: String,
        /// Token counts.
        usage: Usage,
    },
    /// The model ran without producing an answer.
    #[error("the reply has no answer: {why}")]
    Unanswered {
        /// Description of the content.
        why: String,
        /// Token counts.
        usage: Usage,
    },
}

impl Error {
    /// Returns the token counts; `None` if the endpoint reports none.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Json(_) | Self::NoMessage => None,
            Self::Reported { usage, .. } => (*usage != Usage::default()).then_some(*usage),
            Self::Unanswered { usage, .. } => Some(*usage),
        }
    }
}

/// Parses the body of a reply. `shown` shortens text of the endpoint and removes secrets from it for error messages.
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
        return Err(Error::Reported { status: code, text: shown(&error_text(error)), usage });
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
        "the text ends within its reasoning".to_owned()
    };
    Err(Error::Unanswered { why, usage })
}

fn is_error(value: &Value) -> bool {
    value.is_object() || value.as_str().is_some_and(|text| !text.is_empty())
}

/// Parses a status given as a number or as text.
fn number(value: &Value) -> Option<u16> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())?.try_into().ok()
}

/// Returns the text of an error.
fn error_text(error: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = [&error["code"], &error["type"]].into_iter().find_map(text);
    match (text(error).or_else(|| text(&error["message"])), kind) {
        (Some(message), Some(kind)) => format!("{kind}: {message}"),
        (Some(message), None) => message,
        (None, _) => error.to_string(),
    }
}

/// Returns the text of a message, which may be in parts, and its refusal. Reasoning parts are not text.
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

/// Replaces escapes of lone surrogates by the replacement character; other languages write them, and JSON in Rust
/// rejects them.
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
            // A backslash and the escaped character, which may be a backslash.
            (None, _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        };
        mended.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    mended + rest
}

/// Returns the number of an escape at the beginning of the text.
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
    fn implausible_token_counts_are_ignored() {
        let usage = json!({ "prompt_tokens": u64::MAX, "completion_tokens": 7 });
        let body = json!({ "choices": [{ "message": { "content": "yes" } }], "usage": usage });
        let reply = read(&body).unwrap();
        assert_eq!((reply.prompt_tokens, reply.completion_tokens), (MOST_TOKENS, 7));
    }

    #[test]
    fn text_parts_are_joined_without_reasoning() {
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
    fn finish_reasons_are_recognized_in_every_spelling() {
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
    fn refusals_are_recognized() {
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
    fn replies_without_an_answer_report_their_usage() {
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
    fn errors_in_replies_of_status_200_are_reported() {
        let status = |body: &Value| match read(body).unwrap_err() {
            Error::Reported { status, text, .. } => (status, text),
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
    fn lone_surrogates_are_replaced() {
        let body = r#"{"choices": [{"message": {"content": "a \ud83d\ude00 b \ud800 c \\ud800 d \udc00"}}]}"#;
        let reply = super::read(&format!("\u{FEFF}{body}"), str::to_owned).unwrap();
        assert_eq!(reply.text, "a 😀 b \u{FFFD} c \\ud800 d \u{FFFD}");
    }

    proptest! {
        #[test]
        fn any_body_can_be_repaired(body in r#"(\\|u|d8|dc|00|"|é|😀){0,20}"#) {
            let _ = without_lone_surrogates(&body);
            let _ = super::read(&body, str::to_owned);
        }
    }
}
