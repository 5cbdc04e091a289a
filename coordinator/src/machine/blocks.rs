//! The slots of one piece of work, cut into the fixed blocks that leases are made of.
//!
//! Which slots share a block follows from their indices alone, so that whoever computes a block computes the same batch.

use std::ops::Range;

/// Slots, and which of them are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blocks {
    filled: Vec<bool>,
    per_block: u32,
    ready: u32,
}

impl Blocks {
    /// `slots` empty slots in blocks of `per_block`; the last block may be smaller.
    pub(super) fn new(slots: u32, per_block: u32) -> Self {
        Self { filled: vec![false; slots as usize], per_block: per_block.max(1), ready: 0 }
    }

    /// Number of slots.
    pub(super) fn len(&self) -> u32 {
        self.filled.len() as u32
    }

    /// Number of filled slots.
    pub(super) const fn ready(&self) -> u32 {
        self.ready
    }

    /// Whether every slot is filled.
    pub(super) fn is_full(&self) -> bool {
        self.ready == self.len()
    }

    /// Whether a slot is filled; `None` if there is no such slot.
    pub(super) fn is_filled(&self, index: u32) -> Option<bool> {
        self.filled.get(index as usize).copied()
    }

    /// Fills a slot. A slot that is filled already, or does not exist, changes nothing.
    pub(super) fn fill(&mut self, index: u32) {
        if let Some(slot @ false) = self.filled.get_mut(index as usize) {
            *slot = true;
            self.ready += 1;
        }
    }

    /// The block that a slot is in.
    pub(super) const fn block_of(&self, index: u32) -> u32 {
        index / self.per_block
    }

    /// The slots of a block.
    pub(super) fn indices(&self, block: u32) -> Range<u32> {
        let start = block * self.per_block;
        start..start.saturating_add(self.per_block).min(self.len())
    }

    /// The blocks with an empty slot, in order.
    pub(super) fn unfinished(&self) -> impl Iterator<Item = u32> {
        let blocks = self.len().div_ceil(self.per_block);
        (0..blocks).filter(|&block| !self.is_block_full(block))
    }

    /// Whether every slot of a block is filled.
    pub(super) fn is_block_full(&self, block: u32) -> bool {
        let Range { start, end } = self.indices(block);
        self.filled[start as usize..end as usize].iter().all(|&filled| filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_block_may_be_smaller() {
        let mut blocks = Blocks::new(5, 2);
        assert_eq!(blocks.indices(2), 4..5);
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [0, 1, 2]);
        blocks.fill(4);
        blocks.fill(4);
        blocks.fill(7);
        assert_eq!(blocks.ready(), 1);
        assert_eq!(blocks.unfinished().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(blocks.is_filled(5), None);
        (0..4).for_each(|index| blocks.fill(index));
        assert!(blocks.is_full());
    }
}
