//! The run's database as the sequencer's storage. Every call runs on a blocking thread.

use std::sync::Arc;
use std::time::Instant;

use podium_grpo::{PolicyVersion, Step};
use podium_service::logs::describe;

use super::error::{Error, blocking};
use crate::machine::sequencer::{Storage, Write};
use crate::metrics;
use crate::results::{SampledBy, SetAside};
use crate::store::{self, Store};

/// The database, and the error of the last write.
#[derive(Debug)]
pub(super) struct Database {
    store: Arc<Store>,
    /// The error of the last write, if it failed.
    trouble: Option<String>,
}

impl Database {
    pub(super) const fn new(store: Arc<Store>) -> Self {
        Self { store, trouble: None }
    }

    /// Returns the error of the last write, if it failed.
    pub(super) const fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    /// Records the outcome of a write that began at `began`.
    pub(super) fn note_write<T>(&mut self, began: Instant, result: &Result<T, Error>) {
        metrics::store_write(began.elapsed(), result.is_ok());
        self.trouble = result.as_ref().err().map(|error| describe(error));
    }

    /// Records an error of a file beside the database.
    pub(super) fn note_trouble(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }
}

impl Storage for Database {
    type Error = Error;

    async fn write(&mut self, write: Write) -> Result<(), Error> {
        let (began, store) = (Instant::now(), self.store.clone());
        let result = blocking(move || Ok(perform(&store, &write)?)).await;
        self.note_write(began, &result);
        result
    }

    async fn set_aside(&mut self, step: Step) -> Result<Vec<SetAside>, Error> {
        let store = self.store.clone();
        blocking(move || Ok(store.aside(step)?)).await
    }

    async fn sampled_by(
        &mut self,
        step: Step,
        index: u32,
    ) -> Result<(Option<SampledBy>, Option<PolicyVersion>), Error> {
        let store = self.store.clone();
        blocking(move || Ok(store.sampled_by(step, index)?)).await
    }
}

fn perform(store: &Store, write: &Write) -> Result<(), store::Error> {
    match write {
        Write::Results(results) => store.put_results(results),
        Write::Checkpoint { rank, step } => store.put_checkpoint(*rank, *step),
        Write::SetAside { removed, records } => store.set_aside(removed, records),
        Write::Published(manifest) => store.put_policy(manifest),
        Write::Superseded(manifest) => store.supersede_policy(manifest),
        Write::AbandonedEvaluation { version, reason } => store.abandon_evaluation(*version, reason),
        Write::RankGroup(ranks) => store.put_rank_group(ranks),
        Write::DroppedGroups { before } => store.drop_groups(*before),
    }
}
