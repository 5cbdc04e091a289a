//! The slots of one piece of work, cut into the fixed blocks that leases are made of.
//!
//! Which slots share a block follows from their indices alone, so that whoever computes a block computes the same batch.
//! With dynamic sampling a block is worked on in attempts: once every slot of an attempt is filled, those whose rewards
//! are all equal are emptied again and make up the next attempt. So an attempt's batch follows from earlier results of
//! the same block, and from nothing else.

use std::ops::Range;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Empty,
    /// Filled with equal rewards: emptied again once the attempt is complete.
    Discarded,
    /// Filled for good.
    Settled,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// The attempt that it is at. All places of a block that are not settled are at the same one.
    attempt: u32,
    state: State,
}

/// Slots, and which of them are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    places: Vec<Place>,
    per_block: u32,
    /// Attempts after the first.
    most_refills: u32,
    settled: u32,
}

/// Where a slot stands, seen from one attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    /// This attempt waits for a result.
    Wanted,
    /// This attempt has its result.
    Filled,
    /// This attempt has not begun, and may never begin; or there is no such slot.
    Closed,
}

/// What filling a slot leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The attempt goes on, or the result was not wanted.
    Nothing,
    /// Every slot of the block is filled for good.
    BlockDone,
    /// The attempt is complete, and the block's next one can begin.
    NextAttempt,
}

impl Blocks {
    /// `slots` empty slots in blocks of `per_block`, the last of which may be smaller, with at most `most_refills`
    /// attempts after the first.
    pub(super) fn new(slots: u32, per_block: u32, most_refills: u32) -> Self {
        let place = Place { attempt: 0, state: State::Empty };
        Self { places: vec![place; slots as usize], per_block: per_block.max(1), most_refills, settled: 0 }
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u32 {
        self.places.len() as u32
    }

    /// Number of slots that are filled for good.
    pub(super) const fn settled(&self) -> u32 {
        self.settled
    }

    /// Results that were taken: of all slots, and of the attempts at them that others came after.
    pub(super) fn taken(&self) -> u64 {
        let taken = |place: &Place| u64::from(place.attempt) + u64::from(place.state != State::Empty);
        self.places.iter().map(taken).sum()
    }

    /// Whether every slot is filled for good.
    pub(super) fn is_full(&self) -> bool {
        self.settled == self.len()
    }

    /// Where an attempt at a slot stands.
    pub(super) fn stand(&self, index: u32, attempt: u32) -> Stand {
        match self.places.get(index as usize) {
            Some(place) if attempt < place.attempt => Stand::Filled,
            Some(place) if attempt == place.attempt => match place.state {
                State::Empty => Stand::Wanted,
                State::Discarded | State::Settled => Stand::Filled,
            },
            _ => Stand::Closed,
        }
    }

    /// Fills a slot with the result of an attempt; `zero_variance`: all its rewards are equal. What is not wanted changes
    /// nothing.
    pub(super) fn fill(&mut self, index: u32, attempt: u32, zero_variance: bool) -> After {
        if self.stand(index, attempt) != Stand::Wanted {
            return After::Nothing;
        }
        let again = zero_variance && attempt < self.most_refills;
        self.places[index as usize].state = if again { State::Discarded } else { State::Settled };
        self.settled += u32::from(!again);
        let block = self.block_mut(self.block_of(index));
        if block.iter().any(|place| place.state == State::Empty) {
            return After::Nothing;
        }
        let mut after = After::BlockDone;
        for place in block.iter_mut().filter(|place| place.state == State::Discarded) {
            *place = Place { attempt: place.attempt + 1, state: State::Empty };
            after = After::NextAttempt;
        }
        after
    }

    /// Empties a slot whose result of an attempt was settled, so that it is sampled again. Its block goes back to that
    /// attempt: later attempts in the block followed from the result, and their batches may differ without it. Returns the
    /// slots whose results go, each with the last attempt that is still known to have ended in equal rewards.
    pub(super) fn reopen(&mut self, index: u32, attempt: u32) -> Vec<(u32, Option<u32>)> {
        let is_settled = |place: &Place| place.attempt == attempt && place.state == State::Settled;
        if !self.places.get(index as usize).is_some_and(is_settled) {
            return Vec::new();
        }
        let mut reopened = vec![(index, attempt.checked_sub(1))];
        self.places[index as usize].state = State::Empty;
        self.settled -= 1;
        for other in self.range(self.block_of(index)) {
            let place = &mut self.places[other as usize];
            if place.attempt > attempt {
                self.settled -= u32::from(place.state == State::Settled);
                *place = Place { attempt, state: State::Discarded };
                reopened.push((other, Some(attempt)));
            }
        }
        reopened
    }

    /// The block that a slot is in.
    pub(super) const fn block_of(&self, index: u32) -> u32 {
        index / self.per_block
    }

    /// The attempt that a block is at, and the slots that take part in it, in order.
    pub(super) fn batch(&self, block: u32) -> (u32, Vec<u32>) {
        let Range { start, end } = self.range(block);
        let attempt_of = |index: u32| self.places[index as usize].attempt;
        let attempt = (start..end).map(attempt_of).max().unwrap_or(0);
        (attempt, (start..end).filter(|&index| attempt_of(index) == attempt).collect())
    }

    /// The blocks with an empty slot, in order.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = u32> {
        let empty = |place: &Place| place.state == State::Empty;
        let blocks = self.places.chunks(self.per_block as usize).zip(0..);
        blocks.filter(move |(places, _)| places.iter().any(empty)).map(|(_, block)| block)
    }

