//! Replacing or dropping policy versions, and abandoning their evaluations.
//!
//! The transaction that replaces or drops a version removes everything that the version may have sampled.

use std::collections::BTreeMap;
use std::path::Path;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1;
use prost::Message;
use redb::{ReadableTable, WriteTransaction};

use super::database::{Database, options};
use super::tables::{
    ANSWERS, CHECKPOINTS, EVALUATIONS, FILE_NAME, GROUPS, META, POLICIES, REWARD_ANSWERS, SAMPLED_BY,
    SET_ASIDE, STEPS,
};
use super::{Store, json};

/// Key of the dropped versions, in order.
const DROPPED: &str = "dropped_versions";
/// Key of the abandoned evaluations, with the reason of each.
const ABANDONED: &str = "lost_evaluations";

/// The reasons why a version cannot be dropped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Version 0 is the initial policy of the run.
    #[error("policy version 0 cannot be dropped: it is the policy that the run began with")]
    Start,
    /// It was never published.
    #[error("there is no {version} to drop: the newest is {newest}")]
    Unknown {
        /// The version.
        version: PolicyVersion,
        /// The newest version.
        newest: PolicyVersion,
    },
    /// No process can produce it again.
    #[error(
        "{version} cannot be dropped: the groups of the steps before step {} are deleted, since the learner's checkpoints cover them, \
         so that the version could not be recomputed; versions from {} on can be dropped", first.0, first.0
    )]
    Covered {
        /// The version.
        version: PolicyVersion,
        /// The first step whose groups are stored.
        first: Step,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] super::Error),
}

/// The data that was dropped with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Number of committed steps before and after.
    pub steps: (Step, Step),
    /// Number of groups to sample again.
    pub groups: u64,
    /// Number of evaluations to repeat.
    pub evaluations: u64,
}

impl Store {
    /// Opens the database of any run under `folder`.
    pub fn open_existing(folder: &Path) -> Result<Self, super::Error> {
        let path = folder.join(FILE_NAME);
        if !path.is_file() {
            return Err(super::Error::NoRun { folder: folder.to_owned() });
        }
        let opened = path.clone();
        let store = Self { database: Database::new(path, move || options().open(&opened)) };
        let run_hash = store.meta("run_hash")?.unwrap_or_default();
        store.begin(folder, &String::from_utf8_lossy(&run_hash))?;
        Ok(store)
    }

    /// Replaces a published version that is not committed, and removes the groups and answers that it may have sampled.
    pub fn supersede_policy(&self, manifest: &v1::PolicyManifest) -> Result<(), super::Error> {
        let version = manifest.policy_version;
        self.database.write(|transaction| {
            let bytes = manifest.encode_to_vec();
            transaction.open_table(POLICIES)?.insert(version, bytes.as_slice())?;
            remove_groups(transaction, version)?;
            let mut answers = transaction.open_table(ANSWERS)?;
            answers.retain_in((version, 0)..=(version, u32::MAX), |_, _| false)?;
            Ok(())
        })
    }

    /// Drops a version, later versions, and all data that they may have sampled. The run continues with the
    /// step that produces the version, or with the step after it if the learner's checkpoints cover that
    /// step.
    pub fn drop_version(&self, version: PolicyVersion) -> Result<Dropped, Error> {
        let known = self.policies()?;
        let newest = known.last().map_or(0, |manifest| manifest.policy_version);
        let (recovered, PolicyVersion(from)) = (self.recover()?, version);
        if from == 0 {
            return Err(Error::Start);
        }
        if known.iter().all(|manifest| manifest.policy_version != from) {
            return Err(Error::Unknown { version, newest: PolicyVersion(newest) });
        }
        if from < recovered.kept_from {
            return Err(Error::Covered { version, first: Step(recovered.kept_from) });
        }
        // The step that produces the version is committed again if its groups are stored.
        let committed = if recovered.kept_from < from { from - 1 } else { from };
        let mut dropped = self.dropped_versions()?;
        dropped.push(from);
        let mut abandoned = self.abandoned_evaluations()?;
        abandoned.retain(|version, _| version.0 < from);
        // The ranks must join again, because their checkpoints of later steps are void.
        let ranks = recovered.ranks.dissolved();
        let (groups, evaluations) = self.database.write(|transaction| {
            transaction.open_table(STEPS)?.retain_in(committed.., |_, _| false)?;
            transaction.open_table(POLICIES)?.retain_in(from.., |_, _| false)?;
            transaction.open_table(ANSWERS)?.retain_in((from, 0).., |_, _| false)?;
            let mut evaluations = 0;
            transaction.open_table(EVALUATIONS)?.retain_in(from.., |_, _| {
                evaluations += 1;
                false
            })?;
            let groups = remove_groups(transaction, from)?;
            let mut checkpoints = transaction.open_table(CHECKPOINTS)?;
            for (rank, step) in &recovered.checkpoints {
                checkpoints.insert(rank, step.0.min(from))?;
            }
            let mut meta = transaction.open_table(META)?;
            meta.insert(DROPPED, json(&dropped).as_slice())?;
            meta.insert(ABANDONED, json(&abandoned).as_slice())?;
            meta.insert("world", json(&ranks).as_slice())?;
            Ok((groups, evaluations))
        })?;
        let before = Step(recovered.committed);
        Ok(Dropped { steps: (before, Step(before.0.min(committed))), groups, evaluations })
    }

    /// Returns the dropped versions, in order.
    pub fn dropped_versions(&self) -> Result<Vec<u64>, super::Error> {
        let bytes = self.meta(DROPPED)?;
        bytes.map_or_else(|| Ok(Vec::new()), |bytes| self.read_json("the list of dropped versions", &bytes))
    }

    /// Stores that the evaluation of a version is abandoned, and removes its answers.
    pub fn abandon_evaluation(&self, version: PolicyVersion, reason: &str) -> Result<(), super::Error> {
        let mut abandoned = self.abandoned_evaluations()?;
        abandoned.insert(version, reason.to_owned());
        self.database.write(|transaction| {
            let mut answers = transaction.open_table(ANSWERS)?;
            answers.retain_in((version.0, 0)..=(version.0, u32::MAX), |_, _| false)?;
            transaction.open_table(META)?.insert(ABANDONED, json(&abandoned).as_slice())?;
            Ok(())
        })
    }

    /// Returns the abandoned evaluations, with the reason of each.
    pub fn abandoned_evaluations(&self) -> Result<BTreeMap<PolicyVersion, String>, super::Error> {
        let Some(bytes) = self.meta(ABANDONED)? else { return Ok(BTreeMap::new()) };
        self.read_json("the list of abandoned evaluations", &bytes)
    }
}

/// Removes the groups of a step and of later ones; returns their number.
fn remove_groups(transaction: &WriteTransaction, from: u64) -> Result<u64, redb::Error> {
    let mut groups = transaction.open_table(GROUPS)?;
    let count = groups.range((from, 0)..)?.count() as u64;
    groups.retain_in((from, 0).., |_, _| false)?;
    transaction.open_table(SAMPLED_BY)?.retain_in((from, 0).., |_, _| false)?;
    transaction.open_table(SET_ASIDE)?.retain_in((from, 0, 0).., |_, _| false)?;
    transaction.open_table(REWARD_ANSWERS)?.retain_in((from, 0, &[][..]).., |_, _| false)?;
    Ok(count)
}
