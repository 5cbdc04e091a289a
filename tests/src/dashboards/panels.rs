//! What the dashboards show.

use super::{Dashboard, Form, Panel, Query};

const fn number(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { form: Form::Number, title, unit, description, queries }
}

const fn lines(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { form: Form::Lines, title, unit, description, queries }
}

pub(super) const TRAINING: Dashboard = Dashboard {
    name: "training",
    title: "Podium: training health",
    panels: &[
        number(
            "Steps",
            "percentunit",
            "Steps committed, of all of the run.",
            &[(r#"podium_coordinator_step{run="$run"} / podium_coordinator_steps{run="$run"}"#, "done")],
        ),
        number(
            "Since the last step",
            "s",
            "An alert rings at ten times the mean step.",
            &[(r#"podium:since_commit_seconds{run="$run"}"#, "since")],
        ),
        number(
            "Workers",
            "short",
            "Registered and not silent.",
            &[(r#"podium_coordinator_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Learner ranks",
            "short",
            "Joined.",
            &[(r#"podium_coordinator_learner_ranks{run="$run"}"#, "ranks")],
        ),
        lines(
            "Reward",
            "short",
            "Of the step's groups; read it together with the held-out ranking.",
            &[
                (r#"podium_coordinator_step_figure{run="$run", name="reward"}"#, "mean"),
                (r#"podium_coordinator_step_figure{run="$run", name="reward_std"}"#, "spread within groups"),
            ],
        ),
        lines(
            "Groups without a lesson",
            "percentunit",
            "Groups whose rewards are all equal move the policy nowhere.",
            &[
                (
                    r#"podium_coordinator_step_figure{run="$run", name="frac_reward_zero_std"}"#,
                    "equal rewards",
                ),
                (r#"podium_coordinator_step_figure{run="$run", name="groups/frac_all_hit"}"#, "all hit"),
                (r#"podium_coordinator_step_figure{run="$run", name="groups/frac_all_miss"}"#, "all miss"),
                (
                    r#"podium_coordinator_step_figure{run="$run", name="groups/frac_all_malformed"}"#,
                    "all malformed",
                ),
            ],
        ),
        lines(
            "KL and entropy",
            "short",
            "In nats. Entropy near 0: the policy samples the same answer again and again.",
            &[
                (r#"podium_learner_kl_nats{run="$run", process="learner-0"}"#, "KL from the reference"),
                (r#"podium_learner_entropy_nats{run="$run", process="learner-0"}"#, "entropy"),
            ],
        ),
        lines(
            "Loss and gradient",
            "short",
            "GRPO's loss is near 0 by construction; jumps of the norm matter.",
            &[
                (r#"podium_learner_loss{run="$run", process="learner-0"}"#, "loss"),
                (r#"podium_learner_grad_norm{run="$run", process="learner-0"}"#, "norm of the gradient"),
            ],
        ),
        lines(
            "Log-probability gap",
            "short",
            "Recomputed against behaviour, in nats. In synchronous mode anything but rounding is a fault.",
            &[
                (r#"podium_learner_logprob_gap_mean_nats{run="$run", process="learner-0"}"#, "mean"),
                (r#"podium_learner_logprob_gap_max_nats{run="$run", process="learner-0"}"#, "largest"),
            ],
        ),
        lines(
            "Completions",
            "percentunit",
            "Cut off: ended by rollout.max_new_tokens.",
            &[
                (
                    r#"podium_coordinator_step_figure{run="$run", name="completions/well_formed"}"#,
                    "well-formed",
                ),
                (
                    r#"podium_coordinator_step_figure{run="$run", name="completions/clipped_ratio"}"#,
                    "cut off",
                ),
            ],
        ),
        lines(
            "Length of completions",
            "short",
            "Mean number of tokens.",
            &[(r#"podium_coordinator_step_figure{run="$run", name="completions/mean_length"}"#, "tokens")],
        ),
        lines(
            "Age of groups",
            "short",
            "Versions between the oldest group of a step and the step.",
            &[
                (
                    r#"podium_coordinator_step_figure{run="$run", name="groups/policy_lag/max"}"#,
                    "oldest group",
                ),
                (r#"podium_coordinator_max_policy_lag{run="$run"}"#, "allowed"),
            ],
        ),
        lines(
            "Learning rate",
            "sci",
            "As the schedule has it.",
            &[(r#"podium_learner_learning_rate{run="$run", process="learner-0"}"#, "step size")],
        ),
        lines(
            "Trouble",
            "short",
            "Counts since the process started.",
            &[
                (
                    r#"sum by (failure) (podium_coordinator_rank_failures_total{run="$run"})"#,
                    "rank ended: {{failure}}",
                ),
                (r#"sum(podium_learner_rejoins_total{run="$run"})"#, "ranks joined again"),
                (r#"sum(podium_learner_out_of_memory_total{run="$run"})"#, "out of memory"),
                (r#"podium_coordinator_store_errors_total{run="$run"}"#, "writes failed"),
            ],
        ),
    ],
};

pub(super) const THROUGHPUT: Dashboard = Dashboard {
    name: "throughput",
    title: "Podium: throughput and hardware",
    panels: &[
        number(
            "Mean step",
            "s",
            "Over the whole life of the coordinator's process.",
            &[(r#"podium:step_seconds:mean{run="$run"}"#, "step")],
        ),
        number(
            "Tokens sampled",
            "short",
            "A second, all workers.",
            &[(r#"podium:sampled_tokens:rate5m{run="$run"}"#, "tokens/s")],
        ),
        number(
            "Further workers that would pay",
            "short",
            "Negative: so many fewer would do. docs/metrics.md has the formula.",
            &[(r#"podium_coordinator_more_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Room on the disk",
            "percentunit",
            "Where the run folder is.",
            &[(r#"podium:disk_free:ratio{run="$run"}"#, "free")],
        ),
        lines(
            "Who waits for whom",
            "percentunit",
            "Idle shares over about ten steps: whoever idles less is the bottleneck.",
            &[
                (r#"podium_coordinator_worker_idle_ratio{run="$run"}"#, "workers"),
                (r#"podium_coordinator_learner_idle_ratio{run="$run"}"#, "learner"),
            ],
        ),
        lines(
            "Bottleneck",
            "short",
            "1 for the bottleneck; neither where the shares are close.",
            &[(r#"podium_coordinator_bottleneck{run="$run"}"#, "{{side}}")],
        ),
        lines(
            "Where a step's time goes",
            "s",
            "Means. Waiting is for groups.",
            &[
                (
                    r#"rate(podium_coordinator_step_seconds_sum{run="$run"}[$__rate_interval]) / rate(podium_coordinator_step_seconds_count{run="$run"}[$__rate_interval])"#,
                    "whole step",
                ),
                (
                    r#"rate(podium_learner_step_seconds_sum{run="$run"}[$__rate_interval]) / rate(podium_learner_step_seconds_count{run="$run"}[$__rate_interval])"#,
                    "update, {{process}}",
                ),
                (
                    r#"rate(podium_learner_wait_seconds_sum{run="$run"}[$__rate_interval]) / rate(podium_learner_wait_seconds_count{run="$run"}[$__rate_interval])"#,
                    "waiting, {{process}}",
                ),
                (
                    r#"rate(podium_learner_publish_seconds_sum{run="$run"}[$__rate_interval]) / rate(podium_learner_publish_seconds_count{run="$run"}[$__rate_interval])"#,
                    "publication",
                ),
            ],
        ),
        lines(
            "Tokens",
            "short",
            "A second, over five minutes.",
            &[
                (r#"podium:sampled_tokens:rate5m{run="$run"}"#, "sampled"),
                (r#"podium:trained_tokens:rate5m{run="$run"}"#, "trained on"),
            ],
        ),
        lines(
            "Groups handed in",
            "short",
            "A second, by what became of them.",
            &[(
                r#"sum by (outcome) (rate(podium_coordinator_groups_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Groups sampled for nothing",
            "percentunit",
            "Repeated, refused, failed or replaced, of all handed in.",
            &[(r#"podium:groups_lost:ratio_rate5m{run="$run"}"#, "share")],
        ),
        lines(
            "Memory",
            "bytes",
            "Of the host; GPUs have their own.",
            &[(r#"podium_process_resident_memory_bytes{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "Processors",
            "short",
            "Processors in use.",
            &[(
                r#"rate(podium_process_cpu_milliseconds_total{run="$run"}[$__rate_interval]) / 1000"#,
                "{{process}}",
            )],
        ),
        lines(
            "Store",
            "s",
            "Mean time of a durable write: the disk's fsync.",
            &[(
                r#"rate(podium_coordinator_store_write_seconds_sum{run="$run"}[$__rate_interval]) / rate(podium_coordinator_store_write_seconds_count{run="$run"}[$__rate_interval])"#,
                "write",
            )],
        ),
        lines(
            "Policy versions on their way",
            "Bps",
            "Through the coordinator.",
            &[(
                r#"sum by (direction) (rate(podium_coordinator_policy_bytes_total{run="$run"}[$__rate_interval]))"#,
                "{{direction}}",
            )],
        ),
        lines(
            "Open files and connections",
            "short",
            "A number that only rises is a leak.",
            &[(r#"podium_process_open_files{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "Disk",
            "bytes",
            "Where the run folder is.",
            &[
                (r#"podium_coordinator_disk_free_bytes{run="$run"}"#, "free"),
                (r#"podium_coordinator_disk_size_bytes{run="$run"}"#, "size"),
            ],
        ),
    ],
};

pub(super) const WORKERS: Dashboard = Dashboard {
    name: "workers",
    title: "Podium: workers",
    panels: &[
        number(
            "Workers",
            "short",
            "Registered and not silent.",
            &[(r#"podium_coordinator_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Lost",
            "short",
            "Fell silent without leaving, since the coordinator started.",
            &[(r#"podium_coordinator_workers_lost_total{run="$run"}"#, "lost")],
        ),
        number(
            "Groups of this step",
            "short",
            "There, and wanted.",
            &[
                (r#"podium_coordinator_groups_ready{run="$run"}"#, "ready"),
                (r#"podium_coordinator_groups_wanted{run="$run"}"#, "wanted"),
            ],
        ),
        number(
            "Groups waiting",
            "short",
            "Accepted for steps that are not committed.",
            &[(r#"podium_coordinator_groups_waiting{run="$run"}"#, "groups")],
        ),
        lines(
            "Tokens sampled",
            "short",
            "A second, by worker.",
            &[(
                r#"rate(podium_rollout_completion_tokens_total{run="$run"}[$__rate_interval])"#,
                "{{process}}",
            )],
        ),
        lines(
            "Idle",
            "percentunit",
            "Share of the time without sampling, over about ten leases.",
            &[(r#"podium_rollout_idle_ratio{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "A lease's time",
            "s",
            "Means over all workers.",
            &[
                (
                    r#"sum(rate(podium_rollout_prefill_seconds_sum{run="$run"}[$__rate_interval])) / sum(rate(podium_rollout_prefill_seconds_count{run="$run"}[$__rate_interval]))"#,
                    "prefill",
                ),
                (
                    r#"sum(rate(podium_rollout_decode_seconds_sum{run="$run"}[$__rate_interval])) / sum(rate(podium_rollout_decode_seconds_count{run="$run"}[$__rate_interval]))"#,
                    "decode",
                ),
                (
                    r#"sum(rate(podium_rollout_idle_seconds_sum{run="$run"}[$__rate_interval])) / sum(rate(podium_rollout_idle_seconds_count{run="$run"}[$__rate_interval]))"#,
                    "between two leases",
                ),
            ],
        ),
        lines(
            "New policy versions",
            "s",
            "Mean time to get one.",
            &[
                (
                    r#"sum(rate(podium_rollout_policy_fetch_seconds_sum{run="$run"}[$__rate_interval])) / sum(rate(podium_rollout_policy_fetch_seconds_count{run="$run"}[$__rate_interval]))"#,
                    "fetch",
                ),
                (
                    r#"sum(rate(podium_rollout_policy_load_seconds_sum{run="$run"}[$__rate_interval])) / sum(rate(podium_rollout_policy_load_seconds_count{run="$run"}[$__rate_interval]))"#,
                    "load",
                ),
            ],
        ),
        lines(
            "Policy versions",
            "short",
            "With which each worker sampled last; evaluations sample with older ones than training.",
            &[
                (r#"podium_rollout_policy_version{run="$run"}"#, "{{process}}"),
                (r#"podium_coordinator_policy_version{run="$run"}"#, "newest"),
            ],
        ),
        lines(
            "Leases",
            "short",
            "A second.",
            &[
                (
                    r#"sum by (event) (rate(podium_coordinator_leases_total{run="$run"}[$__rate_interval]))"#,
                    "{{event}}",
                ),
                (
                    r#"sum by (outcome) (rate(podium_rollout_leases_total{run="$run"}[$__rate_interval]))"#,
                    "{{outcome}} by workers",
                ),
            ],
        ),
        lines(
            "Results",
            "short",
            "Groups and held-out answers a second, by the coordinator's answer.",
            &[(
                r#"sum by (outcome) (rate(podium_rollout_results_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Prompt tokens",
            "short",
            "Computed a second, each prompt once for all of its completions.",
            &[(r#"sum(rate(podium_rollout_prompt_tokens_total{run="$run"}[$__rate_interval]))"#, "tokens/s")],
        ),
    ],
};

pub(super) const QUALITY: Dashboard = Dashboard {
    name: "quality",
    title: "Podium: recommender quality",
    panels: &[
        number(
            "Best version",
            "short",
            "By held-out NDCG at the list length.",
            &[(r#"podium_coordinator_best_policy_version{run="$run"}"#, "version")],
        ),
        number(
            "Newest version",
            "short",
            "Published.",
            &[(r#"podium_coordinator_policy_version{run="$run"}"#, "version")],
        ),
        number(
            "Reward inflated",
            "bool_yes_no",
            "The reward rises and the held-out ranking does not follow.",
            &[(r#"podium_coordinator_reward_inflated{run="$run"}"#, "inflated")],
        ),
        number(
            "Evaluation under way",
            "short",
            "Held-out prompts answered, of those wanted.",
            &[
                (r#"podium_coordinator_evaluation_prompts_ready{run="$run"}"#, "ready"),
                (r#"podium_coordinator_evaluation_prompts_wanted{run="$run"}"#, "wanted"),
            ],
        ),
        lines(
            "Held-out hit rate",
            "short",
            "Share of users whose next item is among the first K.",
            &[(r#"podium_coordinator_evaluation_figure{run="$run", name=~"HR@[0-9]+"}"#, "{{name}}")],
        ),
        lines(
            "Held-out NDCG",
            "short",
            "With the ends of the 95 % intervals.",
            &[
                (r#"podium_coordinator_evaluation_figure{run="$run", name=~"NDCG@[0-9]+"}"#, "{{name}}"),
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name=~"NDCG@[0-9]+/(low|high)"}"#,
                    "{{name}}",
                ),
            ],
        ),
        lines(
            "Training reward and held-out reward",
            "short",
            "Training groups are sampled at the training temperature, evaluations as the run file says.",
            &[
                (r#"podium_coordinator_step_figure{run="$run", name="reward"}"#, "training"),
                (r#"podium_coordinator_evaluation_figure{run="$run", name="reward"}"#, "held-out"),
            ],
        ),
        lines(
            "Inflation watch",
            "short",
            "Gains since the window began, in parts of what can be gained; docs/inflation-watch.md.",
            &[
                (r#"podium_coordinator_evaluation_figure{run="$run", name="watch/reward_gain"}"#, "reward"),
                (r#"podium_coordinator_evaluation_figure{run="$run", name="watch/ranking_gain"}"#, "ranking"),
            ],
        ),
        lines(
            "Form of held-out answers",
            "percentunit",
            "",
            &[
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name="completions/well_formed"}"#,
                    "well-formed",
                ),
                (r#"podium_coordinator_evaluation_figure{run="$run", name="clipped_ratio"}"#, "cut off"),
            ],
        ),
        lines(
            "Copying the prompt's order",
            "short",
            "Shares and correlation that rise mean that position decides.",
            &[
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name="ranking/copied_order"}"#,
                    "copied, held-out",
                ),
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name="ranking/order_correlation"}"#,
                    "correlation, held-out",
                ),
                (
                    r#"podium_coordinator_step_figure{run="$run", name="ranking/copied_order"}"#,
                    "copied, training",
                ),
                (
                    r#"podium_coordinator_step_figure{run="$run", name="ranking/order_correlation"}"#,
                    "correlation, training",
                ),
            ],
        ),
        lines(
            "Place of what is ranked first",
            "short",
            "In the prompt's list of candidates, from 1; even choice is the middle.",
            &[
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name="ranking/first_position"}"#,
                    "held-out",
                ),
                (r#"podium_coordinator_step_figure{run="$run", name="ranking/first_position"}"#, "training"),
            ],
        ),
        lines(
            "Popularity of what is ranked first",
            "percentunit",
            "1: the most popular item of the catalogue.",
            &[
                (
                    r#"podium_coordinator_evaluation_figure{run="$run", name="ranking/first_popularity"}"#,
                    "held-out",
                ),
                (
                    r#"podium_coordinator_step_figure{run="$run", name="ranking/first_popularity"}"#,
                    "training",
                ),
            ],
        ),
        lines(
            "Held-out answers handed in",
            "short",
            "A second, by what became of them.",
            &[(
                r#"sum by (outcome) (rate(podium_coordinator_evaluation_answers_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Length of held-out answers",
            "short",
            "Mean number of tokens.",
            &[(r#"podium_coordinator_evaluation_figure{run="$run", name="mean_length"}"#, "tokens")],
        ),
    ],
};
