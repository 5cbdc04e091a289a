//! The page of a run: headline, ranking of the evaluated users, curves, samples, run file.

use maud::{Markup, html};
use podium_config::RunFile;
use podium_evaluation::results::{Estimate, Evaluation, Results};
use podium_evaluation::run_tables::{interval, signed_interval};

use crate::chart::{Chart, Point, Reference};
use crate::samples::{self, Sample};
use crate::scale::format_value;
use crate::{anatomy, answers, document, dot_plot, watch};

/// The input of the page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) run: &'a RunFile,
    pub(crate) results: &'a Results,
    pub(crate) samples: &'a [Sample],
    pub(crate) finished: bool,
}

/// A curve over the steps of the run: its name in metrics.jsonl, its title and its description.
const CURVES: [(&str, &str, &str); 11] = [
    ("reward", "Reward", "mean over the step's completions; band: one standard deviation within a group"),
    ("completions/well_formed", "Well-formed answers", "fraction of the step's completions"),
    ("kl", "KL to the reference", "nats per token, between the policy and its reference"),
    ("entropy", "Entropy", "nats per token, of the sampling distribution"),
    ("completions/mean_length", "Completion length", "tokens, mean over the step"),
    ("completions/clipped_ratio", "Completions cut off", "fraction truncated at rollout.max_new_tokens"),
    ("grad_norm", "Gradient norm", "before clipping"),
    ("frac_reward_zero_std", "Zero-variance groups", "fraction of groups with equal rewards"),
    (
        "sampling/sampling_logp_difference/mean",
        "Log-probability gap",
        "mean between worker and learner, nats per token",
    ),
    ("step_time", "Seconds per step", "from one commit to the next"),
    (
        "time/computing",
        "Computing",
        "fraction of a step in which a worker samples or a rank computes its update",
    ),
];

