//! Progress of a run on standard error: bars on a terminal, plain lines elsewhere, and in both cases a line of
//! metrics for each step and each evaluation.

use podium_service::notice;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use podium_proto::v1::{RewardState, RunPhase, RunStatus};

use podium_evaluation::results;

/// Time limit for the first worker.
const SETTLING: Duration = Duration::from_secs(15);

/// Shows received statuses.
#[derive(Debug)]
pub(crate) struct Progress {
    bars: Option<Bars>,
    /// Time and number of steps of the first observed status: the basis of the remaining time.
    first_seen: Option<(Instant, u64)>,
    /// Whether a worker has been seen, or should have been: before that its absence is not reported.
    settled: bool,
    told_step: u64,
    told_evaluation: Option<u64>,
    told_warnings: BTreeSet<String>,
    told_ending: String,
}

#[derive(Debug)]
struct Bars {
    all: MultiProgress,
    steps: ProgressBar,
    samples: ProgressBar,
    evaluation: ProgressBar,
}

impl Progress {
    pub(crate) fn start() -> Self {
        let bars = std::io::stderr().is_terminal().then(Bars::new);
        Self {
            bars,
            first_seen: None,
            settled: false,
            told_step: 0,
            told_evaluation: None,
            told_warnings: BTreeSet::new(),
            told_ending: String::new(),
        }
    }

    /// Prints a line, above the bars if there are any.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            // A closed terminal must not stop a run.
            Some(bars) => drop(bars.all.println(line)),
            None => notice!("{line}"),
        }
    }

    /// Returns whether an evaluation has been completed since the last status.
    pub(crate) fn show(&mut self, status: &RunStatus) -> bool {
        let (began, steps) = *self.first_seen.get_or_insert_with(|| (Instant::now(), status.step));
        self.settled |= !status.workers.is_empty() || began.elapsed() > SETTLING;
        self.told_warnings.retain(|told| status.warnings.contains(told));
        for warning in &status.warnings {
            if self.settled && self.told_warnings.insert(warning.clone()) {
                self.say(&format!("warning: {warning}"));
            }
        }
        if status.ending != self.told_ending {
            self.told_ending.clone_from(&status.ending);
            self.say(&format!("the run ends early: {}", status.ending));
        }
        if status.step > self.told_step {
            self.told_step = status.step;
            self.say(&step_line(status));
        }
        let version = status.last_evaluation_version;
        let evaluated = version.is_some() && version != self.told_evaluation;
        if evaluated {
            self.told_evaluation = version;
            self.say(&evaluation_line(status));
        }
        let (done, remaining) = (status.step.saturating_sub(steps), status.steps.saturating_sub(status.step));
        if let Some(bars) = &self.bars {
            bars.show(status, time_left(began.elapsed(), done, remaining));
        }
        evaluated
    }

    /// Removes the bars; printed lines remain.
    pub(crate) fn finish(self) {
        if let Some(bars) = self.bars {
            drop(bars.all.clear());
        }
    }
}

impl Bars {
    fn new() -> Self {
        let all = MultiProgress::new();
        let bar = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("the template is well-formed");
            all.add(ProgressBar::new(0).with_style(style.progress_chars("━╸─")))
        };
        let bars = Self {
            steps: bar("{prefix:<12} {bar:32.green/dim} {pos:>4}/{len:<4} {elapsed} {msg}"),
            samples: bar("{prefix:<12} {bar:32.cyan/dim} {msg:.dim}"),
            evaluation: bar("{prefix:<12} {bar:32.yellow/dim} {msg:.dim}"),
            all,
        };
        bars.steps.set_prefix("starting");
        bars.steps.enable_steady_tick(Duration::from_millis(500));
        bars
    }

    fn show(&self, status: &RunStatus, left: Option<Duration>) {
        self.steps.set_prefix(phase(status));
        self.steps.set_length(status.steps);
        self.steps.set_position(status.step);
        self.steps.set_message(left.map(|left| format!("· {} left", clock(left))).unwrap_or_default());
        self.samples.set_prefix(format!("step {}", (status.step + 1).min(status.steps)));
        let (ready, wanted) = (status.groups_ready, status.groups_wanted);
        fill(&self.samples, ready, wanted, &format!("prompts sampled by {}", team(status)));
        let (ready, wanted) = (status.evaluation_ready, status.evaluation_wanted);
        self.evaluation.set_prefix("evaluation");
        fill(&self.evaluation, ready, wanted, &format!("{} users", status.evaluated_part));
    }
}

/// Updates a bar; it is empty, without a count, while `wanted` is 0.
fn fill(bar: &ProgressBar, ready: u32, wanted: u32, what: &str) {
    bar.set_length(wanted.max(1).into());
    bar.set_position(ready.into());
    bar.set_message(if wanted > 0 { format!("{ready:>4}/{wanted:<4} {what}") } else { String::new() });
}

