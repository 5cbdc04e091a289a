//! Requests of the chat completions interface of OpenAI-compatible endpoints.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Message {
    role: &'static str,
    content: Value,
}

impl Message {
    /// Creates a system message.
    pub(crate) fn system(text: &str) -> Self {
        Self { role: "system", content: text.into() }
    }

    /// Creates a user message from text.
    pub(crate) fn user(text: &str) -> Self {
        Self { role: "user", content: text.into() }
    }

    /// Creates a user message from text and pictures, in order.
    pub(crate) fn parts(parts: Vec<Part>) -> Self {
        let content = parts.into_iter().map(|part| match part {
            Part::Text(text) => json!({ "type": "text", "text": text }),
            Part::Picture(url) => json!({ "type": "image_url", "image_url": { "url": url } }),
        });
        Self { role: "user", content: content.collect() }
    }

    /// Creates a message with an earlier answer of the model.
    pub(crate) fn assistant(text: &str) -> Self {
        Self { role: "assistant", content: text.into() }
    }

    /// Returns the text of the message, without its pictures.
    pub(crate) fn words(&self) -> String {
        match &self.content {
            Value::Array(parts) => {
                let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
                texts.join("\n")
            }
            content => content.as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Returns the number of pictures.
    fn pictures(&self) -> usize {
        self.content
            .as_array()
            .map_or(0, |parts| parts.iter().filter(|part| part.get("image_url").is_some()).count())
    }
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// Text.
    Text(String),
    /// A picture as a `data:` URL.
    Picture(String),
}

/// A request, without the name of the model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// The conversation so far.
    pub(crate) messages: Vec<Message>,
    /// Maximum length of the answer in tokens; 0 uses the endpoint's default.
    pub(crate) max_tokens: u64,
    /// Sampling temperature; `None` uses the endpoint's default.
    pub(crate) temperature: Option<f64>,
    /// Seed sent to the endpoint if several answers are requested.
    pub(crate) seed: Option<u64>,
}

impl Request {
    /// Returns the body of the request. `extra` adds or replaces fields.
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

    /// Estimates the number of tokens of the request, for the rate limit until the endpoint reports it.
    ///
    /// Assumes four bytes per token of text, a thousand tokens per picture, and an answer of maximum length.
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
    fn bodies_contain_the_set_fields() {
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
