//! A tokenizer with the run's chat template variables: converts messages to the token ids of a prompt.

use std::path::Path;

use crate::{Error, Message, Tokenizer, Variables};

/// Renders conversations that the assistant continues. Messages are pairs of role and content.
#[derive(Debug)]
pub struct Chat {
    tokenizer: Tokenizer,
    variables: Variables,
}

impl Chat {
    /// Reads the tokenizer and the chat template of a model folder.
    pub fn load(folder: &Path, variables: Variables) -> Result<Self, Error> {
        Ok(Self { tokenizer: Tokenizer::load(folder)?, variables })
    }

    /// The tokenizer.
    pub const fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the token ids of a prompt.
    pub fn encode<'a>(
        &self,
        messages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Vec<u32>, Error> {
        self.tokenizer.encode_chat(&owned(messages), &self.variables)
    }

    /// Returns the number of tokens of a prompt.
    pub fn length<'a>(&self, messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<usize, Error> {
        Ok(self.encode(messages)?.len())
    }

    /// Returns the generation prompt: see [`Tokenizer::generation_prompt`].
    pub fn generation_prompt<'a>(
        &self,
        messages: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<String, Error> {
        self.tokenizer.generation_prompt(&owned(messages), &self.variables)
    }
}

fn owned<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Message> {
    messages.into_iter().map(|(role, content)| Message::new(role, content)).collect()
}
