//! The inflation watch's findings for each evaluation, and the best policy so far.
//!
//! All findings are computed from the stored records, so a restart yields the same.

use std::collections::BTreeMap;

use podium_grpo::{PolicyVersion, Step};
use podium_recsys::Task;
use podium_recsys::ranking::Metric;
use podium_recsys::reward::Extremes;
use podium_recsys::watch::{self, Comparison, Evaluated, Gain, Options, Rewarded};
use serde_json::{Value, json};

use crate::store::{self, EvaluationRecord, Row, Store};

const INFLATED: &str = "watch/inflated";
const FROM: &str = "watch/from_version";
const REWARD_GAIN: &str = "watch/reward_gain";
const RANKING_GAIN: &str = "watch/ranking_gain";
const GAP: &str = "watch/gap";

/// The watch of a run.
#[derive(Debug, Clone)]
pub struct Watch {
    options: Options,
    list_length: usize,
    /// The highest reward minus the lowest.
    reward_range: f64,
    /// The metric that versions are compared by: NDCG over the whole list.
    best_by: String,
}

/// Findings of the evaluations so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// The best policy, with its score.
    pub best: Option<(PolicyVersion, f64)>,
    /// The metric of the score.
    pub best_by: String,
    /// The current warning, if any.
    pub warning: Option<String>,
    /// The evaluation that ends the run, and the reason, if one does.
    pub ended_by: Option<(PolicyVersion, String)>,
}

impl Watch {
    /// Creates the watch of a run file.
    pub fn new(options: &Options, task: &Task) -> Self {
        let list_length = task.answer().list_length;
        let Extremes { best, worst, .. } = task.rewards().extremes();
        let range = best.1 - worst.1;
        Self {
            options: options.clone(),
            list_length,
            // A constant reward has no range and no gain.
            reward_range: if range > 0.0 { range } else { 1.0 },
            best_by: Metric::Ndcg(list_length).to_string(),
        }
    }

    /// Compares reward and ranking up to the evaluation of `version`, the last of `evaluations`, and adds the
    /// result to its row. All steps before `version` are committed.
    pub fn note(
        &self,
        store: &Store,
        evaluations: &mut BTreeMap<PolicyVersion, EvaluationRecord>,
        version: PolicyVersion,
    ) -> Result<(), store::Error> {
        let compared = {
            let window: Vec<Evaluated<'_>> = evaluations
                .range(..=version)
                .map(|(version, record)| Evaluated { version: version.0, ranks: &record.ranks })
                .collect();
            let from = window.len().checked_sub(self.options.window).map(|first| window[first].version);
            let mut steps = Vec::new();
            for step in from.map_or(0..0, |from| from..version.0) {
                let reward = store.step(Step(step))?.and_then(|record| record.row.get("reward")?.as_f64());
                steps.extend(
                    reward.map(|reward| Rewarded { version: step, reward: reward / self.reward_range }),
                );
            }
            self.options.compare(&window, &steps, self.list_length)
        };
        if let (Some(record), Some(compared)) = (evaluations.get_mut(&version), compared) {
            record.row.extend(fields(&compared));
        }
        Ok(())
    }

    /// Returns the findings of evaluations in order of version.
    pub fn findings(&self, evaluations: &BTreeMap<PolicyVersion, EvaluationRecord>) -> Findings {
        let rows: Vec<(PolicyVersion, &Row)> =
            evaluations.iter().map(|(version, record)| (*version, &record.row)).collect();
        let scores: Vec<f64> = rows.iter().map(|(_, row)| mean(row, &self.best_by).unwrap_or(0.0)).collect();
        let patience = self.options.stop_after_evaluations;
        let progress = watch::progress(&scores, patience);
        let best_before =
            |end: usize| watch::progress(&scores[..=end], 0).map_or(0, |progress| progress.best);
        let ended_by = progress.and_then(|progress| progress.stop).map(|end| {
            let (best, version) = (rows[best_before(end)].0, rows[end].0);
            let reason = format!(
                "no validation {} has been better than that of version {} for {patience} evaluations, as of version {}",
                self.best_by, best.0, version.0
            );
            (version, reason)
        });
        Findings {
            best: progress.map(|progress| (rows[progress.best].0, scores[progress.best])),
            best_by: self.best_by.clone(),
            warning: self.warning(&rows),
            ended_by,
        }
    }

    /// Returns the warning about the inflation at the last evaluation, with the values from when it began.
    fn warning(&self, rows: &[(PolicyVersion, &Row)]) -> Option<String> {
        let inflated = |row: &Row| row.get(INFLATED).and_then(Value::as_u64) == Some(1);
        let (version, row) = rows.iter().rev().take_while(|(_, row)| inflated(row)).last()?;
        let number = |name: &str| mean(row, name).unwrap_or_default();
        Some(format!(
            "the reward looks inflated since version {}: from version {} on it gained {:+.3} of its range, validation {} \
             {:+.3} (docs/guides/inflation-watch.md)",
            version.0,
            row.get(FROM).and_then(Value::as_u64).unwrap_or_default(),
            number(REWARD_GAIN),
            self.options.ranking.metric(self.list_length),
            number(RANKING_GAIN),
        ))
    }
}

