//! What a run is measured against (baselines.json), and what it came to (finished.json).

use std::collections::BTreeMap;
use std::path::Path;

use podium_grpo::PolicyVersion;
use podium_proto::convert::Slot;
use podium_recsys::ranking::{self, Metric};
use podium_recsys::reward::Extremes;
use podium_recsys::synthetic::Oracle;
use podium_recsys::task;
use podium_runtime::durable;
use serde_json::{Map, Value, json};

use crate::curriculum::Curriculum;
use crate::identity::Identity;
use crate::reports::watch::Findings;
use crate::store::EvaluationRecord;

/// Name of the file that a complete run leaves in its folder.
pub const FINISHED: &str = "finished.json";

/// Rankings without a policy, over the same users and candidates as every evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Baselines {
    /// The least and the most that an answer can earn.
    reward_range: (f64, f64),
    random: Map<String, Value>,
    popularity: Map<String, Value>,
    best_possible: Option<Map<String, Value>>,
}

impl Baselines {
    /// The baselines over the first `users` held-out users, of rankings of all candidates too where evaluations rank by
    /// `likelihood`. `oracle` knows what is best, where anybody does.
    pub fn of(
        curriculum: &Curriculum,
        users: u32,
        likelihood: bool,
        oracle: Option<&Oracle>,
    ) -> Result<Self, task::Error> {
        let task = curriculum.task();
        let list_length = task.answer().list_length;
        let version = PolicyVersion::START;
        let slots = (0..users).map(|index| Slot::Evaluation { version, index });
        let cases = slots.map(|slot| curriculum.case(slot)).collect::<Result<Vec<_>, _>>()?;
        let best = oracle.map(|oracle| {
            cases.iter().map(|case| oracle.best(&case.history, &case.candidates)).collect::<Vec<_>>()
        });
        let popular: Vec<Option<usize>> = cases
            .iter()
            .map(|case| {
                let ranking = ranking::by_popularity(&case.candidates, &task.dataset().catalogue);
                ranking::rank_of(case.target, &ranking)
            })
            .collect();
        let candidates = cases.iter().map(|case| case.candidates.len()).max().filter(|_| likelihood);
        // What a metric is for those who list so many candidates.
        let table = |value: &dyn Fn(Metric, usize) -> f64| -> Map<String, Value> {
            let listed = super::evaluation::metrics(list_length).into_iter();
            let listed = listed.map(|metric| (metric.to_string(), json!(value(metric, list_length))));
            let all = candidates.into_iter().flat_map(|candidates| {
                let named = |metric: Metric| format!("{}{metric}", super::likelihood::PREFIX);
                let metrics = super::likelihood::metrics(candidates).into_iter();
                metrics.map(move |metric| (named(metric), json!(value(metric, candidates))))
            });
            listed.chain(all).collect()
        };
        let average = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / cases.len().max(1) as f64;
        let Extremes { best: best_reward, worst, .. } = task.rewards().extremes();
        Ok(Self {
            reward_range: (worst.1, best_reward.1),
            random: table(&|metric, listed| {
                average(&mut cases.iter().map(|case| metric.random(case.candidates.len(), listed)))
            }),
            popularity: table(&|metric, listed| {
                let within = |rank: &Option<usize>| metric.value(rank.filter(|rank| *rank <= listed));
                average(&mut popular.iter().map(within))
            }),
            best_possible: best.map(|best| {
                table(&|metric, listed| average(&mut best.iter().map(|best| best.expected(metric, listed))))
            }),
        })
    }

    fn to_json(&self) -> Value {
        json!({
            "random": self.random,
            "popularity": self.popularity,
            "best_possible": self.best_possible,
            "reward_range": self.reward_range,
        })
    }

    /// Writes baselines.json.
    pub fn write(&self, folder: &Path) -> Result<(), durable::Error> {
        write(&folder.join("baselines.json"), &self.to_json())
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// Steps made.
    pub steps: u64,
    /// Why the run ended before all its steps, if it did.
    pub ended: Option<&'a str>,
    /// All evaluations.
    pub evaluations: &'a BTreeMap<PolicyVersion, EvaluationRecord>,
    /// Versions that were not evaluated, with the reason of each.
    pub lost: &'a BTreeMap<PolicyVersion, String>,
    /// What the evaluations come to.
    pub findings: &'a Findings,
}

/// Writes finished.json: the evaluations of the first, the last and the best version beside the baselines.
pub fn write_finished(
    folder: &Path,
    run: &Identity,
    outcome: &Outcome<'_>,
    baselines: &Baselines,
) -> Result<(), durable::Error> {
    let Outcome { steps, ended, evaluations, lost, findings } = *outcome;
    let best = findings.best.and_then(|(version, _)| evaluations.get(&version));
    let mut summary = json!({
        "run_id": run.run_id.to_string(),
        "run_name": run.run_name,
        "steps": steps,
        "start": evaluations.values().next().map(|record| &record.row),
        "end": evaluations.values().next_back().map(|record| &record.row),
        "best": best.map(|record| &record.row),
        "best_by": findings.best_by,
        "ended_early": ended,
        "not_evaluated": lost,
        "warning": findings.warning,
    });
    if let (Some(summary), Value::Object(baselines)) = (summary.as_object_mut(), baselines.to_json()) {
        summary.extend(baselines);
    }
    write(&folder.join(FINISHED), &summary)
}

fn write(path: &Path, value: &Value) -> Result<(), durable::Error> {
    durable::write(path, format!("{value:#}\n").as_bytes())
}
