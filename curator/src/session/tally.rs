//! What a session has done and spent so far.

use std::fmt;

use crate::endpoint::Usage;

/// Counts of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Replies that were paid for in this session.
    pub(super) asked: u64,
    /// Replies found in the store.
    pub(super) kept: u64,
    /// Requests that were repeated after a failure.
    pub(super) repeated: u64,
    /// Answers that broke the rules and were asked for again.
    pub(super) corrected: u64,
    /// Items that failed for good.
    pub(super) failed: u64,
    /// Tokens read by the endpoint.
    pub(super) prompt_tokens: u64,
    /// Tokens written by the endpoint.
    pub(super) completion_tokens: u64,
}

impl Tally {
    /// Tokens were paid for.
    pub(super) const fn spent(&mut self, usage: Usage) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(usage.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(usage.completion_tokens);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, kept, repeated, corrected, failed, prompt_tokens, completion_tokens } = self;
        write!(f, "{asked} asked, {kept} kept from before, {repeated} repeated, {corrected} corrected, ")?;
        write!(f, "{failed} failed, {prompt_tokens} + {completion_tokens} tokens")
    }
}