fn fields(compared: &Comparison) -> [(String, Value); 5] {
    let gain = |Gain { mean, low, high }| json!({"mean": mean, "low": low, "high": high});
    [
        (FROM, json!(compared.from)),
        (REWARD_GAIN, gain(compared.reward)),
        (RANKING_GAIN, gain(compared.ranking)),
        (GAP, json!(compared.gap())),
        (INFLATED, json!(u8::from(compared.inflated))),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn mean(row: &Row, name: &str) -> Option<f64> {
    row.get(name)?.get("mean")?.as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StepRecord;

    fn watch(stop_after_evaluations: u64) -> Watch {
        let options = Options { stop_after_evaluations, window: 3, ..Options::default() };
        Watch { options, list_length: 3, reward_range: 2.0, best_by: "NDCG@3".to_owned() }
    }

    fn row(value: &Value) -> Row {
        value.as_object().unwrap().clone()
    }

    /// Returns an evaluation of 200 users, of whom `hits` are ranked first.
    fn evaluation(version: u64, hits: usize) -> (PolicyVersion, EvaluationRecord) {
        let ranks = (0..200).map(|user| (user < hits).then_some(1)).collect();
        let score = hits as f64 / 200.0;
        let row =
            row(&json!({"policy_version": version, "NDCG@3": {"mean": score, "low": 0.0, "high": 1.0}}));
        (PolicyVersion(version), EvaluationRecord { row, ranks, ..EvaluationRecord::default() })
    }

    /// Closes evaluations every 10 steps one after another, as the actor does.
    fn run(watch: &Watch, hits: &[usize], reward: impl Fn(u64) -> f64) -> Vec<Findings> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), "cafe").unwrap();
        let mut evaluations = BTreeMap::new();
        let mut findings = Vec::new();
        for (version, &hits) in (0..).step_by(10).zip(hits) {
            evaluations.extend([evaluation(version, hits)]);
            watch.note(&store, &mut evaluations, PolicyVersion(version)).unwrap();
            findings.push(watch.findings(&evaluations));
            for step in version..version + 10 {
                let row = row(&json!({"step": step + 1, "reward": reward(step)}));
                store.put_step(Step(step), &StepRecord { reported: true, row, samples: vec![] }).unwrap();
            }
        }
        findings
    }

    #[test]
    fn a_warning_keeps_its_words_while_it_holds_and_ends() {
        // The reward rises up to version 40 and then stays constant.
        let found = run(&watch(0), &[80; 8], |step| 0.4 + 0.02 * step.min(40) as f64);
        let warnings: Vec<Option<&str>> = found.iter().map(|one| one.warning.as_deref()).collect();
        assert_eq!(warnings[..2], [None, None], "three evaluations make a window");
        let warning = warnings[2].unwrap();
        assert!(warning.contains("since version 20: from version 0 on it gained +0.200"), "{warning}");
        assert!(warning.contains("NDCG@3 +0.000"), "{warning}");
        assert_eq!((warnings[3], warnings[4]), (Some(warning), Some(warning)));
        assert_eq!(warnings[7], None, "the window has left the rise behind");
    }

    #[test]
    fn a_ranking_that_follows_is_no_reason_to_warn() {
        let found = run(&watch(0), &[60, 70, 80, 90, 100], |step| 0.4 + 0.01 * step as f64);
        assert!(found.iter().all(|one| one.warning.is_none()), "{found:?}");
        assert_eq!(found[4].best, Some((PolicyVersion(40), 0.5)));
    }

    #[test]
    fn the_best_is_named_and_patience_ends_the_run_by_results_alone() {
        let hits = [60, 80, 70, 80, 75, 90, 60];
        let found = run(&watch(3), &hits, |_| 0.5);
        assert_eq!(found[3].best, Some((PolicyVersion(10), 0.4)), "of equals the earliest");
        assert_eq!(found[3].ended_by, None);
        let (version, reason) = found[4].ended_by.clone().unwrap();
        assert_eq!(version, PolicyVersion(40));
        assert!(reason.contains("version 10 for 3 evaluations, as of version 40"), "{reason}");
        assert_eq!(found[5].ended_by, found[4].ended_by, "what comes later does not take it back");
        assert_eq!(found[5].best, Some((PolicyVersion(50), 0.45)));
        assert_eq!(run(&watch(0), &hits, |_| 0.5)[6].ended_by, None);
    }
}
