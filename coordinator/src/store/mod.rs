//! The data that a run must not lose, in an embedded database under the output folder.
//!
//! Every write is durable when its function returns. [`crate::machine::sequencer`] writes here before a
//! worker or a rank gets its reply. The store does not know the run's rules, which belong to the machine. All
//! functions block on the disk.

mod aside;
mod database;
mod error;
mod records;
mod rewards;
mod tables;
#[cfg(test)]
mod tests;
pub mod versions;

use std::collections::BTreeMap;
use std::path::Path;

use podium_grpo::{PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;
use prost::Message;
use redb::ReadableTable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::machine::{RankGroup, Recovered};
use crate::results::{Filled, Results, SampledBy, filled};
use database::Database;
pub use error::Error;
pub use records::{EvaluationRecord, Row, StepRecord};
pub use tables::FILE_NAME;
use tables::{
    ANSWERS, CHECKPOINTS, EVALUATIONS, FORMAT, GROUPS, META, POLICIES, REWARD_ANSWERS, SAMPLED_BY, SET_ASIDE,
    STEPS,
};

/// The run's database.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens or creates the database under `folder`, and checks that it belongs to the run with this hash.
    pub fn open(folder: &Path, run_hash: &str) -> Result<Self, Error> {
        let path = folder.join(FILE_NAME);
        let opened = path.clone();
        let store = Self { database: Database::new(path, move || database::options().create(&opened)) };
        store.begin(folder, run_hash)?;
        Ok(store)
    }

    fn begin(&self, folder: &Path, run_hash: &str) -> Result<(), Error> {
        let run_id = Uuid::new_v4().to_string();
        let (format, hash) = self.database.write(|transaction| {
            for (name, default) in [("format", FORMAT), ("run_hash", run_hash), ("run_id", &run_id)] {
                let mut meta = transaction.open_table(META)?;
                if meta.get(name)?.is_none() {
                    meta.insert(name, default.as_bytes())?;
                }
            }
            transaction.open_table(GROUPS)?;
            transaction.open_table(ANSWERS)?;
            transaction.open_table(STEPS)?;
            transaction.open_table(EVALUATIONS)?;
            transaction.open_table(CHECKPOINTS)?;
            transaction.open_table(POLICIES)?;
            transaction.open_table(SAMPLED_BY)?;
            transaction.open_table(SET_ASIDE)?;
            transaction.open_table(REWARD_ANSWERS)?;
            let meta = transaction.open_table(META)?;
            let text = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value().to_vec()));
            Ok((text("format")?, text("run_hash")?))
        })?;
        let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        let (format, hash) = (text(format), text(hash));
        if format != FORMAT {
            return Err(Error::Format { path: self.database.path().to_owned(), found: format });
        }
        if hash != run_hash {
            let (folder, expected) = (folder.to_owned(), run_hash.to_owned());
            return Err(Error::OtherRun { folder, found: hash, expected });
        }
        Ok(())
    }

    /// Returns the run's identifier, chosen when the database was created.
    pub fn run_id(&self) -> Result<Uuid, Error> {
        let bytes = self.meta("run_id")?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Uuid::try_parse(&text).map_err(|source| self.damaged("the run's identifier", source))
    }

    /// Returns an entry about the whole run.
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.database.read(|transaction| {
            let meta = transaction.open_table(META)?;
            Ok(meta.get(name)?.map(|value| value.value().to_vec()))
        })
    }

    /// Stores results of slots, each with the worker that sampled them, in one transaction.
    pub fn put_results(&self, submitted: &[(Results, SampledBy)]) -> Result<(), Error> {
        self.database.write(|transaction| {
            let mut groups = transaction.open_table(GROUPS)?;
            let mut sampled_by = transaction.open_table(SAMPLED_BY)?;
            let mut answers = transaction.open_table(ANSWERS)?;
            for (results, worker) in submitted {
                let worker = json(worker);
                for group in &results.groups {
                    groups.insert((group.step, group.index), group.encode_to_vec().as_slice())?;
                    sampled_by.insert((group.step, group.index), worker.as_slice())?;
                }
                for (version, index, answer) in &results.answers {
                    answers.insert((version.0, *index), answer.encode_to_vec().as_slice())?;
                }
            }
            Ok(())
        })
    }

    /// Returns the stored groups of a step, by index.
    pub fn groups(&self, step: Step) -> Result<Vec<v1::ScoredGroup>, Error> {
        let groups = self.database.read(|transaction| {
            let table = transaction.open_table(GROUPS)?;
            let entries = table.range((step.0, 0)..=(step.0, u32::MAX))?;
            entries.map(|entry| Ok(entry?.1.value().to_vec())).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        groups.iter().map(|bytes| self.group(bytes)).collect()
    }

    /// Returns the stored answers of an evaluation that is not closed, by index.
    pub fn answers(&self, version: PolicyVersion) -> Result<BTreeMap<u32, v1::Completion>, Error> {
        let answers = self.database.read(|transaction| {
            let table = transaction.open_table(ANSWERS)?;
            let mut answers = Vec::new();
            for entry in table.range((version.0, 0)..=(version.0, u32::MAX))? {
                let (key, value) = entry?;
                answers.push((key.value().1, value.value().to_vec()));
            }
            Ok(answers)
        })?;
        let decode = |(index, bytes): (u32, Vec<u8>)| Ok((index, v1::Completion::decode(bytes.as_slice())?));
        let decoded: Result<_, prost::DecodeError> = answers.into_iter().map(decode).collect();
        decoded.map_err(|source| self.damaged("an answer", source))
    }

    /// Stores the record of a committed step, or replaces it.
    pub fn put_step(&self, step: Step, record: &StepRecord) -> Result<(), Error> {
        let bytes = json(record);
        self.database.write(|transaction| {
            transaction.open_table(STEPS)?.insert(step.0, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Returns the record of a committed step.
    pub fn step(&self, step: Step) -> Result<Option<StepRecord>, Error> {
        let bytes = self.database.read(|transaction| {
            let table = transaction.open_table(STEPS)?;
            Ok(table.get(step.0)?.map(|value| value.value().to_vec()))
        })?;
        bytes.map(|bytes| self.read_json("a step's record", &bytes)).transpose()
    }

    /// Returns the records of all committed steps, in order.
    pub fn steps(&self) -> Result<Vec<StepRecord>, Error> {
        let rows = self.database.read(|transaction| {
            let table = transaction.open_table(STEPS)?;
            let rows = table.iter()?.map(|entry| Ok(entry?.1.value().to_vec()));
            rows.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.iter().map(|bytes| self.read_json("a step's record", bytes)).collect()
    }

    /// Stores the record of an evaluation, and removes its answers.
    pub fn put_evaluation(&self, version: PolicyVersion, record: &EvaluationRecord) -> Result<(), Error> {
        let bytes = json(record);
        self.database.write(|transaction| {
            transaction.open_table(EVALUATIONS)?.insert(version.0, bytes.as_slice())?;
            let mut answers = transaction.open_table(ANSWERS)?;
            answers.retain_in((version.0, 0)..=(version.0, u32::MAX), |_, _| false)?;
            Ok(())
        })
    }

    /// Returns all complete evaluations.
    pub fn evaluations(&self) -> Result<BTreeMap<PolicyVersion, EvaluationRecord>, Error> {
        let records = self.database.read(|transaction| {
            let table = transaction.open_table(EVALUATIONS)?;
            let records = table.iter()?.map(|entry| {
                let (version, bytes) = entry?;
                Ok((PolicyVersion(version.value()), bytes.value().to_vec()))
            });
            records.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let read = |(version, bytes): (_, Vec<u8>)| Ok((version, self.read_json("an evaluation", &bytes)?));
        records.into_iter().map(read).collect()
    }

    /// Stores the step that the newest checkpoint of a rank continues with.
    pub fn put_checkpoint(&self, rank: u32, step: Step) -> Result<(), Error> {
        self.database.write(|transaction| {
            let mut table = transaction.open_table(CHECKPOINTS)?;
            let before = table.get(rank)?.map_or(0, |step| step.value());
            table.insert(rank, step.0.max(before))?;
            Ok(())
        })
    }

    /// Removes the groups of steps before `before`.
    pub fn drop_groups(&self, before: Step) -> Result<(), Error> {
        self.database.write(|transaction| {
            transaction.open_table(META)?.insert("kept_from", before.0.to_le_bytes().as_slice())?;
            transaction.open_table(GROUPS)?.retain_in(..(before.0, 0), |_, _| false)?;
            transaction.open_table(SAMPLED_BY)?.retain_in(..(before.0, 0), |_, _| false)?;
            let mut answers = transaction.open_table(REWARD_ANSWERS)?;
            answers.retain_in(..(before.0, 0, &[][..]), |_, _| false)?;
            Ok(())
        })
    }

    /// Stores the manifest of a version whose folder is complete.
    pub fn put_policy(&self, manifest: &v1::PolicyManifest) -> Result<(), Error> {
        self.database.write(|transaction| {
            let bytes = manifest.encode_to_vec();
            transaction.open_table(POLICIES)?.insert(manifest.policy_version, bytes.as_slice())?;
            Ok(())
        })
    }

    /// Returns the manifests of all published versions.
    pub fn policies(&self) -> Result<Vec<v1::PolicyManifest>, Error> {
        let manifests = self.database.read(|transaction| {
            let table = transaction.open_table(POLICIES)?;
            let manifests = table.iter()?.map(|entry| Ok(entry?.1.value().to_vec()));
            manifests.collect::<Result<Vec<_>, redb::Error>>()
        })?;
        let decode = |bytes: Vec<u8>| v1::PolicyManifest::decode(bytes.as_slice());
        let decoded: Result<_, _> = manifests.into_iter().map(decode).collect();
        decoded.map_err(|source| self.damaged("a policy manifest", source))
    }

    /// Stores the learner's rank group.
    pub fn put_rank_group(&self, ranks: &RankGroup) -> Result<(), Error> {
        let bytes = json(ranks);
        self.database.write(|transaction| {
            transaction.open_table(META)?.insert("world", bytes.as_slice())?;
            Ok(())
        })
    }

    /// Returns the state of the run, for [`crate::machine::Machine::restore`].
    pub fn recover(&self) -> Result<Recovered, Error> {
        let (mut recovered, groups, ranks) = self.database.read(|transaction| {
            let mut recovered = Recovered::default();
            if let Some((step, _)) = transaction.open_table(STEPS)?.last()? {
                recovered.committed = step.value() + 1;
            }
            // Groups of committed steps only wait for checkpoints.
            let groups = transaction.open_table(GROUPS)?;
            let groups = groups.range((recovered.committed, 0)..)?;
            let groups = groups.map(|entry| Ok(entry?.1.value().to_vec()));
            let groups = groups.collect::<Result<Vec<_>, redb::Error>>()?;
            let step = recovered.committed;
            let aside = transaction.open_table(SET_ASIDE)?;
            for entry in aside.range((step, 0, 0)..=(step, u32::MAX, u32::MAX))? {
                recovered.reopened.push(entry?.0.value().1);
            }
            for entry in transaction.open_table(ANSWERS)?.iter()? {
                let (version, index) = entry?.0.value();
                let slot = Slot::Evaluation { version: PolicyVersion(version), index };
                recovered.filled.push(Filled { slot, zero_variance: false });
            }
            for entry in transaction.open_table(EVALUATIONS)?.iter()? {
                recovered.evaluated.push(PolicyVersion(entry?.0.value()));
            }
            for entry in transaction.open_table(CHECKPOINTS)?.iter()? {
                let (rank, step) = entry?;
                recovered.checkpoints.insert(rank.value(), Step(step.value()));
            }
            if let Some((version, _)) = transaction.open_table(POLICIES)?.last()? {
                recovered.latest = version.value();
            }
            let meta = transaction.open_table(META)?;
            if let Some(bytes) = meta.get("kept_from")? {
                recovered.kept_from = bytes.value().try_into().map_or(0, u64::from_le_bytes);
            }
            Ok((recovered, groups, meta.get("world")?.map(|bytes| bytes.value().to_vec())))
        })?;
        recovered.abandoned = self.abandoned_evaluations()?.into_keys().collect();
        for group in groups {
            recovered.filled.push(filled(&self.group(&group)?));
        }
        if let Some(ranks) = ranks {
            recovered.ranks = self.read_json("the learner's ranks", &ranks)?;
        }
        Ok(recovered)
    }

    fn group(&self, bytes: &[u8]) -> Result<v1::ScoredGroup, Error> {
        v1::ScoredGroup::decode(bytes).map_err(|source| self.damaged("a group", source))
    }

    fn read_json<T: DeserializeOwned>(&self, what: &'static str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|source| self.damaged(what, source))
    }

    fn damaged(
        &self,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Damaged { path: self.database.path().to_owned(), what, source: source.into() }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("records are maps with text keys, lists, numbers and text")
}
