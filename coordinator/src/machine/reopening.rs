//! Slots that are sampled again, since a learner cannot train on their results.

use podium_grpo::Step;
use uuid::Uuid;

use super::blocks::Blocks;
use super::{Action, Error, Machine, Work};

/// What reopening slots of a step removes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reopening {
    /// The slots to be sampled again, by index, and the attempt whose result is removed. Slots whose attempt has no result
    /// any more are left out.
    pub slots: Vec<(u32, u32)>,
    /// Every slot whose result is removed, with the last attempt that is still known to have ended in equal rewards:
    /// `slots`, and those whose later attempts followed from them.
    pub removed: Vec<(u32, Option<u32>)>,
}

impl Machine {
    /// What reopening slots of a step removes, by index and attempt. Asked before anything is removed from the store.
    /// `learner`: the process that asks for it.
    pub fn reopening(&self, learner: Uuid, step: Step, slots: &[(u32, u32)]) -> Result<Reopening, Error> {
        self.world().rank_of(learner).ok_or(Error::UnknownLearner { learner })?;
        let committed = self.committed();
        if step < committed {
            return Err(Error::StepCommitted { step, committed });
        }
        if step > committed {
            return Err(Error::StepAhead { step, committed });
        }
        let mut blocks = self.open.get(&Work::Training(step)).cloned();
        Ok(blocks.as_mut().map(|blocks| reopening(blocks, slots)).unwrap_or_default())
    }

    pub(super) fn reopen(&mut self, step: Step, slots: &[(u32, u32)], actions: &mut Vec<Action>) {
        let work = Work::Training(step);
        let Some(blocks) = self.open.get_mut(&work) else { return };
        let reopened = reopening(blocks, slots);
        for &(index, _) in &reopened.slots {
            *self.reopened.entry(index).or_insert(0) += 1;
            // A lease may be of an attempt that the block is no longer at.
            let block = blocks.block_of(index);
            self.leases.remove_block(work, block);
        }
        if !reopened.slots.is_empty() {
            actions.push(Action::Wake);
        }
    }

    /// Whether a slot of a block was ever reopened, also by a process before this one.
    pub(super) fn was_reopened(&self, work: Work, block: u32) -> bool {
        let Some(blocks) = self.open.get(&work).filter(|_| work == Work::Training(self.committed())) else {
            return false;
        };
        self.reopened.keys().any(|&index| blocks.block_of(index) == block)
    }

    /// How often a slot of the step being made was reopened since this process started.
    pub fn reopened(&self, index: u32) -> u32 {
        self.reopened.get(&index).copied().unwrap_or(0)
    }
}

fn reopening(blocks: &mut Blocks, slots: &[(u32, u32)]) -> Reopening {
    let mut reopening = Reopening::default();
    for &(index, attempt) in slots {
        let removed = blocks.reopen(index, attempt);
        if removed.is_empty() {
            continue;
        }
        reopening.slots.push((index, attempt));
        // What a slot is taken back to later counts.
        reopening.removed.retain(|(before, _)| removed.iter().all(|(now, _)| now != before));
        reopening.removed.extend(removed);
    }
    reopening
}
