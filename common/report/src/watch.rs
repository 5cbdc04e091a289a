//! Reward and held-out ranking in one picture, with the verdict of the inflation watch.
//!
//! Both are fractions on one axis: the reward as a fraction of its range, NDCG from 0 to 1.

use std::fmt::Write as _;

use serde_json::json;

use crate::chart::{self, BOTTOM, SMOOTH_FROM, TOP};
use crate::html::Escaped;
use crate::scale::{self, Scale};
use podium_evaluation::results::{Estimate, Evaluation, Results, Step};
use podium_evaluation::run_tables::{interval, signed_interval};

const WIDTH: f64 = 1130.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;

/// Returns the section; empty before there are steps and two evaluations.
pub(crate) fn render(results: &Results) -> String {
    let Some(metric) = results.evaluations.last().and_then(|last| last.headline_metrics().pop()) else {
        return String::new();
    };
    let range = results.baselines.reward_range.filter(|(least, most)| least < most);
    let (least, most) = range.unwrap_or((0.0, 1.0));
    let share = |reward: &f64| (reward - least) / (most - least);
    let point = |step: &Step| Some((*step.get("step")? - 1.0, share(step.get("reward")?)));
    let rewards: Vec<(f64, f64)> = results.steps.iter().filter_map(point).collect();
    if results.evaluations.len() < 2 || rewards.is_empty() {
        return String::new();
    }
    format!(
        "<h2>Reward and ranking</h2><p class=\"about\">The training reward, as a fraction \
         of its range, and the held-out {name}. A reward that rises without the ranking is inflated.</p>\
         {verdict}{picture}",
        name = Escaped(&metric),
        verdict = verdict(results, &metric),
        picture = picture(results, &metric, &rewards),
    )
}

fn verdict(results: &Results, metric: &str) -> String {
    let Some(last) = results.evaluations.last() else { return String::new() };
    let gains = last.watch().map(|watch| {
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
            (" bad", format!("The reward has been inflated since version {}.", first.policy_version))
        }
        (None, Some(_)) if before > 0 => {
            let plural = if before == 1 { "" } else { "s" };
            (
                "",
                format!("Not inflated at the last evaluation, but at {before} evaluation{plural} before it."),
            )
        }
        (None, Some(_)) => {
            (" good", "Not inflated: the ranking follows the reward, or the reward does not rise.".to_owned())
        }
        (None, None) => ("", "Too few evaluations for a verdict.".to_owned()),
    };
    let best = results.best(metric).map_or(String::new(), |best| {
        let value = best.metric(metric).map_or(String::new(), interval);
        format!(" Best policy: version {}, {} {value}.", best.policy_version, Escaped(metric))
    });
    format!("<div class=\"finding{class}\"><b>{words}</b> {}{best}</div>", gains.unwrap_or_default())
}

fn picture(results: &Results, metric: &str, rewards: &[(f64, f64)]) -> String {
    let ranked: Vec<(&Evaluation, Estimate)> =
        results.evaluations.iter().filter_map(|row| Some((row, row.metric(metric)?))).collect();
    let ends = ranked.iter().flat_map(|(_, value)| [value.low, value.high]);
    let Some(values) = scale::range(rewards.iter().map(|point| point.1).chain(ends)) else {
        return String::new();
    };
    let last = ranked.last().map_or(1.0, |(row, _)| row.policy_version as f64);
    let last = rewards.last().map_or(last, |point| point.0.max(last)).max(1.0);
    let x = Scale { values: (0.0, last), pixels: (LEFT + 4.0, WIDTH - RIGHT - 4.0) };
    let y = Scale { values, pixels: (HEIGHT - BOTTOM, TOP) };
    let mut svg = String::new();
    for row in results.evaluations.iter().filter(|row| row.is_inflated()) {
        let Some(before) = results.evaluations.iter().rfind(|one| one.policy_version < row.policy_version)
        else {
            continue;
        };
        let (left, right) = (x.at(before.policy_version as f64), x.at(row.policy_version as f64));
        let _ = write!(
            svg,
            r#"<rect class="inflated" x="{left:.1}" width="{:.1}" y="{TOP}" height="{:.1}"/>"#,
            right - left,
            HEIGHT - BOTTOM - TOP,
        );
    }
    chart::grid_of(&mut svg, &x, &y, (WIDTH, HEIGHT));
    let _ =
        write!(svg, r#"<path class="line s2 faint" d="{}"/>"#, chart::path(rewards.iter().copied(), &x, &y));
    if rewards.len() >= SMOOTH_FROM {
        let smooth = chart::running_mean(rewards, rewards.len() / 24);
        let _ = write!(svg, r#"<path class="line s2" d="{}"/>"#, chart::path(smooth, &x, &y));
    }
    let at = |row: &Evaluation| row.policy_version as f64;
    let upper = ranked.iter().map(|(row, value)| (at(row), value.high));
    let lower = ranked.iter().rev().map(|(row, value)| (at(row), value.low));
    let _ = write!(svg, r#"<path class="band" d="{}Z"/>"#, chart::path(upper.chain(lower), &x, &y));
    let means = ranked.iter().map(|(row, value)| (at(row), value.mean));
    let _ = write!(svg, r#"<path class="line s1" d="{}"/>"#, chart::path(means, &x, &y));
    let best = results.best(metric).map(|best| best.policy_version);
    for (row, value) in &ranked {
        let (left, top) = (x.at(at(row)), y.at(value.mean));
        let is_best = best == Some(row.policy_version);
        let (class, radius) = if is_best { ("dot s1 best", 6) } else { ("dot s1", 3) };
        let _ = write!(svg, r#"<circle class="{class}" cx="{left:.1}" cy="{top:.1}" r="{radius}"/>"#);
    }
    let name = Escaped(metric);
    format!(
        "<figure class=\"chart wide\"><figcaption><h3>Reward and held-out {name}</h3><output></output></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Reward and held-out {name}\" data-hover=\"{}\">{svg}\
         <g class=\"pointer\" hidden><line y1=\"{TOP}\" y2=\"{:.1}\"/><circle r=\"4\"/></g></svg>\
         <div class=\"legend\"><span class=\"s2\"><i></i>reward of training, by version sampled from</span>\
         <span class=\"s1\"><i></i>held-out {name} with 95 % interval; the large dot is the best policy</span>\
         <span class=\"inflated\"><i></i>reward inflated</span></div></figure>\n",
        Escaped(hover(&ranked, metric, &x, &y)),
        HEIGHT - BOTTOM,
    )
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
        let bad = render(&results(&[30, 40]));
        for part in
            ["finding bad", "inflated since version 30", "+0.200 [+0.160, +0.240]", "Best policy: version 0"]
        {
            assert!(bad.contains(part), "{part} in {bad}");
        }
        assert_eq!(bad.matches("<rect class=\"inflated\"").count(), 2);
        let over = render(&results(&[20]));
        assert!(over.contains("\"finding\"") && over.contains("but at 1 evaluation before it"), "{over}");
        assert!(render(&results(&[])).contains("finding good"));
        let early = Results { evaluations: results(&[]).evaluations[..2].to_vec(), ..results(&[]) };
        assert!(render(&early).contains("Too few evaluations"));
        assert_eq!(render(&Results::default()), "");
    }
}
