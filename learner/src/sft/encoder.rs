//! Prompts and completions as token ids.

use std::path::Path;
use std::sync::Arc;

use podium_config::RunFile;
use podium_recsys::completion::ThinkingStart;
use podium_recsys::prompt::Prompt;
use podium_tokenizer::{Chat, Variables};

/// The reasons why texts cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The tokenizer cannot be read or cannot be used to train a policy.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The tokenizer has no token to end a completion.
    #[error(
        "the tokenizer has no end-of-turn token: expected an eos_token_id in generation_config.json or config.json"
    )]
    NoEndOfTurn,
}

/// A demonstration as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The rendered prompt, up to the beginning of the completion.
    pub prompt: Vec<u32>,
    /// The completion, including the end-of-turn token.
    pub completion: Vec<u32>,
}

/// Converts texts into token ids, as rollouts do.
#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) chat: Arc<Chat>,
    end_of_turn: u32,
}

impl Encoder {
    /// Loads the chat of the tokenizer in a folder, with the settings of the run file.
    pub(super) fn load(file: &RunFile, tokenizer: &Path) -> Result<Self, Error> {
        let variables = Variables::prompt(file.model.enable_thinking, &file.model.template_variables);
        let chat = Arc::new(Chat::load(tokenizer, variables)?);
        chat.tokenizer().check_for_training()?;
        let end_of_turn = chat.tokenizer().end_of_turn_id().ok_or(Error::NoEndOfTurn)?;
        Ok(Self { chat, end_of_turn })
    }

    /// Returns the state of the think block at the end of the rendered prompt.
    pub(super) fn thinking_start(&self, prompt: &Prompt) -> Result<ThinkingStart, podium_tokenizer::Error> {
        Ok(ThinkingStart::of(&self.chat.generation_prompt(prompt.messages())?))
    }

    /// Encodes a prompt and its completion, which ends with the end-of-turn token.
    pub(super) fn encode(
        &self,
        prompt: &Prompt,
        completion: &str,
    ) -> Result<Sample, podium_tokenizer::Error> {
        let prompt = self.chat.encode(prompt.messages())?;
        let mut completion = self.chat.tokenizer().encode(completion)?;
        completion.push(self.end_of_turn);
        Ok(Sample { prompt, completion })
    }
}
