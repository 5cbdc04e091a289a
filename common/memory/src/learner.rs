//! Memory of a learner rank.

use crate::layers::Rows;
use crate::model::Model;
use crate::usage::{Phase, peak};
use crate::{BUCKET, HEAD_ROWS, SLICE};

/// The largest micro-batch of a learner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicroBatch {
    /// Groups.
    pub groups: u64,
    /// Completions of each group.
    pub group_size: u64,
    /// Longest prompt, in tokens.
    pub prompt_tokens: u64,
    /// Longest completion, in tokens, at least 1.
    pub completion_tokens: u64,
}

/// A learner rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learner {
    /// The policy in training.
    pub model: Model,
    /// Its largest micro-batch.
    pub micro_batch: MicroBatch,
    /// Whether a step has several micro-batches.
    pub several: bool,
    /// Whether layers are recomputed in the backward pass.
    pub recompute_layers: bool,
    /// Whether the objective compares with a reference.
    pub reference: bool,
    /// Whether the reference follows the policy.
    pub moving_reference: bool,
    /// Whether the objective has the gradient of the entropy.
    pub entropy_gradient: bool,
    /// Ranks of the run.
    pub ranks: u64,
    /// Whether the optimizer's state is sharded over the ranks.
    pub sharded: bool,
    /// Rows of logits that are computed at once.
    pub head_rows: u64,
}

impl Learner {
    /// Returns the memory by phase.
    pub fn phases(&self) -> [Phase; 3] {
        [self.head(), self.layers(), self.step()]
    }

    /// Returns a phase with weights and optimizer only.
    fn resident(&self, name: &'static str) -> Phase {
        Phase { name, weights: self.weights(), optimizer: self.optimizer(), ..Phase::default() }
    }

    /// Forward pass, and forward and backward pass of a chunk of the head.
    fn head(&self) -> Phase {
        let model = &self.model;
        let width = model.width();
        let rows = self.rows();
        let outputs = self.outputs().min(self.head_rows);
        let stored = if self.recompute_layers {
            width * model.hidden * (model.layers + 1) * rows.count
        } else {
            let last = model.stored_of_last(rows, self.output_rows());
            (model.layers - 1) * model.stored(rows) + last + width * model.hidden * rows.count
        };
        // Logits, log-probabilities, and the two factors of the entropy; later the gradients of logits in two types.
        let forward = if self.entropy_gradient { 20 } else { 16 } * outputs * model.vocabulary;
        let backward = 6 * outputs * model.vocabulary + self.head_gradient();
        Phase {
            gradients: self.sums_before() + backward.saturating_sub(forward).min(self.head_gradient()),
            activations: stored + self.predicting() + model.common(rows),
            logits: forward.max(backward - self.head_gradient()),
            ..self.resident("head")
        }
    }

    /// Backward pass of the layers.
    fn layers(&self) -> Phase {
        let model = &self.model;
        let (width, rows) = (model.width(), self.rows());
        let stream = width * model.hidden * rows.count;
        let others = if self.recompute_layers {
            // A layer's input in float32 is among the tensors that it stores.
            stream * (model.layers + u64::from(width == 2)) + model.backward(rows)
        } else {
            // The backward pass of the last layer, or of the layer before it.
            let of_layer_before = if model.layers > 1 { model.stored(rows) } else { 0 };
            let last = of_layer_before + model.backward_of_last(rows, self.output_rows());
            let before = if model.layers > 1 { model.backward(rows) } else { 0 };
            stream + model.layers.saturating_sub(2) * model.stored(rows) + last.max(before)
        };
        let others_at_end = if self.recompute_layers { stream + model.backward(rows) } else { 0 };
        let own = self.predicting() + model.common(rows);
        let phase = self.resident("layers");
        let [start, end] = self.gradients_of_layers();
        let first = Phase { gradients: start, activations: others + own, ..phase };
        let last = Phase { gradients: end, activations: others_at_end + own, ..phase };
        if self.recompute_layers {
            return peak(&[first, last]);
        }
        // The activations of the other layers are released meanwhile.
        peak(&[first, Phase { gradients: end, activations: self.predicting(), ..phase }])
    }

    /// Gradients of the policy at the start of the backward pass of the layers, and at its end.
    fn gradients_of_layers(&self) -> [u64; 2] {
        let model = &self.model;
        if let Some(adapter) = model.adapter {
            return [4 * adapter.parameters; 2];
        }
        let sums = 4 * model.parameters;
        let of_layer = self.unsummed(model.layer);
        let start = self.sums_before() + self.head_sum() + of_layer;
        let end = if self.recompute_layers {
            sums + of_layer.max(self.unsummed(model.vocabulary * model.hidden))
        } else {
            sums.max(self.sums_before() + self.gradients_at_end())
        };
        [start, end]
    }

