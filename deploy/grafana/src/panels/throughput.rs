//! What a run achieves, and what of.

use super::{lines, number};
use crate::dashboard::Dashboard;

pub(crate) const THROUGHPUT: Dashboard = Dashboard {
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
            "Negative: so many fewer would do. docs/reference/metrics.md has the formula.",
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
