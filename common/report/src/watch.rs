//! Reward and ranking of held-out users in one picture, with the verdict of the inflation watch.
//!
//! Both are fractions on one axis: the reward as a fraction of its range, NDCG from 0 to 1.

use maud::{Markup, html};
use podium_evaluation::results::{Estimate, Evaluation, Results, Step};
use podium_evaluation::run_tables::{interval, signed_interval};
use serde_json::json;

use crate::chart::{self, BOTTOM, SMOOTH_FROM, TOP};
use crate::scale::{self, Scale, pixels};

const WIDTH: f64 = 1130.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;

/// Returns the section; `None` before there are steps and two evaluations.
pub(crate) fn render(results: &Results) -> Option<Markup> {
    let metric = results.evaluations.last()?.headline_metrics().pop()?;
    let range = results.baselines.reward_range.filter(|(least, most)| least < most);
    let (least, most) = range.unwrap_or((0.0, 1.0));
    let share = |reward: &f64| (reward - least) / (most - least);
    let point = |step: &Step| Some((*step.get("step")? - 1.0, share(step.get("reward")?)));
    let rewards: Vec<(f64, f64)> = results.steps.iter().filter_map(point).collect();
    if results.evaluations.len() < 2 || rewards.is_empty() {
        return None;
    }
    Some(html! {
        h2 { "Reward and ranking" }
        p.about {
            "The training reward, as a fraction of its range, and the " (results.part_name()) " " (metric) ". A reward that rises without \
             the ranking is inflated."
        }
        (verdict(results, &metric))
        @if let Some(picture) = picture(results, &metric, &rewards) { (picture) }
    })
}

fn verdict(results: &Results, metric: &str) -> Markup {
    let watched = results.evaluations.last().and_then(|last| Some((last, last.watch()?)));
    let gains = watched.map(|(last, watch)| {
        format!(
            "From version {} to {} the reward gained {} of its range, the ranking {} (99 % intervals).",
            watch.from_version,
            last.policy_version,
            signed_interval(watch.reward_gain),
            signed_interval(watch.ranking_gain),
        )
    });
    let streak = results.evaluations.iter().rev().take_while(|row| row.is_inflated()).last();
    let before = results.evaluations.iter().filter(|row| row.is_inflated()).count();
    let (class, words) = match (streak, &gains) {
        (Some(first), _) => {
            (Some("bad"), format!("The reward has been inflated since version {}.", first.policy_version))
        }
        (None, Some(_)) if before > 0 => {
            let plural = if before == 1 { "" } else { "s" };
            (
                None,
                format!("Not inflated at the last evaluation, but at {before} evaluation{plural} before it."),
            )
        }
        (None, Some(_)) => (
            Some("good"),
            "Not inflated: the ranking follows the reward, or the reward does not rise.".to_owned(),
        ),
        (None, None) => (None, "Too few evaluations for a verdict.".to_owned()),
    };
    html! {
        div class={ "finding" @if let Some(class) = class { " " (class) } } {
            b { (words) }
            " "
            @if let Some(gains) = gains { (gains) }
            @if let Some(best) = results.best(metric) {
                " Best policy: version " (best.policy_version) ", " (metric) " "
                @if let Some(value) = best.metric(metric) { (interval(value)) }
                "."
            }
        }
    }
}

fn picture(results: &Results, metric: &str, rewards: &[(f64, f64)]) -> Option<Markup> {
    let ranked: Vec<(&Evaluation, Estimate)> =
        results.evaluations.iter().filter_map(|row| Some((row, row.metric(metric)?))).collect();
    let ends = ranked.iter().flat_map(|(_, value)| [value.low, value.high]);
    let values = scale::range(rewards.iter().map(|point| point.1).chain(ends))?;
    let last = ranked.last().map_or(1.0, |(row, _)| row.policy_version as f64);
    let last = rewards.last().map_or(last, |point| point.0.max(last)).max(1.0);
    let x = Scale { values: (0.0, last), pixels: (LEFT + 4.0, WIDTH - RIGHT - 4.0) };
    let y = Scale { values, pixels: (HEIGHT - BOTTOM, TOP) };
    let content = html! {
        (inflated(results, &x))
        (chart::grid(&x, &y, (WIDTH, HEIGHT)))
        (reward_lines(rewards, &x, &y))
        (ranking_line(&ranked, &x, &y, results.best(metric).map(|best| best.policy_version)))
    };
    let part = results.part_name();
    let title = format!("Reward and {part} {metric}");
    Some(html! {
        figure.chart.wide {
            figcaption { h3 { (title) } output {} }
            (chart::drawing(&title, (WIDTH, HEIGHT), &hover(&ranked, metric, &x, &y), &content))
            div.legend {
                span.s2 { i {} "reward of training, by version sampled from" }
                span.s1 { i {} (part) " " (metric) " with 95 % interval; the large dot is the best policy" }
                span.inflated { i {} "reward inflated" }
            }
        }
    })
}

