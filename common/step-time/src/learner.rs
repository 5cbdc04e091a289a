//! An update by one learner rank.

use podium_checkpoint::flops::Positions;
use podium_memory::HEAD_ROWS;

use crate::parts::{Limit, Parts, Phase};
use crate::plan::Plan;
use crate::policy::Pass;

/// Bytes per logit that scoring reads and writes, counted in the code: conversion, temperature, log-probabilities, entropy.
const SCORING: f64 = 40.0;
/// The same in a backward pass, without recomputation.
const GRADIENT: f64 = 30.0;
/// Bytes per trained parameter that clipping and `AdamW` read and write, counted in the code.
const OPTIMIZER: f64 = 120.0;
/// Operations of `AdamW` for each trained tensor.
const OPTIMIZER_OPERATIONS: f64 = 15.0;

impl Plan {
    /// Returns the phases of an update.
    pub(crate) fn update(&self) -> Vec<Phase> {
        let passes = self.passes as f64;
        let mut phases = Vec::new();
        if self.reference {
            let pass = Pass { adapted: false, ..self.pass() };
            phases.push(Phase::computed("reference", self.policy.forward(&self.device, &pass)));
        }
        phases
            .push(Phase::computed("forward", self.policy.forward(&self.device, &self.pass())).times(passes));
        phases.push(Phase::computed("backward", self.backward()).times(passes));
        if self.ranks > 1 {
            let seconds = passes * self.bytes_between_ranks() / self.links.ranks;
            phases.push(Phase { name: "sum over ranks", seconds, limit: Limit::Ranks });
        }
        phases.push(Phase::computed("optimizer", self.optimizer()).times(passes));
        phases
    }

    /// A forward pass over a rank's share of a step.
    fn pass(&self) -> Pass {
        let groups = self.prompts_per_step.div_ceil(self.ranks);
        let micro_batch = groups.min(self.groups_per_micro_batch);
        let lengths = (0..self.group_size).map(|_| self.completion_tokens);
        let group = Positions::of_group(self.prompt_tokens, lengths);
        Pass {
            positions: Positions {
                tokens: groups * group.tokens,
                attended: groups * group.attended,
                logits: groups * group.logits,
            },
            rows: (micro_batch * group.tokens) as f64,
            head_rows: (micro_batch * group.logits).min(HEAD_ROWS) as f64,
            calls: groups.div_ceil(micro_batch) as f64,
            adapted: self.policy.model.adapter.is_some(),
            logit_bytes: SCORING,
        }
    }

    /// A backward pass, with the recomputation of layers and of chunks of the head, and the sums of gradients.
    fn backward(&self) -> Parts {
        let (device, pass) = (&self.device, self.pass());
        let Positions { tokens, attended, logits } = pass.positions;
        let chunked = logits as f64 / pass.calls > pass.head_rows;
        let mut parts = self.policy.backward(device, &Pass { logit_bytes: GRADIENT, ..pass });
        if self.recompute_layers {
            let layers = Positions { tokens, attended, logits: 0 };
            parts = parts + self.policy.forward(device, &Pass { positions: layers, ..pass });
        }
        if chunked {
            let head = Positions { tokens: 0, attended: 0, logits };
            let head = self.policy.forward(device, &Pass { positions: head, calls: 0.0, ..pass });
            parts = parts + head;
        }
        if self.policy.model.adapter.is_none() {
            // Gradients are read, and their float32 sums are read and written.
            let bytes = (self.policy.model.number.bytes() + 8) * self.policy.trained();
            parts.elementwise += pass.calls * bytes as f64 / device.bandwidth;
        }
        parts
    }

    fn optimizer(&self) -> Parts {
        let shards = if self.sharded { self.ranks } else { 1 };
        let bytes = OPTIMIZER * self.policy.trained() as f64 / shards as f64;
        Parts {
            elementwise: bytes / self.device.bandwidth,
            launches: OPTIMIZER_OPERATIONS * self.policy.tensors as f64 * self.device.launch,
            ..Parts::default()
        }
    }

    /// Bytes that each rank sends to sum the gradients of a step in rings.
    pub fn bytes_between_ranks(&self) -> f64 {
        let ranks = self.ranks as f64;
        2.0 * (ranks - 1.0) / ranks * 4.0 * self.policy.trained() as f64
    }
}
