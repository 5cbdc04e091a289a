//! The coordinator's simulated disk. Writes fail, and the coordinator crashes directly before or after a
//! write.

use std::collections::{BTreeMap, BTreeSet};

use podium_grpo::rng::Stream;
use podium_grpo::{GroupId, PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;

use super::content::{Content, prompt};
use crate::machine::sequencer::{Storage, Write};
use crate::machine::{Error, Recovered};
use crate::results::{Filled, Results, SampledBy, SetAside, filled};

/// The reasons why a call to the coordinator has no reply.
#[derive(Debug)]
pub(super) enum Fault {
    /// The machine refuses the call.
    Refused(Error),
    /// A write failed.
    Failed,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Content of the coordinator's store.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    recovered: Recovered,
    groups: BTreeMap<(u64, u32), v1::ScoredGroup>,
    sampled_by: BTreeMap<(u64, u32), SampledBy>,
    answers: BTreeMap<(u64, u32), v1::Completion>,
    aside: Vec<SetAside>,
    commits: Vec<u64>,
    faults: Stream,
    has_crashed: bool,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            recovered: Recovered::default(),
            groups: BTreeMap::new(),
            sampled_by: BTreeMap::new(),
            answers: BTreeMap::new(),
            aside: Vec::new(),
            commits: Vec::new(),
            faults: Stream::new(seed, "faults", &[]),
            has_crashed: false,
        }
    }

    /// Returns whether the coordinator crashed at a write.
    pub(super) const fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    /// Returns the disk as another process finds it.
    pub(super) fn restarted(&self) -> Self {
        Self { has_crashed: false, ..self.clone() }
    }

    /// Returns the state that a restart finds.
    pub(super) fn recover(&self) -> Recovered {
        let mut recovered = self.recovered.clone();
        let step = recovered.committed;
        let groups = self.groups.range((step, 0)..).map(|(_, group)| filled(group));
        let open = |version: u64| !recovered.evaluated.contains(&PolicyVersion(version));
        let answers = self.answers.keys().filter(|(version, _)| open(*version)).map(|&(version, index)| {
            let slot = Slot::Evaluation { version: PolicyVersion(version), index };
            Filled { slot, zero_variance: false }
        });
        recovered.filled = answers.chain(groups).collect();
        let reopened: BTreeSet<u32> =
            self.aside.iter().filter(|aside| aside.step == step).map(|aside| aside.index).collect();
        recovered.reopened = reopened.into_iter().collect();
        // Restored as from a file.
        let ranks = serde_json::to_string(&recovered.ranks).unwrap();
        recovered.ranks = serde_json::from_str(&ranks).unwrap();
        recovered
    }

    /// Returns the group of a slot.
    pub(super) fn group(&self, step: u64, index: u32) -> Content {
        Content::of_group(&self.groups[&(step, index)])
    }

    /// Returns all answers to held-out prompts.
    pub(super) fn answers(&self) -> Vec<Content> {
        let content = |(&(version, index), answer)| Content::of_answer(PolicyVersion(version), index, answer);
        self.answers.iter().map(content).collect()
    }

    /// Returns the committed steps, in order of time.
    pub(super) fn commits(&self) -> &[u64] {
        &self.commits
    }

    /// Stores the record of a step.
    pub(super) fn store_step(&mut self, step: Step) -> Result<(), Fault> {
        self.attempt(true, |disk| {
            disk.commits.push(step.0);
            disk.recovered.committed = step.0 + 1;
        })
    }

    /// Stores the record of an evaluation.
    pub(super) fn store_evaluation(
        &mut self,
        version: PolicyVersion,
        end: Option<String>,
    ) -> Result<(), Fault> {
        self.attempt(true, |disk| {
            disk.recovered.evaluated.push(version);
            if let Some(reason) = end {
                disk.recovered.ended_by = Some((version, reason));
            }
        })
    }

    /// Makes a change, unless it fails or the coordinator crashes before it. `may_fail`: whether it may fail
    /// without a crash.
    fn attempt(&mut self, may_fail: bool, change: impl FnOnce(&mut Self)) -> Result<(), Fault> {
        let fate = self.faults.below(60);
        if self.has_crashed || (fate == 2 && may_fail) {
            return Err(Fault::Failed);
        }
        self.has_crashed = fate < 2;
        if fate != 0 {
            change(self);
        }
        if self.has_crashed { Err(Fault::Failed) } else { Ok(()) }
    }

    fn put_results(&mut self, results: Results, worker: &SampledBy) {
        for group in results.groups {
            let (key, GroupId { attempt, .. }) = ((group.step, group.index), id(&group));
            let replaced = self.groups.get(&key).map(|before| before.attempt);
            assert_eq!(replaced, attempt.checked_sub(1), "{group:?} was filled twice, or out of turn");
            let is_retained =
                replaced.is_some_and(|attempt| !prompt(Slot::Training(GroupId { attempt, ..id(&group) })).1);
            assert!(!is_retained, "the group before {group:?} was to be retained");
            self.sampled_by.insert(key, worker.clone());
            self.groups.insert(key, group);
        }
        for (version, index, answer) in results.answers {
            let before = self.answers.insert((version.0, index), answer);
            assert!(before.is_none(), "answer {index} of {version} was filled twice");
        }
    }

    fn put_aside(&mut self, removed: &[(u32, Option<u32>)], records: Vec<SetAside>) {
        let Some(step) = records.first().map(|record| record.step) else { return };
        for &(index, last) in removed {
            self.sampled_by.remove(&(step, index));
            self.groups.remove(&(step, index));
            if let Some(attempt) = last {
                let stub = v1::ScoredGroup { step, index, attempt, ..v1::ScoredGroup::default() };
                self.groups.insert((step, index), stub);
            }
        }
        self.aside.extend(records);
    }
}