/// Shades the versions before each evaluation at which the reward is inflated.
fn inflated(results: &Results, x: &Scale) -> Markup {
    let rows = &results.evaluations;
    let before = |version: u64| rows.iter().rfind(|one| one.policy_version < version);
    let at = |row: &Evaluation| x.at(row.policy_version as f64);
    html! {
        @for row in rows.iter().filter(|row| row.is_inflated()) {
            @if let Some(before) = before(row.policy_version) {
                rect.inflated x=(pixels(at(before))) width=(pixels(at(row) - at(before))) y=(TOP)
                    height=(pixels(HEIGHT - BOTTOM - TOP)) {}
            }
        }
    }
}

fn reward_lines(rewards: &[(f64, f64)], x: &Scale, y: &Scale) -> Markup {
    html! {
        path.line.s2.faint d=(chart::path_data(rewards.iter().copied(), x, y)) {}
        @if rewards.len() >= SMOOTH_FROM {
            path.line.s2 d=(chart::path_data(chart::running_mean(rewards, rewards.len() / 24), x, y)) {}
        }
    }
}

/// Draws the ranking with its interval and a dot for each evaluation, a large one for the version `best`.
fn ranking_line(ranked: &[(&Evaluation, Estimate)], x: &Scale, y: &Scale, best: Option<u64>) -> Markup {
    let at = |row: &Evaluation| row.policy_version as f64;
    let upper = ranked.iter().map(|(row, value)| (at(row), value.high));
    let lower = ranked.iter().rev().map(|(row, value)| (at(row), value.low));
    let means = ranked.iter().map(|(row, value)| (at(row), value.mean));
    html! {
        path.band d={ (chart::path_data(upper.chain(lower), x, y)) "Z" } {}
        path.line.s1 d=(chart::path_data(means, x, y)) {}
        @for (row, value) in ranked {
            @let is_best = best == Some(row.policy_version);
            circle.dot.s1.best[is_best] cx=(pixels(x.at(at(row)))) cy=(pixels(y.at(value.mean)))
                r=(if is_best { 6 } else { 3 }) {}
        }
    }
}

fn hover(ranked: &[(&Evaluation, Estimate)], metric: &str, x: &Scale, y: &Scale) -> serde_json::Value {
    let text = |(row, value): &(&Evaluation, Estimate)| {
        let gap = row.watch().map_or(String::new(), |watch| {
            let (reward, ranking) = (watch.reward_gain.mean, watch.ranking_gain.mean);
            format!(" · since version {}: reward {reward:+.3}, ranking {ranking:+.3}", watch.from_version)
        });
        format!("version {}: {metric} {}{gap}", row.policy_version, interval(*value))
    };
    json!({
        "x": ranked.iter().map(|(row, _)| x.at(row.policy_version as f64)).collect::<Vec<_>>(),
        "y": ranked.iter().map(|(_, value)| y.at(value.mean)).collect::<Vec<_>>(),
        "text": ranked.iter().map(text).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use podium_evaluation::results::Baselines;

    fn results(inflated: &[u64]) -> Results {
        let estimate = |mean: f64| json!({"mean": mean, "low": mean - 0.04, "high": mean + 0.04});
        let evaluation = |version: u64| {
            let mut row = json!({"policy_version": version, "users": 600, "NDCG@3": estimate(0.4)});
            if version >= 20 {
                row["watch/from_version"] = json!(version - 20);
                row["watch/reward_gain"] = estimate(0.2);
                row["watch/ranking_gain"] = estimate(0.01);
                row["watch/inflated"] = json!(u8::from(inflated.contains(&version)));
            }
            serde_json::from_value(row).unwrap()
        };
        let step = |step: u32| Step::from([("step".into(), step.into()), ("reward".into(), 1.1)]);
        Results {
            steps: (1..=40).map(step).collect(),
            evaluations: [0, 10, 20, 30, 40].map(evaluation).into(),
            baselines: Baselines { reward_range: Some((0.0, 2.2)), ..Baselines::default() },
        }
    }

    #[test]
    fn the_verdict_belongs_to_the_last_evaluation() {
        let text = |results: &Results| render(results).unwrap().into_string();
        let bad = text(&results(&[30, 40]));
        for part in
            ["finding bad", "inflated since version 30", "+0.200 [+0.160, +0.240]", "Best policy: version 0"]
        {
            assert!(bad.contains(part), "{part} in {bad}");
        }
        assert_eq!(bad.matches("<rect class=\"inflated\"").count(), 2);
        let over = text(&results(&[20]));
        assert!(over.contains("\"finding\"") && over.contains("but at 1 evaluation before it"), "{over}");
        assert!(text(&results(&[])).contains("finding good"));
        let early = Results { evaluations: results(&[]).evaluations[..2].to_vec(), ..results(&[]) };
        assert!(text(&early).contains("Too few evaluations"));
        assert!(render(&Results::default()).is_none());
    }
}
