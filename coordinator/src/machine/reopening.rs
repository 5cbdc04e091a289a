//! Slots that are sampled again because a learner cannot train on their results.

use podium_grpo::Step;
use uuid::Uuid;

use super::blocks::Blocks;
use super::{Effect, Error, Machine, Millis, Transition, Work};

/// The results that reopening slots of a step removes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reopening {
    /// The slots to sample again, by index, and the attempt whose result is removed. Slots whose attempt has
    /// no result any more are omitted.
    pub slots: Vec<(u32, u32)>,
    /// Every slot whose result is removed, with the last attempt that is still known to have ended in equal
    /// rewards: `slots`, and slots whose later attempts depended on them.
    pub removed: Vec<(u32, Option<u32>)>,
}

impl Machine {
    /// Returns the results that reopening slots of a step, by index and attempt, removes. Changes nothing.
    /// `learner`: the process that requests it.
    pub fn reopening(&self, learner: Uuid, step: Step, slots: &[(u32, u32)]) -> Result<Reopening, Error> {
        self.ranks.rank_of(learner).ok_or(Error::UnknownLearner { learner })?;
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

    /// Empties slots, by index and attempt, whose results were removed from the store.
    pub(super) fn slots_reopened(&mut self, now: Millis, step: Step, slots: &[(u32, u32)]) -> Transition<()> {
        self.transition(now, |machine, effects| {
            let work = Work::Training(step);
            let Some(blocks) = machine.open.get_mut(&work) else { return };
            let reopened = reopening(blocks, slots);
            for &(index, _) in &reopened.slots {
                *machine.reopened.entry(index).or_insert(0) += 1;
                // The lease may belong to an earlier attempt of the block.
                let block = blocks.block_of(index);
                machine.leases.remove_block(work, block);
            }
            if !reopened.slots.is_empty() {
                effects.push(Effect::Wake);
            }
        })
    }

    /// Returns whether a slot of a block was ever reopened, also by an earlier process.
    pub(super) fn was_reopened(&self, work: Work, block: u32) -> bool {
        let Some(blocks) = self.open.get(&work).filter(|_| work == Work::Training(self.committed())) else {
            return false;
        };
        self.reopened.keys().any(|&index| blocks.block_of(index) == block)
    }

    /// Returns how often a slot of the current step was reopened since this process started.
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
        // If a slot is reset several times, the last reset counts.
        reopening.removed.retain(|(before, _)| removed.iter().all(|(now, _)| now != before));
        reopening.removed.extend(removed);
    }
    reopening
}