const fn id(group: &v1::ScoredGroup) -> GroupId {
    GroupId { step: Step(group.step), index: group.index, attempt: group.attempt }
}

impl Storage for Disk {
    type Error = Fault;

    async fn write(&mut self, write: Write) -> Result<(), Fault> {
        // Without its rank group a later process may repeat a rendezvous epoch, which the simulated ranks
        // cannot distinguish.
        let may_fail = !matches!(write, Write::RankGroup(_));
        self.attempt(may_fail, |disk| match write {
            Write::Results(submitted) => {
                for (results, worker) in submitted {
                    disk.put_results(results, &worker);
                }
            }
            Write::Checkpoint { rank, step } => {
                let stored = disk.recovered.checkpoints.entry(rank).or_insert(Step(0));
                *stored = (*stored).max(step);
            }
            Write::SetAside { removed, records } => disk.put_aside(&removed, records),
            Write::Published(manifest) => {
                disk.recovered.latest = disk.recovered.latest.max(manifest.policy_version);
            }
            Write::RankGroup(ranks) => disk.recovered.ranks = ranks,
            Write::DroppedGroups { before } => {
                disk.recovered.kept_from = before.0;
                disk.groups.retain(|(step, _), _| *step >= before.0);
            }
            Write::Superseded(_) | Write::AbandonedEvaluation { .. } => unreachable!("nothing simulates it"),
        })
    }

    async fn set_aside(&mut self, step: Step) -> Result<Vec<SetAside>, Fault> {
        Ok(self.aside.iter().filter(|aside| aside.step == step.0).cloned().collect())
    }

    async fn sampled_by(
        &mut self,
        step: Step,
        index: u32,
    ) -> Result<(Option<SampledBy>, Option<PolicyVersion>), Fault> {
        let version = self.groups.get(&(step.0, index)).map(|group| PolicyVersion(group.policy_version));
        Ok((self.sampled_by.get(&(step.0, index)).cloned(), version))
    }
}
