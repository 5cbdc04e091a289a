//! The sections of a run file. The doc comments of fields become docs/reference/configuration.md.

mod defaults;
mod variables;

use std::collections::BTreeMap;
use std::path::PathBuf;

use podium_recsys::dataset::HeldOut;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[run]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Name of the run: letters, digits, `-` and `_`.
    pub name: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Stages that `podium train` runs, in this order; completed stages are skipped. `sft` fine-tunes the policy on
    /// demonstrations, `merge` merges the trained adapter into the model, `grpo` trains the result with GRPO.
    pub stages: Vec<Stage>,
    /// Optimizer steps of GRPO.
    pub steps: u64,
    /// Record the groups of every step in `groups.jsonl` of the run folder, the input of `podium-learner replay`. Never
    /// changes results.
    pub record_groups: bool,
    /// Compute the same bits on every x86-64 processor with AVX2 and FMA: workers, ranks and fine-tuning fix the code paths
    /// of MKL, oneDNN and libtorch, which otherwise depend on the processor. Matrix products are slower. Has no effect on
    /// GPUs.
    pub portable: bool,
}

/// A training stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// Merges the adapter into the model; the next stage trains a new adapter.
    Merge,
    /// Group relative policy optimization.
    Grpo,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Folder of the initial policy, in Hugging Face layout. Without it the embedded model is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Data type of weights and activations. Adapters train in float32, and gradients and the optimizer's state are always
    /// float32. `bfloat16` on a CPU requires AVX512-BF16 (x86) or BF16 (ARM), unless `emulate_bfloat16` is set.
    pub dtype: DataType,
    /// Compute in bfloat16 also on a CPU without bfloat16 units, which takes several times as long as float32.
    pub emulate_bfloat16: bool,
    /// Attention over prompts and completions. `materialized` is slower, takes memory for every pair of tokens, and differs in
    /// rounding.
    pub attention: Attention,
    /// Value of `enable_thinking` for chat templates that support it (Qwen3): whether the assistant reasons first.
    /// Without it the template decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    /// Additional variables of the chat template, by name. An unquoted date is passed as text.
    #[serde(deserialize_with = "variables::read")]
    pub template_variables: BTreeMap<String, serde_json::Value>,
}

/// `[lora]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of the trained adapter (PEFT: `r`); 0 trains all weights of the model instead.
    pub rank: u32,
    /// The adapter's change is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of an adapter's inputs that training drops.
    pub dropout: f64,
    /// Multiply by `alpha / √rank` instead (rank-stabilised `LoRA`).
    pub rslora: bool,
    /// The linear layers that get an adapter: `all-linear`, or names such as `q_proj` (PEFT: `target_modules`).
    pub targets: Vec<String>,
    /// Folder of a PEFT adapter to continue from. Rank, alpha, scaling and layers are those of the adapter;
    /// `dropout` is that of this section.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

impl Lora {
    /// Whether an adapter is trained rather than the whole model.
    pub const fn is_used(&self) -> bool {
        self.rank > 0 || self.adapter.is_some()
    }
}

/// The implementation of attention over whole sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Without scores in memory on a CPU, and on a GPU in bfloat16.
    Auto,
    /// With all scores in memory.
    Materialized,
}

/// When workers merge an adapter into the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeAdapter {
    /// In float32. In bfloat16 small changes of the weights would be rounded away.
    Auto,
    /// Always. In bfloat16, `sampling/sampling_logp_difference` shows the effect.
    Always,
    /// Never.
    Never,
}

/// The number type of a policy's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// `bfloat16` on a GPU, `float32` on a CPU.
    Auto,
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point with an 8-bit exponent.
    Bfloat16,
}

impl DataType {
    /// Returns whether policies compute in bfloat16; `None` if the device decides.
    pub const fn bfloat16(self) -> Option<bool> {
        match self {
            Self::Auto => None,
            Self::Float32 => Some(false),
            Self::Bfloat16 => Some(true),
        }
    }
}

