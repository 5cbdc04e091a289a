//! What makes a batch one that cannot be computed.

/// Why a batch cannot be formed or scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A batch needs at least one prompt.
    #[error("a batch needs at least one prompt")]
    NoPrompt,
    /// Without a token there is nothing to predict the first completion token from.
    #[error("prompt {prompt} of the batch has no tokens, expected at least one")]
    EmptyPrompt {
        /// Index of the prompt in the batch.
        prompt: usize,
    },
    /// All prompts of a batch have the same number of completions.
    #[error(
        "prompt {prompt} of the batch has {found} completions, expected {expected} as the first prompt has"
    )]
    GroupSize {
        /// Index of the prompt in the batch.
        prompt: usize,
        /// Its number of completions.
        found: usize,
        /// The first prompt's.
        expected: usize,
    },
    /// A token is not of the policy's vocabulary.
    #[error("token id {token} is outside the policy's vocabulary of {vocab_size}")]
    Vocabulary {
        /// The token id.
        token: u32,
        /// The policy's vocabulary.
        vocab_size: i64,
    },
    /// A restriction of a token that is not there.
    #[error(
        "position {position} of completion {completion} of the batch is restricted, but there is no such token"
    )]
    NoToken {
        /// Index of the completion in the batch.
        completion: usize,
        /// Position in it.
        position: usize,
    },
    /// A set that a token cannot have been chosen from.
    #[error(
        "completion token {token} of the batch, {chosen}, is restricted to a set that does not hold it, is not in ascending order, or comes out of turn"
    )]
    Restriction {
        /// Its number among the completion tokens of the batch.
        token: usize,
        /// Its id.
        chosen: u32,
    },
    /// A sequence is longer than the policy's positions.
    #[error("a sequence has {length} tokens, the policy has {max_positions} positions")]
    TooLong {
        /// Prompt and completion, in tokens.
        length: usize,
        /// The policy's `max_position_embeddings`.
        max_positions: i64,
    },
}