    /// Gradients beside the sums at the end of a backward pass through all layers at once.
    fn gradients_at_end(&self) -> u64 {
        let (model, embedding) = (&self.model, self.head_gradient());
        // Bfloat16 gradients are summed afterwards, float32 gradients one by one.
        let bfloat16 = model.width() == 2;
        let gradients = if bfloat16 { model.width() * model.parameters } else { 0 };
        let one_by_one = if !bfloat16 && self.several { embedding } else { 0 };
        // The tied gradients of a head in one chunk and of the embedding meet at the end.
        let joined = model.tied && self.outputs() <= self.head_rows;
        gradients + one_by_one + if joined { 2 * embedding } else { 0 }
    }

    /// Gradients of this number of parameters before they are summed; float32 gradients of the first micro-batch are the sums.
    fn unsummed(&self, parameters: u64) -> u64 {
        if self.model.width() == 2 || self.several { self.model.width() * parameters } else { 0 }
    }

    /// Sums over ranks, and a step of the optimizer.
    fn step(&self) -> Phase {
        let (trained, largest) = (self.model.trained(), self.model.largest_trained());
        let (sums, phase) = (4 * trained, self.resident("step"));
        let step = |gradients: u64, temporary: u64| Phase {
            gradients,
            optimizer: phase.optimizer + temporary,
            ..phase
        };
        if self.sharded {
            let bucket = largest.max(BUCKET).min(trained);
            let shard = bucket / self.ranks;
            return peak(&[step(sums, 4 * bucket), step(sums / self.ranks, 8 * shard.min(SLICE))]);
        }
        // A bucket of several parameters is joined beside them.
        let bucket = if self.ranks > 1 { BUCKET.min(trained) } else { 0 };
        peak(&[step(sums, 4 * bucket), step(sums, 8 * largest.min(SLICE))])
    }

    fn weights(&self) -> u64 {
        let Model { parameters, adapter, .. } = self.model;
        let width = self.model.width();
        let policy = width * parameters + adapter.map_or(0, |adapter| 4 * adapter.parameters);
        let copy = adapter.map_or(width * parameters, |adapter| 4 * adapter.parameters);
        let float32 = if adapter.is_none() && width == 2 { 4 * parameters } else { 0 };
        let reference = match (self.reference, self.moving_reference, adapter) {
            (false, ..) | (true, false, Some(_)) => 0,
            (true, false, None) => copy,
            (true, true, _) => copy + float32,
        };
        policy + reference
    }

    /// Float32 weights and moments. Without shards, float32 weights are those of the policy.
    fn optimizer(&self) -> u64 {
        let trained = self.model.trained();
        let own_weights = self.model.adapter.is_none() && self.model.width() == 2;
        match self.sharded {
            true => 12 * trained.div_ceil(self.ranks.max(1)),
            false if own_weights => 12 * trained,
            false => 8 * trained,
        }
    }

    /// Sums of gradients at the start of the last micro-batch.
    fn sums_before(&self) -> u64 {
        if self.several { 4 * self.model.trained() } else { 0 }
    }

    /// Gradient of the head, before it is added to the sums.
    fn head_gradient(&self) -> u64 {
        if self.model.adapter.is_some() {
            0
        } else {
            self.model.width() * self.model.vocabulary * self.model.hidden
        }
    }

    /// Float32 sum of the gradients of the head, unless it is part of the sums before.
    fn head_sum(&self) -> u64 {
        if self.several || self.model.adapter.is_some() {
            0
        } else {
            4 * self.model.vocabulary * self.model.hidden
        }
    }

    /// Rows of the layers: prompts, and completions without their last tokens.
    fn rows(&self) -> Rows {
        let MicroBatch { groups, group_size, prompt_tokens, completion_tokens } = self.micro_batch;
        let inputs = completion_tokens.saturating_sub(1);
        let (prompts, completions) = (groups * prompt_tokens, groups * group_size * inputs);
        let (of_prompts, of_completions) = (prompts * prompt_tokens, completions * (prompt_tokens + inputs));
        Rows {
            count: prompts + completions,
            pairs: of_prompts + of_completions,
            largest: of_prompts.max(of_completions),
            shared: true,
            cached: false,
            masked: prompt_tokens * prompt_tokens + inputs * inputs,
        }
    }

    /// Rows of the last layer whose outputs are used.
    const fn output_rows(&self) -> u64 {
        let MicroBatch { groups, group_size, completion_tokens, .. } = self.micro_batch;
        groups * (1 + group_size * completion_tokens.saturating_sub(1))
    }

    /// Rows of the head.
    const fn outputs(&self) -> u64 {
        let MicroBatch { groups, group_size, completion_tokens, .. } = self.micro_batch;
        groups * group_size * completion_tokens
    }

    /// The last norm's tensors of the rows of the head, and their gradient.
    fn predicting(&self) -> u64 {
        let width = self.model.width();
        let normed = if self.model.adapter.is_some() { width } else { 2 * width };
        (4 + normed + width) * self.model.hidden * self.outputs()
    }
}

impl Learner {
    /// The settings of a rank alone on a GPU, without a reference.
    pub const fn new(model: Model, micro_batch: MicroBatch) -> Self {
        Self {
            model,
            micro_batch,
            several: true,
            recompute_layers: false,
            reference: false,
            moving_reference: false,
            entropy_gradient: false,
            ranks: 1,
            sharded: false,
            head_rows: HEAD_ROWS,
        }
    }
}
