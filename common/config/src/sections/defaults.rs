//! Default values of run file keys.

use std::collections::BTreeMap;

use podium_recsys::dataset::HeldOut;

use super::{
    Attention, CollectiveChoice, Colocate, DataType, Evaluation, Launch, Learner, LikelihoodLength,
    LikelihoodReasoning, Lora, LrScheduler, MergeAdapter, Model, Network, Rollout, Run, Sft, Stage,
};

impl Default for Run {
    fn default() -> Self {
        Self {
            name: "podium".into(),
            seed: 0,
            stages: vec![Stage::Grpo],
            steps: 100,
            record_groups: false,
            portable: false,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            path: None,
            dtype: DataType::Auto,
            emulate_bfloat16: false,
            attention: Attention::Auto,
            enable_thinking: None,
            template_variables: BTreeMap::new(),
        }
    }
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            rank: 0,
            alpha: 32.0,
            dropout: 0.0,
            rslora: false,
            targets: vec!["all-linear".into()],
            adapter: None,
        }
    }
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            group_size: 8,
            prompts_per_step: 32,
            prompts_per_lease: 8,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            max_new_tokens: 128,
            constrain_answers: false,
            refill_attempts: 0,
            max_policy_lag: 0,
            prefill_tokens: 16_384,
            merge_adapter: MergeAdapter::Auto,
            threads: 1,
        }
    }
}

impl Default for Learner {
    fn default() -> Self {
        Self {
            learning_rate: 1e-5,
            lr_scheduler_type: LrScheduler::Constant,
            warmup_steps: 0,
            max_grad_norm: 1.0,
            max_logprob_gap_nats: 5.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            weight_decay: 0.0,
            groups_per_micro_batch: 8,
            recompute_layers: false,
            zero_stage: 0,
            checkpoint_every_steps: 20,
            threads: 2,
        }
    }
}

impl Default for Evaluation {
    fn default() -> Self {
        Self {
            every_steps: 20,
            part: HeldOut::Validation,
            users: 0,
            prompts_per_lease: 64,
            draw: 0,
            reversed: false,
            record_answers: false,
            temperature: 0.0,
            likelihood: false,
            likelihood_reasoning: LikelihoodReasoning::Sampled,
            likelihood_length: LikelihoodLength::Sum,
        }
    }
}

impl Default for Sft {
    fn default() -> Self {
        Self {
            rows: None,
            longest_tokens: 4096,
            init_seed: None,
            steps: 1000,
            batch_size: 64,
            micro_batch_size: 64,
            full_ranking_steps: 0,
            learning_rate: 1e-3,
            warmup_steps: 100,
            weight_decay: 0.01,
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:0".into(),
            coordinator: None,
            secret_file: None,
            metrics_listen: "127.0.0.1:0".into(),
            heartbeat_interval_ms: 2_000,
            lease_deadline_ms: 15_000,
            request_timeout_ms: 30_000,
            reconnect_for_ms: 120_000,
            policy_deltas: true,
            collective_timeout_ms: 60_000,
            collective: CollectiveChoice::Auto,
            max_message_bytes: 64 << 20,
        }
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            workers: None,
            learner_ranks: 1,
            rollout_device: "auto".into(),
            learner_device: "auto".into(),
            colocate: Colocate::Auto,
        }
    }
}
