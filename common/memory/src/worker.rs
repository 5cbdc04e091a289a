//! Memory of a rollout worker.

use crate::FIRST_CAPACITY;
use crate::layers::Rows;
use crate::model::Model;
use crate::usage::{Phase, peak};

/// The largest lease of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Prompts.
    pub prompts: u64,
    /// Completions of each prompt.
    pub group_size: u64,
    /// Longest prompt, in tokens.
    pub prompt_tokens: u64,
    /// Longest completion, in tokens.
    pub completion_tokens: u64,
}

/// Selection of tokens from logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// The most probable token.
    Greedy,
    /// A sample.
    Sampled,
    /// A sample from `top_p`, for which a GPU sorts the whole vocabulary if its most probable 256 tokens do not reach it.
    Sorted,
}

impl Selection {
    /// Bytes per logit.
    const fn bytes(self) -> u64 {
        match self {
            // Logits and log-probabilities.
            Self::Greedy => 8,
            // Probabilities too, and their sums as 64-bit integers, converted in two steps.
            Self::Sampled => 28,
            // The same for the sorted logits, beside the unsorted.
            Self::Sorted => 44,
        }
    }
}

/// A rollout worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// The policy.
    pub model: Model,
    /// Its largest lease.
    pub lease: Lease,
    /// Maximum number of prompt tokens that are computed at once.
    pub prefill_tokens: u64,
    /// Selection of tokens.
    pub selection: Selection,
    /// Whether completions are constrained.
    pub constrains: bool,
    /// Whether an adapter is merged into a second copy of the weights that it changes.
    pub merges: bool,
}

impl Worker {
    /// Returns the memory by phase.
    pub fn phases(&self) -> [Phase; 2] {
        [self.prefill(), self.decode()]
    }

    /// Computes the prompts in chunks.
    fn prefill(&self) -> Phase {
        let prompts = self.lease.prompts;
        let (w, model) = (self.model.width(), &self.model);
        let activations = model.forward(self.largest_chunk()) + w * model.hidden * prompts;
        let logits = (w + 4) * model.vocabulary * prompts;
        let phase = Phase {
            name: "prefill",
            weights: self.weights(),
            cache: self.prompt_cache(),
            ..Phase::default()
        };
        peak(&[Phase { activations, ..phase }, Phase { logits, ..phase }])
    }

    /// Rows of the largest chunk: whole prompts, or a part of one prompt after the others of that prompt.
    fn largest_chunk(&self) -> Rows {
        let Lease { prompts, prompt_tokens, .. } = self.lease;
        if prompt_tokens > self.prefill_tokens {
            let rows = self.prefill_tokens;
            let pairs = rows * prompt_tokens;
            return Rows {
                count: rows,
                pairs,
                largest: pairs,
                shared: true,
                cached: true,
                masked: rows * rows,
            };
        }
        let rows = prompt_tokens * prompts.min(self.prefill_tokens / prompt_tokens.max(1));
        let pairs = rows * prompt_tokens;
        Rows {
            count: rows,
            pairs,
            largest: pairs,
            shared: false,
            cached: false,
            masked: prompt_tokens * prompt_tokens,
        }
    }

    /// Samples a token of every completion.
    fn decode(&self) -> Phase {
        let Lease { prompts, group_size, prompt_tokens, completion_tokens } = self.lease;
        let completions = prompts * group_size;
        let pairs = completions * (prompt_tokens + completion_tokens);
        let rows = Rows { count: completions, pairs, largest: pairs, shared: true, cached: true, masked: 0 };
        // Rows that are not restricted are copied.
        let sampling = self.selection.bytes() + if self.constrains { 4 } else { 0 };
        let logits = sampling * self.model.vocabulary * completions;
        let activations = self.model.forward(rows);
        let (capacity, of_prompts) = (self.capacity(), self.prompt_cache());
        let own = completions * capacity * self.bytes_per_token();
        let cache = of_prompts + own;
        // While the buffers of the last layer are doubled, its old ones exist, and an empty one.
        let growth = if capacity > FIRST_CAPACITY { own * 3 / 4 / self.model.layers } else { 0 };
        let phase = Phase { name: "decode", weights: self.weights(), cache, ..Phase::default() };
        peak(&[
            Phase { activations, ..phase },
            Phase { logits, ..phase },
            Phase { cache: cache + growth, ..phase },
        ])
    }

    fn weights(&self) -> u64 {
        let of_adapter = self
            .model
            .adapter
            .map_or(0, |adapter| adapter.parameters + if self.merges { adapter.changed } else { 0 });
        self.model.width() * (self.model.parameters + of_adapter)
    }

    /// Keys and values of a token.
    fn bytes_per_token(&self) -> u64 {
        2 * self.model.layers * self.model.keys * self.model.width()
    }

    fn prompt_cache(&self) -> u64 {
        self.lease.prompts * self.lease.prompt_tokens * self.bytes_per_token()
    }

    /// Tokens that the buffers of a completion hold. The last token is never an input.
    fn capacity(&self) -> u64 {
        let mut capacity = FIRST_CAPACITY;
        while capacity + 1 < self.lease.completion_tokens {
            capacity *= 2;
        }
        capacity
    }
}
