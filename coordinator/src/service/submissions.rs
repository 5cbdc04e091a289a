//! Submissions in progress. Grading may take long, so that a caller gets a preliminary reply and calls again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::Status;
use uuid::Uuid;

use crate::machine::sequencer::Counts;

/// A worker, and the name of its lease.
type Key = (Uuid, Uuid);

/// The outcome of a submission, once there is one.
pub(super) type Outcome = Option<Result<Counts, Status>>;

/// The submissions in progress, by worker and lease.
#[derive(Debug, Default, Clone)]
pub struct Submissions(Arc<Mutex<BTreeMap<Key, watch::Receiver<Outcome>>>>);

/// Removes a submission when dropped.
struct Entry {
    submissions: Submissions,
    key: Key,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.submissions.all().remove(&self.key);
    }
}

impl Submissions {
    /// Returns the outcome of the submission of a lease; `keep` is run in a task unless the submission is in progress.
    pub(super) fn join(
        &self,
        key: Key,
        keep: impl Future<Output = Result<Counts, Status>> + Send + 'static,
    ) -> watch::Receiver<Outcome> {
        let mut all = self.all();
        if let Some(outcome) = all.get(&key) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        all.insert(key, outcome.clone());
        let entry = Entry { submissions: self.clone(), key };
        tokio::spawn(async move {
            let kept = keep.await;
            drop(entry);
            // The worker may have hung up.
            let _ = sender.send(Some(kept));
        });
        outcome
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, watch::Receiver<Outcome>>> {
        // No code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