/// `[rollout]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Completions per prompt (TRL: `num_generations`).
    pub group_size: u32,
    /// Prompts per step.
    pub prompts_per_step: u32,
    /// Prompts per lease, which a worker samples as one batch. Changes results, since the shape of a batch affects
    /// rounding.
    pub prompts_per_lease: u32,
    /// Sampling temperature of training completions.
    pub temperature: f64,
    /// Nucleus sampling: sample from the smallest set of tokens with at least this total probability; 1 disables it.
    pub top_p: f64,
    /// Sample from this many most probable tokens; 0 disables the limit.
    pub top_k: u32,
    /// Longest completion in tokens; longer completions are truncated.
    pub max_new_tokens: u32,
    /// Constrain sampling after the reasoning to lists of `answer.list_length` different candidates in the answer
    /// layout, in training and in evaluation: see docs/guides/constrained-answers.md.
    pub constrain_answers: bool,
    /// Dynamic sampling: maximum number of times per slot that a zero-variance group is replaced by a group of another
    /// prompt. The last group is accepted whatever its rewards. 0 accepts every group.
    pub refill_attempts: u32,
    /// Asynchronous mode: largest number of versions by which the policy that sampled a group may lag behind the policy
    /// that its step trains. Workers then sample while the learner trains. 0: synchronous mode, with the same bits in
    /// every run.
    pub max_policy_lag: u64,
    /// Maximum number of prompt tokens that a worker computes at once, which bounds the memory of long prompts. Prompts
    /// are counted with the length of the longest among them, and a longer prompt is computed in parts. The cuts depend
    /// on the lease alone. Changes results only by rounding.
    pub prefill_tokens: u32,
    /// Whether workers add an adapter's changes to a second copy of the weights and sample from the sum, which is faster.
    pub merge_adapter: MergeAdapter,
    /// libtorch threads of a worker. Changes results, since the number of threads affects rounding.
    pub threads: u32,
}

/// `[learner]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Learner {
    /// `AdamW` step size after warm-up.
    pub learning_rate: f64,
    /// Schedule of the step size after warm-up: constant, or decreasing to 0 at the end of the run.
    pub lr_scheduler_type: LrScheduler,
    /// Optimizer passes over which the step size rises from 0.
    pub warmup_steps: u64,
    /// Maximum norm of the gradient over all parameters; larger gradients are scaled down.
    pub max_grad_norm: f64,
    /// Maximum difference in nats between a log-probability recorded by the worker and the learner's; a group above it
    /// is discarded and sampled again: see docs/guides/sampling.md. Applies to groups sampled by the policy version
    /// that their step trains, which are all groups in synchronous mode. 0: no bound. Not part of the run hash.
    pub max_logprob_gap_nats: f64,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the square root of the second moment.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; not applied to norms.
    pub weight_decay: f64,
    /// Groups per forward and backward pass. Trades memory for speed; changes results only by rounding.
    pub groups_per_micro_batch: u32,
    /// Activation checkpointing: store only the inputs of the layers and recompute each layer in the backward pass.
    /// Needs a third more computation and a fraction of the memory.
    pub recompute_layers: bool,
    /// 1: shard the float32 weights and the moments of the optimizer over the learner ranks (`ZeRO`, stage 1), which takes
    /// 12 / ranks instead of 12 bytes per trained parameter on each rank. 0: every rank holds all of them.
    pub zero_stage: u32,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// libtorch threads of a learner rank. Changes results, as for workers.
    pub threads: u32,
}

/// Schedule of the step size after warm-up, with Transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// Constant.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// Linear decrease.
    Linear,
    /// Cosine decrease.
    Cosine,
}

/// `[evaluation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between evaluations; the first and the last version are always evaluated. 0 evaluates only those two.
    pub every_steps: u64,
    /// Part of the data set whose users are evaluated. A run that trains evaluates "validation": its best version, early
    /// stopping and inflation watch depend on these users. `podium evaluate` sets "test", which requires `run.steps = 0`.
    pub part: HeldOut,
    /// Number of evaluated users, from the start of the part; 0 for all.
    pub users: u32,
    /// Prompts per evaluation lease.
    pub prompts_per_lease: u32,
    /// Index of the held-out users' candidate samples, from 0. Evaluating several samples shows how strongly results
    /// depend on the sampled negatives. See docs/guides/evaluation.md.
    pub draw: u64,
    /// Show the candidates in reverse order. A policy that ranks by content returns the same ranking.
    pub reversed: bool,
    /// Record the ranking of every held-out answer in `answers/<version>.jsonl` of the run folder. Never changes
    /// results.
    pub record_answers: bool,
    /// Sampling temperature; 0 for greedy decoding.
    pub temperature: f64,
    /// Additionally rank all candidates by the log-probability of being listed next: see docs/guides/likelihood.md.
    pub likelihood: bool,
    /// Reasoning that this log-probability is conditioned on.
    pub likelihood_reasoning: LikelihoodReasoning,
    /// How the log-probabilities of an item's tokens are combined.
    pub likelihood_length: LikelihoodLength,
}

/// The reasoning that candidate scores are conditioned on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodReasoning {
    /// The sampled reasoning; empty reasoning if the sampled one does not end.
    Sampled,
    /// An empty think block, or no think block if none is required.
    None,
}

/// How the log-probabilities of an item's tokens are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodLength {
    /// Sum: the log-probability of the text.
    Sum,
    /// Mean, which does not penalise long texts.
    Mean,
}

