//! Panels about throughput and resources.

use super::{lines, number};
use crate::dashboard::Dashboard;

pub(crate) const THROUGHPUT: Dashboard = Dashboard {
    name: "throughput",
    title: "Podium: throughput and hardware",
    panels: &[
        number(
            "Mean step",
            "s",
            "Over the lifetime of the coordinator's process.",
            &[(r#"podium:step_seconds:mean{run="$run"}"#, "step")],
        ),
        number(
            "Tokens sampled",
            "short",
            "Per second, all workers.",
            &[(r#"podium:sampled_tokens:rate5m{run="$run"}"#, "tokens/s")],
        ),
        number(
            "Recommended additional workers",
            "short",
            "Negative: surplus workers. The formula is in docs/reference/metrics.md.",
            &[(r#"podium_coordinator_more_workers{run="$run"}"#, "workers")],
        ),
        number(
            "Free disk space",
            "percentunit",
            "On the disk of the run folder.",
            &[(r#"podium:disk_free:ratio{run="$run"}"#, "free")],
        ),
        lines(
            "Idle time",
            "percentunit",
            "Idle fractions over about ten steps: the side that idles less is the bottleneck.",
            &[
                (r#"podium_coordinator_worker_idle_ratio{run="$run"}"#, "workers"),
                (r#"podium_coordinator_learner_idle_ratio{run="$run"}"#, "learner"),
            ],
        ),
        lines(
            "Bottleneck",
            "short",
            "1 for the bottleneck; neither if the fractions are close.",
            &[(r#"podium_coordinator_bottleneck{run="$run"}"#, "{{side}}")],
        ),
        lines(
            "Time per step",
            "s",
            "Means. Ranks wait for groups.",
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
            "Per second, over five minutes.",
            &[
                (r#"podium:sampled_tokens:rate5m{run="$run"}"#, "sampled"),
                (r#"podium:trained_tokens:rate5m{run="$run"}"#, "trained on"),
            ],
        ),
        lines(
            "Tokens of each process",
            "short",
            "Completion tokens per second. A process computes on one GPU.",
            &[
                (
                    r#"rate(podium_rollout_completion_tokens_total{run="$run"}[$__rate_interval])"#,
                    "sampled, {{process}}",
                ),
                (
                    r#"rate(podium_learner_tokens_total{run="$run"}[$__rate_interval])"#,
                    "trained on, {{process}}",
                ),
            ],
        ),
        lines(
            "Model operations",
            "flops",
            "Floating point operations of the model per second of sampling and of the update, without recomputation.",
            &[
                (r#"podium_rollout_model_flops_per_second{run="$run"}"#, "sampling, {{process}}"),
                (r#"podium_learner_model_flops_per_second{run="$run"}"#, "update, {{process}}"),
            ],
        ),
        lines(
            "Model FLOP utilisation",
            "percentunit",
            "The same as a fraction of the GPU's bfloat16 speed in its data sheet.",
            &[
                (
                    r#"podium_rollout_model_flops_per_second{run="$run"} / on (process) podium_gpu_peak_flops_per_second{run="$run"}"#,
                    "sampling, {{process}}",
                ),
                (
                    r#"podium_learner_model_flops_per_second{run="$run"} / on (process) podium_gpu_peak_flops_per_second{run="$run"}"#,
                    "update, {{process}}",
                ),
            ],
        ),
        lines(
            "Submitted groups",
            "short",
            "Per second, by outcome.",
            &[(
                r#"sum by (outcome) (rate(podium_coordinator_groups_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Wasted groups",
            "percentunit",
            "Repeated, refused, failed or replaced groups, of all submitted ones.",
            &[(r#"podium:groups_lost:ratio_rate5m{run="$run"}"#, "share")],
        ),
        lines(
            "Memory",
            "bytes",
            "Host memory, without GPU memory.",
            &[(r#"podium_process_resident_memory_bytes{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "Processors",
            "short",
            "Processors in use.",
            &[(r#"rate(podium_process_cpu_seconds_total{run="$run"}[$__rate_interval])"#, "{{process}}")],
        ),
        lines(
            "GPU utilisation",
            "percentunit",
            "Fraction of time in which the GPU of each process computed.",
            &[(r#"podium_gpu_utilisation_ratio{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "GPU memory",
            "bytes",
            "Memory in use on the GPU of each process, by all its processes.",
            &[
                (r#"podium_gpu_memory_used_bytes{run="$run"}"#, "{{process}}"),
                (r#"max(podium_gpu_memory_total_bytes{run="$run"})"#, "size of the largest GPU"),
            ],
        ),
        lines(
            "GPU power",
            "watt",
            "Power draw of the GPU of each process.",
            &[(r#"podium_gpu_power_watts{run="$run"}"#, "{{process}}")],
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
            "Transfer of policy versions",
            "Bps",
            "Through the coordinator.",
            &[(
                r#"sum by (direction, kind) (rate(podium_coordinator_policy_bytes_total{run="$run"}[$__rate_interval]))"#,
                "{{direction}} {{kind}}",
            )],
        ),
        lines(
            "Open files and connections",
            "short",
            "A number that only rises is a leak.",
            &[(r#"podium_process_open_fds{run="$run"}"#, "{{process}}")],
        ),
        lines(
            "Disk",
            "bytes",
            "On the disk of the run folder.",
            &[
                (r#"podium_coordinator_disk_free_bytes{run="$run"}"#, "free"),
                (r#"podium_coordinator_disk_size_bytes{run="$run"}"#, "size"),
            ],
        ),
    ],
};
