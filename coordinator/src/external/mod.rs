//! Rewards that a program of the user computes: a server that answers a POST, or a subprocess that answers lines.
//!
//! Submissions wait for these rewards outside of the actor. Every answer is stored with its group's slot before the group
//! counts as graded, so that neither a restart nor a repeated submission repeats a request. A failed request is repeated
//! until it succeeds. Requests depend on the group alone, so that faults do not change results.

mod error;
mod health;
mod program;
mod term;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use podium_grpo::GroupId;
use podium_proto::v1;
use podium_recsys::requests::requests;
use podium_recsys::reward::{External, Request};
use podium_recsys::task::{Case, Task};
use sha2::{Digest, Sha256};

use crate::actor::{self, blocking};
use crate::metrics::rewards;
use crate::store::Store;
pub use error::SetupError;
use term::Term;

/// Number of hexadecimal digits in the id of a request.
const ID_DIGITS: usize = 32;

/// SHA-256 of a request.
type Key = [u8; 32];

/// Held by the call that requests an answer; contains an answer that is not stored yet.
type Turn = tokio::sync::Mutex<Option<Vec<f64>>>;

/// The external terms of a run.
#[derive(Debug)]
pub struct ExternalRewards {
    terms: Vec<Term>,
    store: Arc<Store>,
    /// Requests in progress, with the answer once there is one: an equal request waits for it, and so does a repeated
    /// submission after an error of the store.
    open: Mutex<BTreeMap<Key, Arc<Turn>>>,
}

impl ExternalRewards {
    /// Opens the terms: reads tokens, and starts one program of each command. `base`: working directory of programs
    /// without one of their own. Requires a runtime.
    pub fn open(options: &[External], base: &Path, store: Arc<Store>) -> Result<Self, SetupError> {
        let terms = options.iter().map(|options| Term::open(options, base)).collect::<Result<_, _>>()?;
        Ok(Self { terms, store, open: Mutex::default() })
    }

    /// Returns whether there are no terms.
    pub const fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Returns the values of the terms for each completion of a group. Malformed completions have the minima, without
    /// a request. Waits until all requests have succeeded; fails if the store fails.
    pub async fn values(
        &self,
        task: &Task,
        case: &Case,
        group: GroupId,
        completions: &[&str],
    ) -> Result<Vec<Vec<f64>>, actor::Error> {
        let minima: Vec<f64> = self.terms.iter().map(|term| term.options().min).collect();
        let mut values = vec![minima; completions.len()];
        let requested = self.terms.iter().enumerate().flat_map(|(place, term)| {
            let requests = requests(task, term.options(), case, group, completions);
            requests.into_iter().map(move |request| async move {
                let indices: Vec<usize> = request.completions.iter().map(|one| one.index).collect();
                let answer = self.answer(term, group, request).await?;
                Ok::<_, actor::Error>((place, indices, answer))
            })
        });
        for (place, indices, answer) in try_join_all(requested).await? {
            for (index, value) in indices.into_iter().zip(answer) {
                values[index][place] = value;
            }
        }
        Ok(values)
    }

    /// Returns the stored answer to a request, or asks the program and stores its answer.
    async fn answer(&self, term: &Term, group: GroupId, request: Request) -> Result<Vec<f64>, actor::Error> {
        let digest = Sha256::digest(request.to_json());
        let id = format!("{digest:x}")[..ID_DIGITS].to_owned();
        let key: Key = digest.into();
        let request = Request { id, ..request };
        let turn = self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut held = turn.lock().await;
        let (name, slot) = (term.options().name.clone(), (group.step.0, group.index));
        let (store, wanted) = (self.store.clone(), name.clone());
        let stored =
            blocking(move || Ok::<_, actor::Error>(store.reward_answer(slot, &key, &wanted)?)).await?;
        let values = if let Some(values) = stored.filter(|values| values.len() == request.completions.len()) {
            rewards::recorded(&name);
            values
        } else {
            let values = match held.take() {
                Some(values) => values,
                None => term.values(group, &request).await,
            };
            *held = Some(values.clone());
            let (store, answer) = (self.store.clone(), values.clone());
            let stored = move || Ok::<_, actor::Error>(store.put_reward_answer(slot, &key, &name, &answer)?);
            blocking(stored).await?;
            term.health().answered();
            values
        };
        drop(held);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        drop(turn);
        if open.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            open.remove(&key);
        }
        Ok(values)
    }

    /// Returns the state of each term.
    pub fn statuses(&self) -> Vec<v1::RewardStatus> {
        self.terms.iter().map(|term| term.health().status(&term.options().name)).collect()
    }

    /// Returns a warning for each term that the run waits for.
    pub fn warnings(&self) -> Vec<String> {
        self.terms.iter().filter_map(|term| term.health().warning()).collect()
    }
}
