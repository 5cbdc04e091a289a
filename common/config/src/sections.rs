//! The sections of a run file. The comments of fields become docs/reference/configuration.md.

mod defaults;
mod variables;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[run]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// A name for people; letters, digits, `-` and `_`.
    pub name: String,
    /// Seed of everything that is random.
    pub seed: u64,
    /// What `podium train` does, in this order; what is done already is skipped. `sft` fine-tunes the policy on
    /// demonstrations, `merge` works the adapter that it trained into the model, `grpo` trains from what came of that.
    pub stages: Vec<Stage>,
    /// Optimizer steps of GRPO.
    pub steps: u64,
    /// Keep the groups of every step in `groups.jsonl` of the run folder, as `podium-learner replay` reads them. Never
    /// changes results.
    pub record_groups: bool,
    /// Compute the same bits on every x86-64 processor with AVX2 and FMA: workers, ranks and fine-tuning pin the code paths
    /// of MKL, oneDNN and libtorch, which otherwise follow the processor. Matrix products are slower. A GPU computes as
    /// without it.
    pub portable: bool,
}

/// A part of the way from a model to a policy that ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// The adapter becomes part of the model, and the next stage trains a new one.
    Merge,
    /// Group relative policy optimization.
    Grpo,
}

/// `[model]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Folder of the policy to start from, in Hugging Face layout. Without it the embedded start is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Number type of weights and activations on a GPU; a CPU always computes in float32.
    pub dtype: DataType,
    /// Whether the chat template is to let the assistant reason first, for templates that know `enable_thinking` (Qwen3);
    /// without it the template decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    /// Further variables of the chat template, by name. A date without quotes is its text.
    #[serde(deserialize_with = "variables::read")]
    pub template_variables: BTreeMap<String, serde_json::Value>,
}

/// `[lora]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// Rank of the adapter that is trained (PEFT: `r`); 0 trains all weights of the model instead.
    pub rank: u32,
    /// The adapter's change is multiplied by `alpha / rank`.
    pub alpha: f64,
    /// Share of an adapter's inputs that training drops.
    pub dropout: f64,
    /// Multiply by `alpha / √rank` instead (rank-stabilised `LoRA`).
    pub rslora: bool,
    /// The linear layers that get an adapter: `all-linear`, or names such as `q_proj` (PEFT: `target_modules`).
    pub targets: Vec<String>,
    /// Folder of a PEFT adapter to go on with. Its rank, alpha, scaling and layers are its own, `dropout` is from here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
}

impl Lora {
    /// Whether an adapter is trained rather than the whole model.
    pub const fn is_used(&self) -> bool {
        self.rank > 0 || self.adapter.is_some()
    }
}

/// The number type a policy computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DataType {
    /// 32 bits.
    Float32,
    /// 16 bits with the exponent of 32.
    Bfloat16,
}

/// `[rollout]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Completions a prompt (TRL: `num_generations`).
    pub group_size: u32,
    /// Prompts a step.
    pub prompts_per_step: u32,
    /// Prompts a lease: what a worker samples as one batch. Part of the result, since a batch's shape decides its
    /// rounding.
    pub prompts_per_lease: u32,
    /// Sampling temperature of training completions.
    pub temperature: f64,
    /// Smallest set of tokens with at least this probability is sampled from; 1 for all.
    pub top_p: f64,
    /// The most probable tokens that are sampled from; 0 for all.
    pub top_k: u32,
    /// A completion is cut after this many tokens.
    pub max_new_tokens: u32,
    /// After the reasoning, sample only what lists `answer.list_length` different candidates in the layout of answers, in
    /// training and in evaluation: see docs/guides/constrained-answers.md.
    pub constrain_answers: bool,
    /// Dynamic sampling: a group whose rewards are all equal is replaced by one of another prompt, at most so many times
    /// a slot; the last one is kept whatever its rewards. 0: groups are kept as they come.
    pub refill_attempts: u32,
    /// Asynchronous mode: groups may be sampled by a policy up to so many versions older than the one that their step
    /// trains, so that workers go on while the learner works. 0: synchronous, and the same bits in every run.
    pub max_policy_lag: u64,
    /// libtorch threads of a worker. Part of the result: sums are rounded differently with another number.
    pub threads: u32,
}

/// `[learner]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Learner {
    /// `AdamW` step size after warm-up.
    pub learning_rate: f64,
    /// What becomes of the step size after warm-up: it stays, or falls to 0 at the end of the run.
    pub lr_scheduler_type: LrScheduler,
    /// Optimizer passes over which the step size rises from 0.
    pub warmup_steps: u64,
    /// Gradients are scaled down to this norm (over all parameters).
    pub max_grad_norm: f64,
    /// A group is set aside and sampled again where a log-probability that its worker recorded is more than so many nats away
    /// from the learner's: see docs/guides/sampling.md. Applies to groups sampled by the policy version that their step trains, which
    /// are all groups in synchronous mode. 0: no bound. No part of the run hash.
    pub max_logprob_gap_nats: f64,
    /// Decay of the first moment.
    pub adam_beta1: f64,
    /// Decay of the second moment.
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Decoupled weight decay; not applied to norms.
    pub weight_decay: f64,
    /// Groups that go through the policy at once; memory against speed, never the result beyond rounding.
    pub groups_per_micro_batch: u32,
    /// Keep only the inputs of the layers and compute each layer again in backward (activation checkpointing): a third
    /// more work, and a fraction of the memory.
    pub recompute_layers: bool,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// libtorch threads of a learner rank. Part of the result, as for workers.
    pub threads: u32,
}