    fn range(&self, block: u32) -> Range<u32> {
        let start = block.saturating_mul(self.per_block).min(self.len());
        start..start.saturating_add(self.per_block).min(self.len())
    }

    fn block_mut(&mut self, block: u32) -> &mut [Place] {
        let Range { start, end } = self.range(block);
        &mut self.places[start as usize..end as usize]
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
            After::BlockDone,
            "without refills a group of equal rewards is kept"
        );
        assert_eq!(blocks.fill(4, 0, false), After::Nothing);
        assert_eq!(blocks.fill(7, 0, false), After::Nothing);
        assert_eq!(blocks.settled(), 1);
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(blocks.stand(5, 0), Stand::Closed);
        (0..4).for_each(|index| _ = blocks.fill(index, 0, false));
        assert!(blocks.is_full());
    }

    #[test]
    fn a_blocks_equal_rewards_make_up_its_next_attempt() {
        let mut blocks = Blocks::new(4, 3, 2);
        assert_eq!(blocks.fill(0, 0, true), After::Nothing);
        assert_eq!(blocks.fill(1, 0, false), After::Nothing);
        assert_eq!(
            blocks.batch(0),
            (0, vec![0, 1, 2]),
            "an attempt's batch stays as it is until it is complete"
        );
        assert_eq!((blocks.stand(0, 0), blocks.stand(0, 1)), (Stand::Filled, Stand::Closed));
        assert_eq!(blocks.fill(2, 0, true), After::NextAttempt);
        assert_eq!((blocks.batch(0), blocks.settled()), ((1, vec![0, 2]), 1));
        assert_eq!((blocks.stand(0, 0), blocks.stand(0, 1)), (Stand::Filled, Stand::Wanted));
        assert_eq!((blocks.stand(1, 0), blocks.stand(1, 1)), (Stand::Filled, Stand::Closed));
        assert_eq!(blocks.fill(0, 0, false), After::Nothing, "a late result of an earlier attempt");
        assert_eq!(blocks.fill(2, 1, false), After::Nothing);
        assert_eq!(blocks.fill(0, 1, true), After::NextAttempt);
        assert_eq!(blocks.batch(0), (2, vec![0]));
        assert_eq!(blocks.fill(0, 2, true), After::BlockDone, "the last attempt is kept");
        assert_eq!((blocks.settled(), blocks.stand(0, 3)), (3, Stand::Closed));
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
        assert_eq!((blocks.stand(2, 1), blocks.stand(0, 1)), (Stand::Wanted, Stand::Filled));
        assert_eq!((blocks.settled(), blocks.stand(0, 2)), (1, Stand::Closed));
        assert_eq!(blocks.fill(2, 1, true), After::NextAttempt, "the new result may decide otherwise");
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
