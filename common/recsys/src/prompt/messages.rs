//! The messages of a prompt.

use serde::{Deserialize, Serialize};

/// Messages of a prompt, before the chat template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The system message, if there is one.
    pub system: Option<String>,
    /// The user message.
    pub user: String,
}

impl Prompt {
    /// Returns the messages in order, as pairs of role and content.
    pub fn messages(&self) -> impl Iterator<Item = (&str, &str)> {
        let system = self.system.iter().map(|text| ("system", text.as_str()));
        system.chain(std::iter::once(("user", self.user.as_str())))
    }

    /// Returns the number of characters of all messages.
    pub fn chars(&self) -> usize {
        self.messages().map(|(_, content)| content.chars().count()).sum()
    }
}
