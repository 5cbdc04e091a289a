//! Chat templates: renders messages and variables to text with [`podium_jinja`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use podium_jinja::Template;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// The content.
    pub content: String,
}

impl Message {
    /// Creates a message with the role `system`, `user` or `assistant`.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// Variables of a template other than the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Variables {
    /// Whether to append the generation prompt.
    pub add_generation_prompt: bool,
    /// Whether the assistant reasons first; `None` leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// Additional variables, which override those above.
    pub extra: Map<String, Value>,
}

impl Variables {
    /// Returns the variables of a prompt, after which the assistant continues.
    pub fn prompt(enable_thinking: Option<bool>, extra: &BTreeMap<String, Value>) -> Self {
        let extra = extra.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { add_generation_prompt: true, enable_thinking, extra }
    }
}

/// The chat template of a folder.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    /// The file of the template.
    pub(crate) path: PathBuf,
    template: Template,
    /// Variables of every rendering, by name: special tokens, and the defaults of Transformers.
    variables: Map<String, Value>,
}

impl ChatTemplate {
    pub(crate) fn new(
        path: PathBuf,
        source: &str,
        special_tokens: &[(String, String)],
    ) -> Result<Self, podium_jinja::Error> {
        let template = Template::new(source)?;
        let mut variables: Map<String, Value> =
            special_tokens.iter().map(|(name, token)| (name.clone(), json!(token))).collect();
        variables.insert("tools".to_owned(), Value::Null);
        variables.insert("documents".to_owned(), Value::Null);
        Ok(Self { path, template, variables })
    }

    pub(crate) fn render(
        &self,
        messages: &[Message],
        variables: &Variables,
    ) -> Result<String, podium_jinja::Error> {
        let message = |Message { role, content }: &Message| json!({ "role": role, "content": content });
        let messages = Value::Array(messages.iter().map(message).collect());
        let start = Value::Bool(variables.add_generation_prompt);
        let thinking = variables.enable_thinking.map(Value::Bool);
        let given = [("messages", &messages), ("add_generation_prompt", &start)];
        let thinking = thinking.iter().map(|thinking| ("enable_thinking", thinking));
        let fixed = self.variables.iter().map(|(name, value)| (name.as_str(), value));
        let extra = variables.extra.iter().map(|(name, value)| (name.as_str(), value));
        self.template.render(fixed.chain(given).chain(thinking).chain(extra))
    }
}
