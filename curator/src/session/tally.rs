//! Counters of a session.

use std::fmt;

use crate::endpoint::Usage;

/// Counters of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    /// Billed replies of this session.
    pub(super) asked: u64,
    /// Replies found in the store.
    pub(super) kept: u64,
    /// Requests that were retried.
    pub(super) repeated: u64,
    /// Answers that violated the rules and were requested again.
    pub(super) corrected: u64,
    /// Failed items.
    pub(super) failed: u64,
    /// Input tokens.
    pub(super) prompt_tokens: u64,
    /// Output tokens.
    pub(super) completion_tokens: u64,
}

impl Tally {
    /// Adds billed tokens.
    pub(super) const fn spent(&mut self, usage: Usage) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(usage.prompt_tokens);
        self.completion_tokens = self.completion_tokens.saturating_add(usage.completion_tokens);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, kept, repeated, corrected, failed, prompt_tokens, completion_tokens } = self;
        write!(f, "{asked} asked, {kept} from the store, {repeated} repeated, {corrected} corrected, ")?;
        write!(f, "{failed} failed, {prompt_tokens} + {completion_tokens} tokens")
    }
}