/// `[sft]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// Training file with mixed-grained rows to imitate, as written by `podium-curator mix`. Without it: demonstrations
    /// generated from the data set as configured in `[demonstration]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<PathBuf>,
    /// Longest row of that file in tokens, prompt and completion together. Longer rows are skipped and reported, never
    /// truncated.
    pub longest_tokens: usize,
    /// Seed of random initial weights in the shape of the model's config.json. Without it training starts from the
    /// model's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_seed: Option<u64>,
    /// Optimizer steps.
    pub steps: u64,
    /// Demonstrations per step.
    pub batch_size: u32,
    /// Demonstrations per forward and backward pass. Trades memory for speed; changes results only by rounding.
    pub micro_batch_size: u32,
    /// Number of initial steps that imitate rankings of all candidates, which teaches copying from the prompt sooner.
    /// Later steps imitate rankings of `answer.list_length` items.
    pub full_ranking_steps: u64,
    /// `AdamW` step size after warm-up; it then decreases to a tenth along a cosine.
    pub learning_rate: f64,
    /// Steps over which the step size rises from 0.
    pub warmup_steps: u64,
    /// Decoupled weight decay; not applied to norms.
    pub weight_decay: f64,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Address that the coordinator listens on, host:port. With port 0 the system chooses a port.
    pub listen: String,
    /// Address that workers and ranks connect to, host:port. Without it: `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// File with the run's secret, 64 hexadecimal digits, readable by its owner alone; `PODIUM_SECRET_FILE` wins over it.
    /// Without both: `run.secret` in the run folder, which is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Address of the coordinator's metrics and the scrape targets of all processes, host:port; the system chooses port 0.
    pub metrics_listen: String,
    /// Longest interval between two heartbeats of a worker.
    pub heartbeat_interval_ms: u64,
    /// A lease that is neither submitted nor renewed for this long is assigned to another worker.
    pub lease_deadline_ms: u64,
    /// Timeout of one call, after which it is retried. A transfer of a policy version may take any time, but a pause of
    /// this length without a byte breaks it; it is retried from its position.
    pub request_timeout_ms: u64,
    /// How long a worker or rank retries to reach the coordinator before it exits. During a transfer, time in which bytes
    /// move does not count.
    pub reconnect_for_ms: u64,
    /// Timeout of a collective operation between learner ranks; the error names the missing rank.
    pub collective_timeout_ms: u64,
    /// Backend that sums gradients between learner ranks: `nccl`, `tcp`, or `auto` (NCCL if every rank has a GPU and
    /// the library, otherwise TCP). The backends add in different orders, so results differ by rounding.
    pub collective: CollectiveChoice,
    /// Largest message that is accepted or sent.
    pub max_message_bytes: u64,
    /// Learner and workers transfer policy versions as deltas against the previous version where that is at most half as
    /// long. Making and applying a delta takes processor time: disable it if the link is faster.
    pub policy_deltas: bool,
}

/// Backend that sums gradients between learner ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectiveChoice {
    /// NCCL if every rank has a GPU and the library, otherwise TCP.
    Auto,
    /// NCCL; fails if it is not available.
    Nccl,
    /// TCP, through host memory.
    Tcp,
}

/// `[launch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Launch {
    /// Rollout workers that the launcher starts. Without it: a worker for each GPU that the learner ranks leave, at
    /// least one; 2 on the CPU.
    pub workers: Option<u32>,
    /// Learner ranks that the launcher starts.
    pub learner_ranks: u32,
    /// Devices of the workers: `cpu`, `cuda` (a GPU for each), `auto` (the same if there is a GPU, else the CPU),
    /// `cuda:1`, or a comma-separated list with one GPU for each worker in order, such as `cuda:1,cuda:2`. Indices count
    /// the visible GPUs. See docs/guides/gpus.md.
    pub rollout_device: String,
    /// Devices of the learner ranks, with the same values. Ranks receive the first GPUs.
    pub learner_device: String,
    /// Processes that may use one GPU: `none` gives each process a GPU of its own, `share` lets several processes use
    /// one if there are fewer GPUs than processes, `auto` is `share` for one worker and one learner rank on a machine
    /// with one GPU, else `none`. `process` runs one worker and one learner rank in one process with one copy of the base
    /// weights, on any device; it requires an adapter and equal `learner.threads` and `rollout.threads`. See
    /// docs/guides/gpus.md.
    pub colocate: Colocate,
}

/// Processes that may use one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Colocate {
    /// One worker and one rank share the only GPU of a machine.
    Auto,
    /// One process per GPU.
    None,
    /// Several processes per GPU.
    Share,
    /// One worker and one rank in one process.
    Process,
}
