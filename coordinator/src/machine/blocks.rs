//! The slots of one piece of work, divided into fixed blocks. A lease consists of slots of one block.
//!
//! The slots of a block depend on their indices alone, so every worker computes the same batch of a block.
//! With dynamic sampling a block has several attempts. Once every slot of an attempt is filled, the slots
//! with equal rewards are emptied again and form the next attempt. The batch of an attempt therefore depends
//! only on earlier results of the same block.

use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Empty,
    /// Filled with equal rewards: emptied again once the attempt is complete.
    Discarded,
    /// Filled permanently.
    Settled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Its current attempt. All unsettled entries of a block have the same one.
    attempt: u32,
    state: SlotState,
}

/// Slots, and their states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    entries: Vec<Entry>,
    per_block: u32,
    /// Maximum number of attempts after the first.
    most_refills: u32,
    settled: u32,
}

/// The state of one attempt at a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptState {
    /// This attempt waits for a result.
    Wanted,
    /// This attempt has its result.
    Filled,
    /// This attempt has not begun and may never begin, or the slot does not exist.
    Closed,
}

/// The consequence of filling a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFill {
    /// The attempt continues, or the result was not wanted.
    Nothing,
    /// Every slot of the block is filled permanently.
    BlockDone,
    /// The attempt is complete, and the block's next one can begin.
    NextAttempt,
}

impl Blocks {
    /// Creates `slots` empty slots in blocks of `per_block`, with at most `most_refills` attempts after the
    /// first. The last block may be smaller.
    pub(super) fn new(slots: u32, per_block: u32, most_refills: u32) -> Self {
        let entry = Entry { attempt: 0, state: SlotState::Empty };
        Self { entries: vec![entry; slots as usize], per_block: per_block.max(1), most_refills, settled: 0 }
    }

    /// Returns the number of slots.
    pub(super) fn len(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Returns the number of slots that are filled permanently.
    pub(super) const fn settled(&self) -> u32 {
        self.settled
    }

    /// Returns the number of accepted results, including those of replaced attempts.
    pub(super) fn taken(&self) -> u64 {
        let taken = |entry: &Entry| u64::from(entry.attempt) + u64::from(entry.state != SlotState::Empty);
        self.entries.iter().map(taken).sum()
    }

    /// Returns whether every slot is filled permanently.
    pub(super) fn is_full(&self) -> bool {
        self.settled == self.len()
    }

    /// Returns the state of an attempt at a slot.
    pub(super) fn attempt_state(&self, index: u32, attempt: u32) -> AttemptState {
        match self.entries.get(index as usize) {
            Some(entry) if attempt < entry.attempt => AttemptState::Filled,
            Some(entry) if attempt == entry.attempt => match entry.state {
                SlotState::Empty => AttemptState::Wanted,
                SlotState::Discarded | SlotState::Settled => AttemptState::Filled,
            },
            _ => AttemptState::Closed,
        }
    }

    /// Fills a slot with the result of an attempt; `zero_variance`: all its rewards are equal. An unwanted
    /// result changes nothing.
    pub(super) fn fill(&mut self, index: u32, attempt: u32, zero_variance: bool) -> AfterFill {
        if self.attempt_state(index, attempt) != AttemptState::Wanted {
            return AfterFill::Nothing;
        }
        let again = zero_variance && attempt < self.most_refills;
        self.entries[index as usize].state = if again { SlotState::Discarded } else { SlotState::Settled };
        self.settled += u32::from(!again);
        let block = self.block_mut(self.block_of(index));
        if block.iter().any(|entry| entry.state == SlotState::Empty) {
            return AfterFill::Nothing;
        }
        let mut after = AfterFill::BlockDone;
        for entry in block.iter_mut().filter(|entry| entry.state == SlotState::Discarded) {
            *entry = Entry { attempt: entry.attempt + 1, state: SlotState::Empty };
            after = AfterFill::NextAttempt;
        }
        after
    }

    /// Empties a slot whose result of an attempt was settled, so that it is sampled again. Its block returns
    /// to that attempt: later attempts in the block depended on the result, and their batches may differ
    /// without it. Returns the slots whose results are removed, each with the last attempt that is still
    /// known to have ended in equal rewards.
    pub(super) fn reopen(&mut self, index: u32, attempt: u32) -> Vec<(u32, Option<u32>)> {
        let is_settled = |entry: &Entry| entry.attempt == attempt && entry.state == SlotState::Settled;
        if !self.entries.get(index as usize).is_some_and(is_settled) {
            return Vec::new();
        }
        let mut reopened = vec![(index, attempt.checked_sub(1))];
        self.entries[index as usize].state = SlotState::Empty;
        self.settled -= 1;
        for other in self.range(self.block_of(index)) {
            let entry = &mut self.entries[other as usize];
            if entry.attempt > attempt {
                self.settled -= u32::from(entry.state == SlotState::Settled);
                *entry = Entry { attempt, state: SlotState::Discarded };
                reopened.push((other, Some(attempt)));
            }
        }
        reopened
    }

    /// Returns the block that contains a slot.
    pub(super) const fn block_of(&self, index: u32) -> u32 {
        index / self.per_block
    }

    /// Returns the current attempt of a block, and the slots that take part in it, in order.
    pub(super) fn batch(&self, block: u32) -> (u32, Vec<u32>) {
        let Range { start, end } = self.range(block);
        let attempt_of = |index: u32| self.entries[index as usize].attempt;
        let attempt = (start..end).map(attempt_of).max().unwrap_or(0);
        (attempt, (start..end).filter(|&index| attempt_of(index) == attempt).collect())
    }

    /// Returns the blocks with an empty slot, in order.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = u32> {
        let empty = |entry: &Entry| entry.state == SlotState::Empty;
        let blocks = self.entries.chunks(self.per_block as usize).zip(0..);
        blocks.filter(move |(entries, _)| entries.iter().any(empty)).map(|(_, block)| block)
    }

