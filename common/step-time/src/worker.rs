//! Sampling of a lease.

use podium_checkpoint::flops::Positions;

use crate::parts::{Parts, Phase};
use crate::plan::Plan;
use crate::policy::Pass;

/// Bytes per logit that selecting a token reads and writes on a GPU, counted in the code: conversion, temperature,
/// log-probabilities, masses as 64-bit integers and their sums, and the largest for `top_p`.
const SELECTION: f64 = 120.0;
/// The same in the kernel for CPUs.
const FUSED_SELECTION: f64 = 16.0;
/// Operations of selecting a token on a GPU.
const SELECTION_OPERATIONS: f64 = 35.0;

impl Plan {
    /// Completions of a lease.
    pub(crate) fn lanes(&self) -> u64 {
        self.prompts_per_lease.min(self.prompts_per_step) * self.group_size
    }

    fn prompts(&self) -> u64 {
        self.prompts_per_lease.min(self.prompts_per_step)
    }

    /// Whether an adapter is computed beside the model.
    fn unmerged(&self) -> bool {
        self.policy.model.adapter.is_some() && !self.merged
    }

    /// Bytes of weights, and of keys and values, that decoding reads to compute a token of every completion of a lease, of
    /// which each has `tokens` tokens.
    pub fn decode_bytes(&self, tokens: u64) -> f64 {
        let cached = self.prompts() * self.prompt_tokens + self.lanes() * tokens;
        self.policy.weight_bytes(self.unmerged()) + self.policy.cache_bytes_per_token() * cached as f64
    }

    /// Computes the prompts of a lease.
    pub(crate) fn prefill(&self) -> Phase {
        let (prompts, length) = (self.prompts(), self.prompt_tokens);
        let rows = prompts * length;
        let at_once = rows.min(self.prefill_tokens.max(1));
        let attended = prompts * length * (length + 1) / 2;
        let pass = Pass {
            positions: Positions { tokens: rows, attended, logits: prompts },
            rows: at_once as f64,
            head_rows: prompts as f64,
            calls: rows.div_ceil(at_once) as f64,
            adapted: self.unmerged(),
            logit_bytes: 0.0,
        };
        Phase::computed("prefill", self.policy.forward(&self.device, &pass))
    }

    /// Samples all tokens of a lease. The first token of a completion follows from its prompt.
    pub(crate) fn decode(&self) -> Phase {
        let selection = self.selection();
        let tokens = (1..self.completion_tokens).map(|tokens| self.decoded(tokens) + selection);
        let parts: Vec<Parts> = std::iter::once(selection).chain(tokens).collect();
        let sum = parts.iter().fold(Parts::default(), |sum, part| sum + *part);
        let seconds = parts.iter().map(Parts::seconds).sum();
        Phase { seconds, ..Phase::computed("decode", sum) }
    }

    /// Computes one token of every completion, of which each has `tokens` tokens.
    fn decoded(&self, tokens: u64) -> Parts {
        let (device, lanes) = (&self.device, self.lanes());
        let context = self.prompt_tokens + tokens;
        let pass = Pass {
            positions: Positions { tokens: lanes, attended: lanes * context, logits: lanes },
            rows: lanes as f64,
            head_rows: lanes as f64,
            calls: 1.0,
            adapted: self.unmerged(),
            logit_bytes: 0.0,
        };
        // Scores of attention: written, joined, converted to float32 and back, and read.
        let model = &self.policy.model;
        let scores = if device.fused { 0 } else { 6 * model.number.bytes() + 8 };
        let scores = scores * model.layers * model.heads * lanes * context;
        let parts = self.policy.forward(device, &pass);
        Parts {
            weights: self.decode_bytes(tokens) / device.bandwidth,
            elementwise: parts.elementwise + scores as f64 / device.bandwidth,
            ..parts
        }
    }

    /// Selects a token of every completion.
    fn selection(&self) -> Parts {
        let device = &self.device;
        let (bytes, operations) =
            if device.fused { (FUSED_SELECTION, 1.0) } else { (SELECTION, SELECTION_OPERATIONS) };
        let logits = (self.lanes() * self.policy.model.vocabulary) as f64;
        Parts {
            elementwise: bytes * logits / device.bandwidth,
            launches: operations * device.launch,
            ..Parts::default()
        }
    }
}
