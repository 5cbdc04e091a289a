//! Panels about the recommender's quality.

use super::{lines, number};
use crate::dashboard::Dashboard;

pub(crate) const QUALITY: Dashboard = Dashboard {
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
            "The newest published version.",
            &[(r#"podium_coordinator_policy_version{run="$run"}"#, "version")],
        ),
        number(
            "Reward inflated",
            "bool_yes_no",
            "The reward rises and the held-out ranking does not follow.",
            &[(r#"podium_coordinator_reward_inflated{run="$run"}"#, "inflated")],
        ),
        number(
            "Evaluation in progress",
            "short",
            "Answered held-out prompts, of the requested ones.",
            &[
                (r#"podium_coordinator_evaluation_prompts_ready{run="$run"}"#, "ready"),
                (r#"podium_coordinator_evaluation_prompts_wanted{run="$run"}"#, "wanted"),
            ],
        ),
        lines(
            "Held-out hit rate",
            "short",
            "Fraction of users whose next item is among the first K.",
            &[(r#"podium_coordinator_evaluation_metric{run="$run", name=~"HR@[0-9]+"}"#, "{{name}}")],
        ),
        lines(
            "Held-out NDCG",
            "short",
            "With the bounds of the 95 % intervals.",
            &[
                (r#"podium_coordinator_evaluation_metric{run="$run", name=~"NDCG@[0-9]+"}"#, "{{name}}"),
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name=~"NDCG@[0-9]+/(low|high)"}"#,
                    "{{name}}",
                ),
            ],
        ),
        lines(
            "Training reward and held-out reward",
            "short",
            "Training groups are sampled at the training temperature, evaluations as set in the run file.",
            &[
                (r#"podium_coordinator_step_metric{run="$run", name="reward"}"#, "training"),
                (r#"podium_coordinator_evaluation_metric{run="$run", name="reward"}"#, "held-out"),
            ],
        ),
        lines(
            "Inflation watch",
            "short",
            "Gains since the start of the window, as fractions of the possible gain; see docs/guides/inflation-watch.md.",
            &[
                (r#"podium_coordinator_evaluation_metric{run="$run", name="watch/reward_gain"}"#, "reward"),
                (r#"podium_coordinator_evaluation_metric{run="$run", name="watch/ranking_gain"}"#, "ranking"),
            ],
        ),
        lines(
            "Format of held-out answers",
            "percentunit",
            "",
            &[
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name="completions/well_formed"}"#,
                    "well-formed",
                ),
                (r#"podium_coordinator_evaluation_metric{run="$run", name="clipped_ratio"}"#, "cut off"),
            ],
        ),
        lines(
            "Copying the prompt's order",
            "short",
            "Rising fractions and correlation indicate that the policy ranks by position.",
            &[
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name="ranking/copied_order"}"#,
                    "copied, held-out",
                ),
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name="ranking/order_correlation"}"#,
                    "correlation, held-out",
                ),
                (
                    r#"podium_coordinator_step_metric{run="$run", name="ranking/copied_order"}"#,
                    "copied, training",
                ),
                (
                    r#"podium_coordinator_step_metric{run="$run", name="ranking/order_correlation"}"#,
                    "correlation, training",
                ),
            ],
        ),
        lines(
            "Prompt position of the first-ranked item",
            "short",
            "In the prompt's list of candidates, from 1; the mean of a uniform choice is the middle.",
            &[
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name="ranking/first_position"}"#,
                    "held-out",
                ),
                (r#"podium_coordinator_step_metric{run="$run", name="ranking/first_position"}"#, "training"),
            ],
        ),
        lines(
            "Popularity of the first-ranked item",
            "percentunit",
            "1: the most popular item of the catalogue.",
            &[
                (
                    r#"podium_coordinator_evaluation_metric{run="$run", name="ranking/first_popularity"}"#,
                    "held-out",
                ),
                (
                    r#"podium_coordinator_step_metric{run="$run", name="ranking/first_popularity"}"#,
                    "training",
                ),
            ],
        ),
        lines(
            "Submitted held-out answers",
            "short",
            "Per second, by outcome.",
            &[(
                r#"sum by (outcome) (rate(podium_coordinator_evaluation_answers_total{run="$run"}[$__rate_interval]))"#,
                "{{outcome}}",
            )],
        ),
        lines(
            "Length of held-out answers",
            "short",
            "Mean number of tokens.",
            &[(r#"podium_coordinator_evaluation_metric{run="$run", name="mean_length"}"#, "tokens")],
        ),
    ],
};