    fn range(&self, block: u32) -> Range<u32> {
        let start = block.saturating_mul(self.per_block).min(self.len());
        start..start.saturating_add(self.per_block).min(self.len())
    }

    fn block_mut(&mut self, block: u32) -> &mut [Entry] {
        let Range { start, end } = self.range(block);
        &mut self.entries[start as usize..end as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_may_be_smaller() {
        let mut blocks = Blocks::new(5, 2, 0);
        assert_eq!(blocks.batch(2), (0, vec![4]));
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(
            blocks.fill(4, 0, true),
            AfterFill::BlockDone,
            "without refills a group of equal rewards is kept"
        );
        assert_eq!(blocks.fill(4, 0, false), AfterFill::Nothing);
        assert_eq!(blocks.fill(7, 0, false), AfterFill::Nothing);
        assert_eq!(blocks.settled(), 1);
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(blocks.attempt_state(5, 0), AttemptState::Closed);
        (0..4).for_each(|index| _ = blocks.fill(index, 0, false));
        assert!(blocks.is_full());
    }

    #[test]
    fn a_blocks_equal_rewards_make_up_its_next_attempt() {
        let mut blocks = Blocks::new(4, 3, 2);
        assert_eq!(blocks.fill(0, 0, true), AfterFill::Nothing);
        assert_eq!(blocks.fill(1, 0, false), AfterFill::Nothing);
        assert_eq!(
            blocks.batch(0),
            (0, vec![0, 1, 2]),
            "an attempt's batch stays as it is until it is complete"
        );
        assert_eq!(
            (blocks.attempt_state(0, 0), blocks.attempt_state(0, 1)),
            (AttemptState::Filled, AttemptState::Closed)
        );
        assert_eq!(blocks.fill(2, 0, true), AfterFill::NextAttempt);
        assert_eq!((blocks.batch(0), blocks.settled()), ((1, vec![0, 2]), 1));
        assert_eq!(
            (blocks.attempt_state(0, 0), blocks.attempt_state(0, 1)),
            (AttemptState::Filled, AttemptState::Wanted)
        );
        assert_eq!(
            (blocks.attempt_state(1, 0), blocks.attempt_state(1, 1)),
            (AttemptState::Filled, AttemptState::Closed)
        );
        assert_eq!(blocks.fill(0, 0, false), AfterFill::Nothing, "a late result of an earlier attempt");
        assert_eq!(blocks.fill(2, 1, false), AfterFill::Nothing);
        assert_eq!(blocks.fill(0, 1, true), AfterFill::NextAttempt);
        assert_eq!(blocks.batch(0), (2, vec![0]));
        assert_eq!(blocks.fill(0, 2, true), AfterFill::BlockDone, "the last attempt is kept");
        assert_eq!((blocks.settled(), blocks.attempt_state(0, 3)), (3, AttemptState::Closed));
        assert_eq!(blocks.taken(), 6, "three, two and one of three attempts");
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_slot_that_is_reopened_takes_its_block_back_to_its_attempt() {
        let mut blocks = Blocks::new(4, 4, 2);
        let equal = [true, false, true, true];
        equal.iter().zip(0..).for_each(|(&equal, index)| _ = blocks.fill(index, 0, equal));
        for (index, equal) in [(0, true), (2, false), (3, true)] {
            blocks.fill(index, 1, equal);
        }
        for index in [0, 3] {
            blocks.fill(index, 2, true);
        }
        let full = blocks.clone();
        assert!(full.is_full());
        assert_eq!(blocks.reopen(2, 0), [], "that attempt was discarded");
        assert_eq!(blocks.reopen(9, 0), []);
        assert_eq!(blocks, full);

        assert_eq!(blocks.reopen(2, 1), [(2, Some(0)), (0, Some(1)), (3, Some(1))]);
        assert_eq!(blocks.batch(0), (1, vec![0, 2, 3]), "the batch is as it was");
        assert_eq!(
            (blocks.attempt_state(2, 1), blocks.attempt_state(0, 1)),
            (AttemptState::Wanted, AttemptState::Filled)
        );
        assert_eq!((blocks.settled(), blocks.attempt_state(0, 2)), (1, AttemptState::Closed));
        assert_eq!(blocks.fill(2, 1, true), AfterFill::NextAttempt, "the new result may decide otherwise");
        assert_eq!(blocks.batch(0), (2, vec![0, 2, 3]));
        for index in [0, 2, 3] {
            blocks.fill(index, 2, true);
        }
        assert!(blocks.is_full());

        // Two slots of a block, the later attempt first.
        assert_eq!(blocks.reopen(3, 2), [(3, Some(1))]);
        assert_eq!(blocks.reopen(1, 0), [(1, None), (0, Some(0)), (2, Some(0)), (3, Some(0))]);
        assert_eq!((blocks.batch(0), blocks.settled()), ((0, vec![0, 1, 2, 3]), 0));
    }
}
