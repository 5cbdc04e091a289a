//! The state of a term, for users: requests, failures, and the requests that the run waits for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use podium_proto::v1;

use crate::metrics::rewards;

/// The state of a term.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    open: u64,
    answered: u64,
    failed: u64,
    /// Requests that have used up their retries, by id, with a warning each.
    waiting: BTreeMap<String, String>,
}

/// A request in progress; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct OpenRequest<'a> {
    health: &'a Health,
    name: &'a str,
    id: &'a str,
}

impl Health {
    /// Begins a request of the term `name`.
    pub(super) fn begin<'a>(&'a self, name: &'a str, id: &'a str) -> OpenRequest<'a> {
        self.state().open += 1;
        OpenRequest { health: self, name, id }
    }

    /// Counts a request whose answer is stored.
    pub(super) fn answered(&self) {
        self.state().answered += 1;
    }

    /// Returns the state for users.
    pub(super) fn status(&self, name: &str) -> v1::RewardStatus {
        let state = self.state();
        let named = match (state.waiting.is_empty(), state.open) {
            (false, _) => v1::RewardState::Waiting,
            (true, 0) => v1::RewardState::Idle,
            (true, _) => v1::RewardState::Answering,
        };
        v1::RewardStatus {
            name: name.to_owned(),
            state: named.into(),
            open_requests: state.open,
            answered_requests: state.answered,
            failed_attempts: state.failed,
        }
    }

    /// Returns the warning about a request that has used up its retries.
    pub(super) fn warning(&self) -> Option<String> {
        self.state().waiting.values().next().cloned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest<'_> {
    /// Records a failed attempt, with a warning once the request has used up its retries.
    pub(super) fn failed(&self, warning: Option<String>) {
        let mut state = self.health.state();
        state.failed += 1;
        if let Some(warning) = warning {
            state.waiting.insert(self.id.to_owned(), warning);
            rewards::waiting(self.name, state.waiting.len());
        }
    }
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        let mut state = self.health.state();
        state.open -= 1;
        if state.waiting.remove(self.id).is_some() {
            rewards::waiting(self.name, state.waiting.len());
        }
    }
}
