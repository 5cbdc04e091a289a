//! Prompts that are sampled together, and the parts of a batch that the device's memory holds.

use std::fmt::{Display, Formatter};
use std::ops::Range;

use podium_constraint::Answer;
use podium_grpo::rng::Stream;
use podium_grpo::{Completion, Sampling};

use crate::lease::Cost;

/// Prompts to sample as one batch.
pub(crate) struct Batch<'a> {
    /// Token ids, at least one each.
    pub(crate) prompts: &'a [Vec<u32>],
    /// For each prompt the random streams of its completions.
    pub(crate) streams: &'a [Vec<Stream>],
    /// The sampled completions of each prompt, by their position in the group.
    pub(crate) samples: Range<usize>,
    /// Sampling parameters, with the tokenizer's stop tokens.
    pub(crate) sampling: &'a Sampling,
    /// For each prompt the constraint of its completions; empty without constraints.
    pub(crate) answers: &'a [Answer],
    /// Whether completions continue after an end-of-turn token.
    pub(crate) ignore_stop: bool,
}

/// A batch's completions, in sample order for each prompt.
#[derive(Debug, Default)]
pub(crate) struct Completed {
    pub(crate) groups: Vec<Vec<Completion>>,
    pub(crate) cost: Cost,
}

impl Batch<'_> {
    /// Returns a part of the batch. `samples`: of this batch's completions, from 0.
    pub(super) fn cut(&self, prompts: Range<usize>, samples: Range<usize>) -> Batch<'_> {
        let first = self.samples.start;
        Batch {
            prompts: &self.prompts[prompts.clone()],
            streams: &self.streams[prompts.clone()],
            samples: first + samples.start..first + samples.end,
            answers: self.answers.get(prompts).unwrap_or_default(),
            ..*self
        }
    }
}

/// Number of prompts and completions that are sampled at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) prompts: usize,
    /// Completions of each prompt.
    pub(super) samples: usize,
}

impl Part {
    /// Whole batches of any size.
    pub(super) const WHOLE: Self = Self { prompts: usize::MAX, samples: usize::MAX };

    /// Returns the part of a batch of `prompts` with `samples` completions each.
    pub(super) fn of(self, prompts: usize, samples: usize) -> Self {
        Self { prompts: self.prompts.min(prompts), samples: self.samples.min(samples) }
    }

    /// Returns the next part to try after this one did not fit: half the prompts, or half the completions of one prompt;
    /// `None` after a single completion.
    pub(super) fn smaller(self) -> Option<Self> {
        match (self.prompts, self.samples) {
            (0 | 1, 0 | 1) => None,
            (0 | 1, samples) => Some(Self { samples: samples / 2, ..self }),
            (prompts, _) => Some(Self { prompts: prompts / 2, ..self }),
        }
    }
}

impl Display for Part {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} prompts with {} completions each", self.prompts, self.samples)
    }
}

#[cfg(test)]
pub(super) mod injected {
    //! Simulates a device that holds a limited number of completions.

    use std::cell::Cell;

    thread_local! {
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(crate) fn room(completions: usize) {
        ROOM.set(completions);
    }

    /// Fails like libtorch's binding if there is no memory left.
    pub(crate) fn take(completions: usize) {
        assert!(completions <= ROOM.get(), "CUDA out of memory. Tried to allocate 2.00 GiB.");
    }
}
