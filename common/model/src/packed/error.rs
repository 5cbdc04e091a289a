//! The errors of invalid batches.

/// The reasons why a batch cannot be formed or scored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The batch is empty.
    #[error("a batch needs at least one prompt")]
    NoPrompt,
    /// A prompt is empty, so that its first completion token cannot be predicted.
    #[error("prompt {prompt} of the batch has no tokens, expected at least one")]
    EmptyPrompt {
        /// Index of the prompt in the batch.
        prompt: usize,
    },
    /// A prompt's number of completions differs from the first prompt's.
    #[error(
        "prompt {prompt} of the batch has {found} completions, expected {expected} as the first prompt has"
    )]
    GroupSize {
        /// Index of the prompt in the batch.
        prompt: usize,
        /// Its number of completions.
        found: usize,
        /// The first prompt's number.
        expected: usize,
    },
    /// A token is outside the policy's vocabulary.
    #[error("token id {token} is outside the policy's vocabulary of {vocab_size}")]
    Vocabulary {
        /// The token id.
        token: u32,
        /// Size of the policy's vocabulary.
        vocab_size: i64,
    },
    /// A restriction refers to a missing token.
    #[error(
        "position {position} of completion {completion} of the batch is restricted, but there is no such token"
    )]
    NoToken {
        /// Index of the completion in the batch.
        completion: usize,
        /// Position in it.
        position: usize,
    },
    /// A restriction's set is invalid for its token.
    #[error(
        "completion token {token} of the batch, {chosen}, is restricted to a set that does not contain it, is not ascending, or is out of order"
    )]
    Restriction {
        /// Its index among the completion tokens of the batch.
        token: usize,
        /// Its id.
        chosen: u32,
    },
    /// A sequence is longer than the policy's positions.
    #[error("a sequence has {length} tokens: the limit is {max_positions} (max_position_embeddings)")]
    TooLong {
        /// Length of prompt and completion, in tokens.
        length: usize,
        /// The policy's `max_position_embeddings`.
        max_positions: i64,
    },
}
