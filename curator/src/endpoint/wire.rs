//! Requests and replies of the chat completions interface that OpenAI-compatible endpoints share.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// An endpoint that counts more tokens in a request miscounts: no model takes as many.
pub(crate) const MOST_TOKENS: u64 = 1 << 24;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Message {
    role: &'static str,
    content: Value,
}

impl Message {
    /// Instructions.
    pub(crate) fn system(text: &str) -> Self {
        Self { role: "system", content: text.into() }
    }

    /// A question in words.
    pub(crate) fn user(text: &str) -> Self {
        Self { role: "user", content: text.into() }
    }

    /// A question made of words and pictures, in order.
    pub(crate) fn parts(parts: Vec<Part>) -> Self {
        let content = parts.into_iter().map(|part| match part {
            Part::Text(text) => json!({ "type": "text", "text": text }),
            Part::Picture(url) => json!({ "type": "image_url", "image_url": { "url": url } }),
        });
        Self { role: "user", content: content.collect() }
    }

    /// What the model answered before.
    pub(crate) fn assistant(text: &str) -> Self {
        Self { role: "assistant", content: text.into() }
    }

    /// The words of the message, without its pictures.
    pub(crate) fn words(&self) -> String {
        match &self.content {
            Value::Array(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                texts.join("\n")
            }
            content => content.as_str().unwrap_or_default().to_owned(),
        }
    }

    /// How many pictures it shows.
    fn pictures(&self) -> usize {
        self.content
            .as_array()
            .map_or(0, |parts| parts.iter().filter(|part| part.get("image_url").is_some()).count())
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// Words.
    Text(String),
    /// A picture as a `data:` address.
    Picture(String),
}

/// What is asked of the endpoint, apart from which model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// The conversation so far.
    pub(crate) messages: Vec<Message>,
    /// Longest answer in tokens; 0 leaves it to the endpoint.
    pub(crate) max_tokens: u64,
    /// Divisor of the logits; absent, the endpoint's own.
    pub(crate) temperature: Option<f64>,
    /// Sent as the endpoint's seed where several answers are asked for.
    pub(crate) seed: Option<u64>,
}

impl Request {
    /// The body of the request. `extra` adds fields, or replaces them, for endpoints that want others.
    pub(crate) fn body(&self, model: &str, extra: &Map<String, Value>) -> String {
        let mut body = Map::new();
        body.insert("model".into(), model.into());
        body.insert("messages".into(), json!(self.messages));
        if self.max_tokens > 0 {
            body.insert("max_tokens".into(), self.max_tokens.into());
        }
        if let Some(temperature) = self.temperature {
            body.insert("temperature".into(), temperature.into());
        }
        if let Some(seed) = self.seed {
            body.insert("seed".into(), seed.into());
        }
        for (field, value) in extra {
            body.insert(field.clone(), value.clone());
        }
        Value::Object(body).to_string()
    }

    /// About how many tokens the request will cost, for the rate limit until the endpoint tells.
    ///
    /// Four bytes of text a token, a thousand tokens a picture, and the longest answer.
    pub(crate) fn expected_tokens(&self) -> u64 {
        let words: usize = self.messages.iter().map(|message| message.words().len()).sum();
        let pictures: usize = self.messages.iter().map(Message::pictures).sum();
        (words / 4 + pictures * 1000) as u64 + self.max_tokens
    }
}

/// An answer that was paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// What the model wrote; never empty.
    pub(crate) text: String,
    /// Whether it was cut off at the longest length.
    pub(crate) cut: bool,
    /// Tokens read, as the endpoint counts them.
    pub(crate) prompt_tokens: u64,
    /// Tokens written, as the endpoint counts them.
    pub(crate) completion_tokens: u64,
}

impl Reply {
    /// What follows the thinking that some servers leave in the answer.
    pub(crate) fn answer(&self) -> &str {
        self.text.rsplit_once("</think>").map_or(self.text.as_str(), |(_, answer)| answer).trim()
    }
}

/// Why a body is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Not JSON, or cut off.
    #[error("the reply is no JSON")]
    Json(#[source] serde_json::Error),
    /// No text where it belongs.
    #[error("the reply has no text at choices[0].message.content")]
    NoText,
}

/// Reads the body of a reply.
pub(crate) fn reply(body: &str) -> Result<Reply, Error> {
    let value: Value = serde_json::from_str(body).map_err(Error::Json)?;
    let choice = &value["choices"][0];
    let text = choice["message"]["content"].as_str().map(str::trim).unwrap_or_default();
    if text.is_empty() {
        return Err(Error::NoText);
    }
    let tokens = |field: &str| value["usage"][field].as_u64().unwrap_or(0).min(MOST_TOKENS);
    Ok(Reply {
        text: text.to_owned(),
        cut: choice["finish_reason"] == "length",
        prompt_tokens: tokens("prompt_tokens"),
        completion_tokens: tokens("completion_tokens"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_what_was_set() {
        let request = Request {
            messages: vec![Message::system("Be short."), Message::user("Hello")],
            max_tokens: 5,
            temperature: None,
            seed: Some(2),
        };
        let extra = json!({ "max_tokens": 7, "top_p": 0.5 });
        let body: Value = serde_json::from_str(&request.body("m", extra.as_object().unwrap())).unwrap();
        let messages =
            json!([{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]);
        assert_eq!(
            body,
            json!({"model": "m", "messages": messages, "max_tokens": 7, "seed": 2, "top_p": 0.5})
        );
        assert_eq!(request.expected_tokens(), 3 + 5);
    }

    #[test]
    fn token_counts_of_no_model_are_not_believed() {
        let usage = json!({ "prompt_tokens": u64::MAX, "completion_tokens": 7 });
        let body = json!({ "choices": [{ "message": { "content": "yes" } }], "usage": usage });
        let reply = reply(&body.to_string()).unwrap();
        assert_eq!((reply.prompt_tokens, reply.completion_tokens), (MOST_TOKENS, 7));
    }

    #[test]
    fn replies_without_text_are_none() {
        let read = |text: &Value| reply(&json!({"choices": [{"message": {"content": text}}]}).to_string());
        assert_eq!(read(&"<think>so</think> \n yes".into()).unwrap().answer(), "yes");
        for empty in [json!(""), json!("  "), Value::Null, json!(7)] {
            assert!(matches!(read(&empty), Err(Error::NoText)), "{empty}");
        }
        assert!(matches!(reply("{}"), Err(Error::NoText)));
        assert!(matches!(reply("[1, 2]"), Err(Error::NoText)));
        assert!(matches!(reply("{\"choices\": [{\"mess"), Err(Error::Json(_))));
    }
}
