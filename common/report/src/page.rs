//! The page of a run: headline, held-out metrics, curves, samples, run file.

use std::fmt::Write as _;

use podium_config::RunFile;

use crate::chart::{Chart, Point, Reference};
use crate::html::{self, Escaped};
use crate::samples::{self, Sample};
use crate::scale::figure;
use crate::{answers, standing, watch};
use podium_evaluation::results::{Estimate, Evaluation, Results};
use podium_evaluation::run_tables::{interval, signed_interval};

/// The input of the page.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    pub(crate) run: &'a RunFile,
    pub(crate) results: &'a Results,
    pub(crate) samples: &'a [Sample],
    pub(crate) finished: bool,
}

/// A curve over the steps of the run: its name in metrics.jsonl, its title and its description.
const CURVES: [(&str, &str, &str); 10] = [
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
];

impl Page<'_> {
    pub(crate) fn render(&self) -> String {
        let mut main = String::new();
        self.tiles(&mut main);
        self.standing(&mut main);
        main.push_str(&watch::render(self.results));
        self.curves(&mut main);
        main.push_str(&answers::render(self.results, self.run.candidates.count));
        main.push_str(&samples::render(self.samples));
        self.run_file(&mut main);
        html::document(
            &self.run.run.name,
            &self.header(),
            &main,
            "All values are in the run folder: metrics.jsonl, evaluations.jsonl, samples.jsonl, baselines.json, \
             run.toml.",
        )
    }

    fn header(&self) -> String {
        let (run, rollout) = (&self.run.run, &self.run.rollout);
        let done = self.results.steps.last().and_then(|row| row.get("step")).copied().unwrap_or(0.0);
        let (class, state) = if self.finished {
            (" finished", "finished".to_owned())
        } else {
            ("", format!("step {done:.0}"))
        };
        let about = if run.steps == 0 {
            "Evaluation of one policy, without training.".to_owned()
        } else {
            format!(
                "{} steps of GRPO with seed {}: {} prompts per step, {} completions per prompt.",
                run.steps, run.seed, rollout.prompts_per_step, rollout.group_size
            )
        };
        let name = Escaped(&run.name);
        format!(
            "<header><div class=\"brand\">Podium</div><h1>{name}<span class=\"state{class}\">{state}</span></h1>\
             <p class=\"lead\">{about}</p></header>\n"
        )
    }

    fn tiles(&self, html: &mut String) {
        let (Some(start), Some(now)) = (self.results.evaluations.first(), self.results.evaluations.last())
        else {
            return;
        };
        html.push_str("<div class=\"tiles\">");
        let metrics = now.headline_metrics();
        for metric in metrics.first().into_iter().chain(metrics.last().filter(|_| metrics.len() > 1)) {
            html.push_str(&metric_tile(metric, start, now));
        }
        if let Some(tile) = metrics.first().and_then(|metric| self.reached_tile(metric, now)) {
            html.push_str(&tile);
        }
        if let Some(share) = now.well_formed {
            let from = start.well_formed.filter(|_| start.policy_version != now.policy_version);
            let from = from.map_or(String::new(), |from| format!("{:.1} % at the start. ", from * 100.0));
            let length =
                now.mean_length.map_or(String::new(), |length| format!("{length:.1} tokens on average"));
            let _ = write!(
                html,
                "<section class=\"tile\"><h3>Well-formed answers</h3><div class=\"value\">{:.1} %</div>{}<p>{from}{length}</p></section>",
                share * 100.0,
                meter(share),
            );
        }
        html.push_str("</div>\n");
    }

    /// Fraction of the distance from random to the best possible value, if the latter is known.
    fn reached_tile(&self, metric: &str, now: &Evaluation) -> Option<String> {
        let (random, best) =
            (self.results.baselines.random.get(metric)?, self.results.baselines.best(metric)?);
        let share = (now.metric(metric)?.mean - random) / (best - random);
        Some(format!(
            "<section class=\"tile\"><h3>Progress to the best possible</h3><div class=\"value\">{:.0} %</div>{}\
             <p>of the distance from random ({random:.3}) to the best possible {metric} ({best:.3})</p></section>",
            share * 100.0,
            meter(share),
        ))
    }

    fn standing(&self, html: &mut String) {
        let Some(last) = self.results.evaluations.last() else { return };
        let _ = write!(
            html,
            "<h2>Held-out ranking</h2><p class=\"about\">Over {} held-out users that are not in training, with \
             95 % intervals.</p><div class=\"standings\">",
            last.users,
        );
        let metrics = last.headline_metrics();
        for metric in metrics.first().into_iter().chain(metrics.last().filter(|_| metrics.len() > 1)) {
            html.push_str(&standing::render(self.results, metric));
        }
        html.push_str("</div>");
        self.evaluations(html, &metrics);
    }

    fn evaluations(&self, html: &mut String, metrics: &[String]) {
        html.push_str("<details class=\"card\"><summary>All evaluations</summary><div class=\"scroll\"><table><tr><th>version</th>");
        for metric in metrics {
            let _ = write!(html, "<th>{}</th>", Escaped(metric));
        }
        html.push_str("<th>well-formed</th><th>tokens</th></tr>");
        let cell = |value: Option<String>| value.unwrap_or_else(|| "–".into());
        for row in &self.results.evaluations {
            let _ = write!(html, "<tr><td>{}</td>", row.policy_version);
            for metric in metrics {
                let _ = write!(html, "<td>{}</td>", cell(row.metric(metric).map(with_small_interval)));
            }
            let share = cell(row.well_formed.map(|share| format!("{:.1} %", share * 100.0)));
            let length = cell(row.mean_length.map(|length| format!("{length:.1}")));
            let _ = write!(html, "<td>{share}</td><td>{length}</td></tr>");
        }
        html.push_str("</table></div></details>\n");
    }

    fn curves(&self, html: &mut String) {
        let mut charts = String::new();
        if self.results.evaluations.len() > 1 {
            let metrics =
                self.results.evaluations.last().map(Evaluation::headline_metrics).unwrap_or_default();
            for metric in metrics.first().into_iter().chain(metrics.last().filter(|_| metrics.len() > 1)) {
                charts.push_str(&self.held_out(metric));
            }
        }
        for (name, title, note) in CURVES {
            charts.push_str(&self.curve(name, title, note));
        }
        if !charts.is_empty() {
            let _ = writeln!(
                html,
                "<h2>Training curves</h2><p class=\"about\">Point at a curve to see its values.</p>\
                 <div class=\"charts\">{charts}</div>"
            );
        }
    }

    fn held_out(&self, metric: &str) -> String {
        let point = |row: &Evaluation| {
            let value = row.metric(metric)?;
            Some(Point { x: row.policy_version as f64, y: value.mean, band: Some((value.low, value.high)) })
        };
        let baselines = &self.results.baselines;
        let references =
            [("random", baselines.random.get(metric).copied()), ("best possible", baselines.best(metric))];
        Chart {
            title: &format!("Held-out {metric}"),
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

    fn curve(&self, name: &str, title: &str, note: &str) -> String {
        let points = self.results.steps.iter().filter_map(|row| {
            let y = *row.get(name)?;
            let spread = (name == "reward").then(|| row.get("reward_std")).flatten();
            Some(Point { x: *row.get("step")?, y, band: spread.map(|spread| (y - spread, y + spread)) })
        });
        Chart { title, note, along: "step", points: points.collect(), references: Vec::new(), marked: false }
            .render()
    }

    fn run_file(&self, html: &mut String) {
        let _ = writeln!(
            html,
            "<h2>Run file</h2><details class=\"card\"><summary>run.toml<small>every key, defaults included; run hash {}</small></summary>\
             <pre>{}</pre></details>",
            &self.run.hash()[..12],
            Escaped(self.run.to_toml()),
        );
    }
}

fn metric_tile(metric: &str, start: &Evaluation, now: &Evaluation) -> String {
    let Some(value) = now.metric(metric) else { return String::new() };
    let name = Escaped(metric);
    let Some(from) = start.metric(metric).filter(|_| start.policy_version != now.policy_version) else {
        return format!(
            "<section class=\"tile\"><h3>Held-out {name}</h3><div class=\"value\">{:.3}</div><p>{}</p></section>",
            value.mean,
            interval(value),
        );
    };
    let change = now.change(metric).map_or(String::new(), |change| {
        let direction = if change.low > 0.0 {
            " up"
        } else if change.high < 0.0 {
            " down"
        } else {
            ""
        };
        format!("<p><span class=\"change{direction}\">{}</span> paired</p>", signed_interval(change))
    });
    format!(
        "<section class=\"tile\"><h3>Held-out {name}</h3><div class=\"value\"><small>{:.3} →</small> {:.3}</div>\
         {change}<p>95 % interval [{:.3}, {:.3}]</p></section>",
        from.mean, value.mean, value.low, value.high,
    )
}

fn meter(share: f64) -> String {
    format!("<div class=\"meter\"><i style=\"width:{:.1}%\"></i></div>", share.clamp(0.0, 1.0) * 100.0)
}

fn with_small_interval(value: Estimate) -> String {
    format!("{} <small>[{}, {}]</small>", figure(value.mean), figure(value.low), figure(value.high))
}
