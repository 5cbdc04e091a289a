//! Requests of the chat completions interface that OpenAI-compatible endpoints share.

use serde::Serialize;
use serde_json::{Map, Value, json};

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
}
