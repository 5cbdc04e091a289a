//! Panels about the workers.

use super::{lines, number};
use crate::dashboard::Dashboard;

pub(crate) const WORKERS: Dashboard = Dashboard {
    name: "workers",
    title: "Podium: workers",
    panels: &[
        number(
            "Workers",
            "short",
            "Registered workers with heartbeats.",
            &[(r#"podium_coordinator_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Lost",
            "short",
            "Workers without heartbeats that did not shut down, since the coordinator's start.",
            &[(r#"podium_coordinator_workers_lost_total{run="$run"}"#, "lost")],
        ),
        number(
            "Groups of this step",
            "short",
            "Accepted and requested groups.",
            &[
                (r#"podium_coordinator_groups_ready{run="$run"}"#, "ready"),
                (r#"podium_coordinator_groups_wanted{run="$run"}"#, "wanted"),
            ],
        ),
        number(
            "Groups waiting",
            "short",
            "Accepted groups of uncommitted steps.",
            &[(r#"podium_coordinator_groups_waiting{run="$run"}"#, "groups")],
        ),
        lines(
            "Tokens sampled",
            "short",
            "Per second, by worker.",
            &[(
                r#"rate(podium_rollout_completion_tokens_total{run="$run"}[$__rate_interval])"#,
                "{{process}}",
            )],
        ),
        lines(
            "Idle",
            "percentunit",
            "Fraction of time without sampling, over about ten leases.",
            &[(r#"podium_rollout_idle_ratio{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "Time per lease",
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
            "Mean time to download and load a version.",
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
            "The version of each worker's last lease; evaluations use older versions than training.",
            &[
                (r#"podium_rollout_policy_version{run="$run"}"#, "{{process}}"),
                (r#"podium_coordinator_policy_version{run="$run"}"#, "newest"),
            ],
        ),
        lines(
            "Leases",
            "short",
            "Per second.",
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
            "Groups and held-out answers per second, by the coordinator's answer.",
            &[(
                r#"sum by (outcome) (rate(podium_rollout_results_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Prompt tokens",
            "short",
            "Computed per second, each prompt once for all of its completions.",
            &[(r#"sum(rate(podium_rollout_prompt_tokens_total{run="$run"}[$__rate_interval]))"#, "tokens/s")],
        ),
    ],
};