impl Page<'_> {
    pub(crate) fn render(&self) -> Markup {
        let main = html! {
            (self.tiles())
            (self.held_out_ranking())
            @if let Some(section) = watch::render(self.results) { (section) }
            (self.curves())
            @if let Some(section) = answers::render(self.results, self.run.candidates.count) { (section) }
            @if let Some(section) = anatomy::render(self.results) { (section) }
            (samples::render(self.samples))
            (self.run_file())
        };
        document::render(
            &self.run.run.name,
            &self.header(),
            &main,
            "All values are in the run folder: metrics.jsonl, evaluations.jsonl, samples.jsonl, baselines.json, \
             run.toml.",
        )
    }

    fn header(&self) -> Markup {
        let (run, rollout) = (&self.run.run, &self.run.rollout);
        let done = self.results.steps.last().and_then(|row| row.get("step")).copied().unwrap_or(0.0);
        let state = if self.finished { "finished".to_owned() } else { format!("step {done:.0}") };
        html! {
            header {
                div.brand { "Podium" }
                h1 { (run.name) span.state.finished[self.finished] { (state) } }
                p.lead {
                    @if run.steps == 0 {
                        "Evaluation of one policy, without training."
                    } @else {
                        (run.steps) " steps of GRPO with seed " (run.seed) ": " (rollout.prompts_per_step)
                        " prompts per step, " (rollout.group_size) " completions per prompt."
                    }
                }
            }
        }
    }

    fn tiles(&self) -> Markup {
        let (Some(start), Some(now)) = (self.results.evaluations.first(), self.results.evaluations.last())
        else {
            return html! {};
        };
        let metrics = now.headline_metrics();
        html! {
            div.tiles {
                @for metric in first_and_last(&metrics) {
                    @if let Some(tile) = metric_tile(metric, start, now) { (tile) }
                }
                @if let Some(tile) = metrics.first().and_then(|metric| self.progress_tile(metric, now)) { (tile) }
                @if let Some(tile) = format_tile(start, now) { (tile) }
            }
        }
    }

    /// Fraction of the distance from random to the best possible value, if the latter is known.
    fn progress_tile(&self, metric: &str, now: &Evaluation) -> Option<Markup> {
        let (random, best) =
            (self.results.baselines.random.get(metric)?, self.results.baselines.best(metric)?);
        let share = (now.metric(metric)?.mean - random) / (best - random);
        Some(html! {
            section.tile {
                h3 { "Progress to the best possible" }
                div.value { (format!("{:.0} %", share * 100.0)) }
                (meter(share))
                p {
                    "of the distance from random (" (format!("{random:.3}")) ") to the best possible " (metric)
                    " (" (format!("{best:.3}")) ")"
                }
            }
        })
    }

    fn held_out_ranking(&self) -> Markup {
        let Some(last) = self.results.evaluations.last() else { return html! {} };
        let metrics = last.headline_metrics();
        let plot = |metric: &String| dot_plot::render(metric, &dot_plot::rows_of_run(self.results, metric));
        html! {
            h2 { (capital(last.part_name())) " ranking" }
            p.about {
                "Over " (last.users) " " (last.part_name()) " users, which are not trained on, with 95 % intervals."
                @if last.is_validation() {
                    " The best version is chosen by them: quote results of the test users (podium evaluate)."
                }
            }
            div.dot-plots {
                @for plot in first_and_last(&metrics).filter_map(plot) { (plot) }
            }
            (self.evaluations(&metrics))
        }
    }

    fn evaluations(&self, metrics: &[String]) -> Markup {
        let cell = |value: Option<Markup>| value.unwrap_or_else(|| html! { "–" });
        html! {
            details.card {
                summary { "All evaluations" }
                div.scroll {
                    table {
                        tr {
                            th { "version" }
                            @for metric in metrics { th { (metric) } }
                            th { "well-formed" }
                            th { "tokens" }
                        }
                        @for row in &self.results.evaluations {
                            tr {
                                td { (row.policy_version) }
                                @for metric in metrics { td { (cell(row.metric(metric).map(with_small_interval))) } }
                                td { (cell(row.well_formed.map(|share| html! { (percent(share)) }))) }
                                td { (cell(row.mean_length.map(|length| html! { (format!("{length:.1}")) }))) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn curves(&self) -> Markup {
        let evaluations = &self.results.evaluations;
        let metrics = evaluations.last().filter(|_| evaluations.len() > 1).map(Evaluation::headline_metrics);
        let held_out = metrics.iter().flat_map(|metrics| first_and_last(metrics));
        let curves = CURVES.into_iter().filter_map(|(name, title, note)| self.curve(name, title, note));
        let charts: Vec<Markup> = held_out.filter_map(|metric| self.held_out(metric)).chain(curves).collect();
        html! {
            @if !charts.is_empty() {
                h2 { "Training curves" }
                p.about { "Point at a curve to see its values." }
                div.charts { @for chart in charts { (chart) } }
            }
        }
    }

    fn held_out(&self, metric: &str) -> Option<Markup> {
        let point = |row: &Evaluation| {
            let value = row.metric(metric)?;
            Some(Point { x: row.policy_version as f64, y: value.mean, band: Some((value.low, value.high)) })
        };
        let baselines = &self.results.baselines;
        let references =
            [("random", baselines.random.get(metric).copied()), ("best possible", baselines.best(metric))];
        Chart {
            title: &format!("{} {metric}", capital(self.results.part_name())),
            note: "by policy version; band: 95 % interval",
            along: "version",
            points: self.results.evaluations.iter().filter_map(point).collect(),
            references: references
                .into_iter()
                .filter_map(|(label, value)| Some(Reference { label, value: value? }))
                .collect(),
            marked: true,
        }
        .render()
    }

    fn curve(&self, name: &str, title: &str, note: &str) -> Option<Markup> {
        let points = self.results.steps.iter().filter_map(|row| {
            let y = *row.get(name)?;
            let spread = (name == "reward").then(|| row.get("reward_std")).flatten();
            Some(Point { x: *row.get("step")?, y, band: spread.map(|spread| (y - spread, y + spread)) })
        });
        Chart { title, note, along: "step", points: points.collect(), references: Vec::new(), marked: false }
            .render()
    }

    fn run_file(&self) -> Markup {
        html! {
            h2 { "Run file" }
            details.card {
                summary {
                    "run.toml"
                    small { "every key, defaults included; run hash " (self.run.hash()[..12]) }
                }
                pre { (self.run.to_toml()) }
            }
        }
    }
}

/// Returns a word with its first letter in upper case.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Returns the first and the last of `metrics`, once if there is only one.
fn first_and_last(metrics: &[String]) -> impl Iterator<Item = &String> {
    metrics.first().into_iter().chain(metrics.last().filter(|_| metrics.len() > 1))
}

fn metric_tile(metric: &str, start: &Evaluation, now: &Evaluation) -> Option<Markup> {
    let value = now.metric(metric)?;
    let from = start.metric(metric).filter(|_| start.policy_version != now.policy_version);
    Some(html! {
        section.tile {
            h3 { (capital(now.part_name())) " " (metric) }
            @if let Some(from) = from {
                div.value { small { (format!("{:.3} →", from.mean)) } (format!(" {:.3}", value.mean)) }
                @if let Some(change) = now.change(metric) {
                    p {
                        span.change.up[change.low > 0.0].down[change.high < 0.0] { (signed_interval(change)) }
                        " paired"
                    }
                }
                p { "95 % interval " (format!("[{:.3}, {:.3}]", value.low, value.high)) }
            } @else {
                div.value { (format!("{:.3}", value.mean)) }
                p { (interval(value)) }
            }
        }
    })
}

/// The fraction of well-formed answers and their length, if known.
fn format_tile(start: &Evaluation, now: &Evaluation) -> Option<Markup> {
    let share = now.well_formed?;
    let from = start.well_formed.filter(|_| start.policy_version != now.policy_version);
    Some(html! {
        section.tile {
            h3 { "Well-formed answers" }
            div.value { (percent(share)) }
            (meter(share))
            p {
                @if let Some(from) = from { (percent(from)) " at the start. " }
                @if let Some(length) = now.mean_length { (format!("{length:.1} tokens on average")) }
            }
        }
    })
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn meter(share: f64) -> Markup {
    html! {
        div.meter { i style=(format!("width:{:.1}%", share.clamp(0.0, 1.0) * 100.0)) {} }
    }
}

fn with_small_interval(value: Estimate) -> Markup {
    html! {
        (format_value(value.mean)) " "
        small { "[" (format_value(value.low)) ", " (format_value(value.high)) "]" }
    }
}
