//! Panels about the health of training.

use super::{lines, number};
use crate::dashboard::Dashboard;

pub(crate) const TRAINING: Dashboard = Dashboard {
    name: "training",
    title: "Podium: training health",
    panels: &[
        number(
            "Steps",
            "percentunit",
            "Committed steps, of all steps of the run.",
            &[(r#"podium_coordinator_step{run="$run"} / podium_coordinator_steps{run="$run"}"#, "done")],
        ),
        number(
            "Since the last step",
            "s",
            "An alert fires at ten times the mean step.",
            &[(r#"podium:since_commit_seconds{run="$run"}"#, "since")],
        ),
        number(
            "Workers",
            "short",
            "Registered workers with heartbeats.",
            &[(r#"podium_coordinator_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Learner ranks",
            "short",
            "Joined ranks.",
            &[(r#"podium_coordinator_learner_ranks{run="$run"}"#, "ranks")],
        ),
        lines(
            "Reward",
            "short",
            "Of the step's groups; compare it with the held-out ranking.",
            &[
                (r#"podium_coordinator_step_metric{run="$run", name="reward"}"#, "mean"),
                (r#"podium_coordinator_step_metric{run="$run", name="reward_std"}"#, "spread within groups"),
            ],
        ),
        lines(
            "Zero-variance groups",
            "percentunit",
            "Groups with equal rewards contribute no gradient.",
            &[
                (
                    r#"podium_coordinator_step_metric{run="$run", name="frac_reward_zero_std"}"#,
                    "equal rewards",
                ),
                (r#"podium_coordinator_step_metric{run="$run", name="groups/frac_all_hit"}"#, "all hit"),
                (r#"podium_coordinator_step_metric{run="$run", name="groups/frac_all_miss"}"#, "all miss"),
                (
                    r#"podium_coordinator_step_metric{run="$run", name="groups/frac_all_malformed"}"#,
                    "all malformed",
                ),
            ],
        ),
        lines(
            "KL and entropy",
            "short",
            "In nats. Entropy near 0: the policy samples the same answer repeatedly.",
            &[
                (r#"podium_learner_kl_nats{run="$run", process=~"learner-0.*"}"#, "KL from the reference"),
                (r#"podium_learner_entropy_nats{run="$run", process=~"learner-0.*"}"#, "entropy"),
            ],
        ),
        lines(
            "Loss and gradient",
            "short",
            "GRPO's loss is near 0 by construction; watch for jumps of the norm.",
            &[
                (r#"podium_learner_loss{run="$run", process=~"learner-0.*"}"#, "loss"),
                (r#"podium_learner_grad_norm{run="$run", process=~"learner-0.*"}"#, "norm of the gradient"),
            ],
        ),
        lines(
            "Log-probability gap",
            "short",
            "Recomputed against behaviour, in nats. In synchronous mode any difference beyond rounding is a fault.",
            &[
                (r#"podium_learner_logprob_gap_mean_nats{run="$run", process=~"learner-0.*"}"#, "mean"),
                (r#"podium_learner_logprob_gap_max_nats{run="$run", process=~"learner-0.*"}"#, "largest"),
            ],
        ),
        lines(
            "Completions",
            "percentunit",
            "Cut off: truncated at rollout.max_new_tokens.",
            &[
                (
                    r#"podium_coordinator_step_metric{run="$run", name="completions/well_formed"}"#,
                    "well-formed",
                ),
                (
                    r#"podium_coordinator_step_metric{run="$run", name="completions/clipped_ratio"}"#,
                    "cut off",
                ),
            ],
        ),
        lines(
            "Length of completions",
            "short",
            "Mean number of tokens.",
            &[(r#"podium_coordinator_step_metric{run="$run", name="completions/mean_length"}"#, "tokens")],
        ),
        lines(
            "Age of groups",
            "short",
            "Number of versions between the oldest group of a step and the step.",
            &[
                (
                    r#"podium_coordinator_step_metric{run="$run", name="groups/policy_lag/max"}"#,
                    "oldest group",
                ),
                (r#"podium_coordinator_max_policy_lag{run="$run"}"#, "allowed"),
            ],
        ),
        lines(
            "Learning rate",
            "sci",
            "According to the schedule.",
            &[(r#"podium_learner_learning_rate{run="$run", process=~"learner-0.*"}"#, "step size")],
        ),
        lines(
            "Failures",
            "short",
            "Counts since the process started.",
            &[
                (
                    r#"sum by (failure) (podium_coordinator_rank_failures_total{run="$run"})"#,
                    "rank failed: {{failure}}",
                ),
                (r#"sum(podium_learner_rejoins_total{run="$run"})"#, "ranks joined again"),
                (r#"sum(podium_learner_out_of_memory_total{run="$run"})"#, "out of memory"),
                (r#"podium_coordinator_store_errors_total{run="$run"}"#, "writes failed"),
            ],
        ),
    ],
};
