//! Groups that a learner cannot train on: the cause, the worker that sampled them, and the attempts before them.

use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1;
use prost::Message;
use redb::ReadableTable;

use super::error::Error;
use super::tables::{GROUPS, SAMPLED_BY, SET_ASIDE};
use super::{Store, json};
use crate::results::{SampledBy, SetAside};

impl Store {
    /// Stores the causes of groups that are set aside, and removes the results of slots, by index. Each slot
    /// returns to the last attempt that is known to have ended in equal rewards.
    pub fn set_aside(&self, removed: &[(u32, Option<u32>)], records: &[SetAside]) -> Result<(), Error> {
        let Some(step) = records.first().map(|record| record.step) else { return Ok(()) };
        self.database.write(|transaction| {
            let mut groups = transaction.open_table(GROUPS)?;
            let mut sampled_by = transaction.open_table(SAMPLED_BY)?;
            for &(index, last) in removed {
                groups.remove((step, index))?;
                sampled_by.remove((step, index))?;
                if let Some(attempt) = last {
                    // Only the existence of this attempt is needed.
                    let stub = v1::ScoredGroup { step, index, attempt, ..v1::ScoredGroup::default() };
                    groups.insert((step, index), stub.encode_to_vec().as_slice())?;
                }
            }
            let mut table = transaction.open_table(SET_ASIDE)?;
            for record in records {
                let slot = (step, record.index);
                let last = table.range((slot.0, slot.1, 0)..=(slot.0, slot.1, u32::MAX))?.next_back();
                let number = last.transpose()?.map_or(0, |(key, _)| key.value().2 + 1);
                table.insert((slot.0, slot.1, number), json(record).as_slice())?;
            }
            Ok(())
        })
    }

    /// Returns the groups of a step that were set aside, by index, then in order of time.
    pub fn aside(&self, step: Step) -> Result<Vec<SetAside>, Error> {
        let rows = self.database.read(|transaction| {
            let table = transaction.open_table(SET_ASIDE)?;
            let rows = table.range((step.0, 0, 0)..=(step.0, u32::MAX, u32::MAX))?;
            rows.map(|entry| Ok(entry?.1.value().to_vec())).collect::<Result<Vec<_>, redb::Error>>()
        })?;
        rows.iter().map(|bytes| self.read_json("a group that was set aside", bytes)).collect()
    }

    /// Returns the worker and the version that sampled the group of a slot, if known.
    pub fn sampled_by(
        &self,
        step: Step,
        index: u32,
    ) -> Result<(Option<SampledBy>, Option<PolicyVersion>), Error> {
        let (worker, group) = self.database.read(|transaction| {
            let (workers, groups) = (transaction.open_table(SAMPLED_BY)?, transaction.open_table(GROUPS)?);
            let worker = workers.get((step.0, index))?.map(|value| value.value().to_vec());
            let group = groups.get((step.0, index))?.map(|value| value.value().to_vec());
            Ok((worker, group))
        })?;
        let worker = worker.map(|bytes| self.read_json("the worker of a group", &bytes)).transpose()?;
        let group = group.map(|bytes| self.group(&bytes)).transpose()?;
        Ok((worker, group.map(|group| PolicyVersion(group.policy_version))))
    }
}