/// The course of the step size after warm-up, by Transformers' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// It stays.
    #[serde(alias = "constant_with_warmup")]
    Constant,
    /// It falls evenly.
    Linear,
    /// It falls along half a cosine.
    Cosine,
}

/// `[evaluation]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between evaluations; the first and the last version are always evaluated. 0: only those two.
    pub every_steps: u64,
    /// Held-out users, from the first of test.tsv on; 0 for all.
    pub users: u32,
    /// Prompts a lease of an evaluation holds.
    pub prompts_per_lease: u32,
    /// Which of a held-out user's candidate lists is asked about, counted from 0: how much the negatives matter is seen by
    /// several of them. See docs/guides/evaluation.md.
    pub draw: u64,
    /// Show the candidates in the reverse of the order they were drawn in: whoever ranks by items ranks as before.
    pub reversed: bool,
    /// Keep what every held-out answer ranks in `answers/<version>.jsonl` of the run folder. Never changes results.
    pub record_answers: bool,
    /// Sampling temperature; 0 for greedy decoding.
    pub temperature: f64,
    /// Rank all candidates by the log-probability of being listed next, too, beside the generated ranking: see
    /// docs/guides/likelihood.md.
    pub likelihood: bool,
    /// What that log-probability is conditioned on.
    pub likelihood_reasoning: LikelihoodReasoning,
    /// How the log-probabilities of an item's tokens make up the item's.
    pub likelihood_length: LikelihoodLength,
}

/// What candidates are scored after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodReasoning {
    /// The reasoning that was sampled; an empty one where it does not end.
    Sampled,
    /// An empty think block, or none where none is required.
    None,
}

/// How the log-probabilities of tokens make up that of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodLength {
    /// Their sum: that of the text.
    Sum,
    /// Their mean: long texts are not at a disadvantage.
    Mean,
}

/// `[sft]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// The training file of mixed grain to imitate, as `podium-curator mix` writes it. Absent: the demonstrations of the
    /// data set, as `[demonstration]` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<PathBuf>,
    /// Rows of that file with more tokens, prompt and completion together, are left out and reported; never cut.
    pub longest_tokens: usize,
    /// Start from random weights of this seed, in the shape of the model's config.json. Absent: from the model's weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_seed: Option<u64>,
    /// Optimizer steps.
    pub steps: u64,
    /// Demonstrations a step.
    pub batch_size: u32,
    /// Demonstrations that go through the policy at once; memory against speed, never the result beyond rounding.
    pub micro_batch_size: u32,
    /// The first so many steps imitate rankings of all candidates, which teaches copying from the prompt sooner; the
    /// others rankings of `answer.list_length`.
    pub full_ranking_steps: u64,
    /// `AdamW` step size after warm-up; it then falls to a tenth along a cosine.
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
    /// Where the coordinator listens, host:port. Port 0 lets the system choose.
    pub listen: String,
    /// Where workers and ranks find the coordinator, host:port. Without it: `listen`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// Where the coordinator serves its metrics and the list of all processes to scrape, host:port. Port 0 lets the system
    /// choose.
    pub metrics_listen: String,
    /// A worker says at least this often that it lives.
    pub heartbeat_interval_ms: u64,
    /// A lease that is neither handed in nor kept alive for this long goes to somebody else.
    pub lease_deadline_ms: u64,
    /// How long one call may take before it is tried again.
    pub request_timeout_ms: u64,
    /// How long a worker or rank goes on trying to reach the coordinator before it gives up.
    pub reconnect_for_ms: u64,
    /// A collective operation between learner ranks fails after this long, naming the rank that is missing.
    pub collective_timeout_ms: u64,
    /// What learner ranks sum gradients with: `nccl`, `tcp`, or `auto` (NCCL where every rank has a GPU and the library, else
    /// TCP). The two add in different orders, so that results differ by rounding.
    pub collective: CollectiveChoice,
    /// Largest message that is accepted or sent.
    pub max_message_bytes: u64,
}

/// What learner ranks sum gradients with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectiveChoice {
    /// NCCL where every rank has a GPU and the library, else TCP.
    Auto,
    /// NCCL, or no run.
    Nccl,
    /// TCP, by way of the hosts' memory.
    Tcp,
}

/// `[launch]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Launch {
    /// Rollout workers that the launcher starts.
    pub workers: u32,
    /// Learner ranks that the launcher starts.
    pub learner_ranks: u32,
    /// Device of each worker: `cpu`, `cuda`, `cuda:1`, or `auto` (a GPU where there is one).
    pub rollout_device: String,
    /// Device of each learner rank, likewise.
    pub learner_device: String,
}