/// The metrics of the last committed step.
pub(crate) fn step_line(status: &RunStatus) -> String {
    let width = status.steps.to_string().len();
    let mut line = format!("step {:>width$}/{}", status.step, status.steps);
    for (name, label, decimals) in [
        ("reward", "reward", 3),
        ("reward_std", "±", 3),
        ("completions/well_formed", "well-formed", 2),
        ("kl", "KL", 4),
        ("entropy", "entropy", 3),
        ("completions/mean_length", "length", 1),
        ("grad_norm", "grad", 3),
    ] {
        if let Some(value) = status.last_step_metrics.get(name) {
            let gap = if label == "±" { " " } else { "  " };
            let _ = write!(line, "{gap}{label} {value:.decimals$}");
        }
    }
    if let Some(seconds) = status.last_step_metrics.get("step_time") {
        let _ = write!(line, "  {seconds:.1} s");
    }
    line
}

/// The metrics of the latest evaluation.
pub(crate) fn evaluation_line(status: &RunStatus) -> String {
    let version = status.last_evaluation_version.unwrap_or_default();
    let part = if status.evaluated_part.is_empty() { "held-out" } else { &status.evaluated_part };
    let mut line = format!("     {part}, version {version}:");
    let metrics = &status.last_evaluation;
    for (metric, mean) in metrics.iter().filter(|(name, _)| results::is_headline(name)) {
        let _ = write!(line, "  {metric} {mean:.3}{}", bounds(metrics, metric));
    }
    if status.best_version == Some(version) && version > 0 {
        line.push_str("  best so far");
    }
    line
}

fn bounds(metrics: &BTreeMap<String, f64>, metric: &str) -> String {
    match (metrics.get(&format!("{metric}/low")), metrics.get(&format!("{metric}/high"))) {
        (Some(low), Some(high)) => format!(" [{low:.3}, {high:.3}]"),
        _ => String::new(),
    }
}

/// The run's phase, in a word.
pub(crate) fn phase(status: &RunStatus) -> &'static str {
    match status.phase() {
        RunPhase::Unspecified | RunPhase::Starting => "starting",
        RunPhase::Training if status.rewards.iter().any(|reward| reward.state() == RewardState::Waiting) => {
            "waiting for a reward"
        }
        RunPhase::Training => "training",
        RunPhase::Evaluating => "evaluating",
        RunPhase::Finished => "finished",
        RunPhase::Draining => "draining",
    }
}

/// "2 workers, 1 learner rank"
pub(crate) fn team(status: &RunStatus) -> String {
    let workers = status.workers.len();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let ranks = status.learner_ranks as usize;
    format!("{workers} worker{}, {ranks} learner rank{}", plural(workers), plural(ranks))
}

fn time_left(elapsed: Duration, done: u64, left: u64) -> Option<Duration> {
    (done > 0).then(|| Duration::from_secs_f64(elapsed.as_secs_f64() / done as f64 * left as f64))
}

/// "4:05", "1:02:09"
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> RunStatus {
        let metrics =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        RunStatus {
            step: 7,
            steps: 60,
            learner_ranks: 1,
            last_step_metrics: metrics(&[
                ("reward", 0.5124),
                ("reward_std", 0.21),
                ("kl", 0.00312),
                ("step_time", 1.94),
            ]),
            last_evaluation: metrics(&[
                ("HR@1", 0.412),
                ("HR@1/low", 0.371),
                ("HR@1/high", 0.452),
                ("NDCG@3", 0.55),
            ]),
            last_evaluation_version: Some(6),
            evaluated_part: "validation".into(),
            ..RunStatus::default()
        }
    }

    #[test]
    fn a_step_and_an_evaluation_have_a_line_each() {
        assert_eq!(step_line(&status()), "step  7/60  reward 0.512 ± 0.210  KL 0.0031  1.9 s");
        assert_eq!(
            evaluation_line(&status()),
            "     validation, version 6:  HR@1 0.412 [0.371, 0.452]  NDCG@3 0.550"
        );
        let best = RunStatus { best_version: Some(6), ..status() };
        assert!(evaluation_line(&best).ends_with("NDCG@3 0.550  best so far"));
        assert_eq!(team(&status()), "0 workers, 1 learner rank");
    }

    #[test]
    fn the_remaining_time_is_estimated_from_observed_steps() {
        assert_eq!(time_left(Duration::from_secs(9), 0, 5), None);
        assert_eq!(time_left(Duration::from_secs(9), 3, 50), Some(Duration::from_secs(150)));
        assert_eq!(clock(Duration::from_secs(245)), "4:05");
        assert_eq!(clock(Duration::from_secs(3729)), "1:02:09");
    }
}
