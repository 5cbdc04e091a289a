//! The baselines of a run (baselines.json) and its results (finished.json).

use std::collections::BTreeMap;
use std::path::Path;

use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_proto::convert::Slot;
use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::{self, Baseline, Metric};
use podium_recsys::reward::Extremes;
use podium_recsys::synthetic::Oracle;
use podium_recsys::task;
use serde_json::{Map, Value, json};

use crate::curriculum::Curriculum;
use crate::identity::Identity;
use crate::reports::parts::parts;
use crate::reports::watch::Findings;
use crate::store::EvaluationRecord;

/// Name of the file that marks a complete run in its folder.
pub const FINISHED: &str = "finished.json";
/// A function from user index, metric and number of listed candidates to the value of the metric.
type UserValue<'a> = dyn Fn(usize, Metric, usize) -> f64 + 'a;

/// Rankings without a policy, over the same users and candidates as every evaluation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Baselines {
    /// The evaluated part.
    part: HeldOut,
    /// The lowest and the highest reward of an answer.
    reward_range: (f64, f64),
    random: Map<String, Value>,
    popularity: Map<String, Value>,
    item_knn: Map<String, Value>,
    best_possible: Option<Map<String, Value>>,
}

impl Baselines {
    /// Computes the baselines of the first `users` users of the evaluated part. If evaluations rank by `likelihood`,
    /// includes rankings of all candidates. `oracle` is the source of the best possible ranking, if it is
    /// known.
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
        let questions: Vec<Question<'_>> = cases
            .iter()
            .map(|case| Question { history: &case.history, candidates: &case.candidates })
            .collect();
        let ranks = |baseline: Baseline| -> Vec<Option<usize>> {
            let rankings = baseline.rank(task.dataset(), &questions);
            cases
                .iter()
                .zip(rankings)
                .map(|(case, ranking)| ranking::rank_of(case.target, &ranking))
                .collect()
        };
        let (popular, near) = (ranks(Baseline::Popularity), ranks(Baseline::ItemKnn));
        let candidates = cases.iter().map(|case| case.candidates.len()).max().filter(|_| likelihood);
        let parts = parts(cases.iter().map(|case| case.target), &task.dataset().catalogue);
        let all_users: Vec<usize> = (0..cases.len()).collect();
        // `value` is used for all users, `in_part` for the users of a part.
        let table = |value: &UserValue<'_>, in_part: &UserValue<'_>| -> Map<String, Value> {
            if cases.is_empty() {
                return Map::new();
            }
            let average = |users: &[usize], value: &UserValue<'_>, metric: Metric, listed: usize| {
                let sum: f64 = users.iter().map(|&user| value(user, metric, listed)).sum();
                json!(sum / users.len().max(1) as f64)
            };
            let listed = super::evaluation::metrics(list_length);
            let of_all = listed
                .iter()
                .map(|&metric| (metric.to_string(), average(&all_users, value, metric, list_length)));
            let of_parts = parts.iter().flat_map(|part| {
                let named = |&metric: &Metric| {
                    (part.named(metric), average(part.members(), in_part, metric, list_length))
                };
                listed.iter().map(named).collect::<Vec<_>>()
            });
            let by_likelihood = candidates.into_iter().flat_map(|candidates| {
                let named = |metric: Metric| format!("{}{metric}", super::likelihood::PREFIX);
                super::likelihood::metrics(candidates)
                    .into_iter()
                    .map(|metric| (named(metric), average(&all_users, value, metric, candidates)))
                    .collect::<Vec<_>>()
            });
            of_all.chain(of_parts).chain(by_likelihood).collect()
        };
        let within = |ranks: &[Option<usize>]| {
            let ranks = ranks.to_vec();
            move |user: usize, metric: Metric, listed: usize| {
                metric.value(ranks[user].filter(|rank| *rank <= listed))
            }
        };
        let by_chance =
            |user: usize, metric: Metric, listed: usize| metric.random(cases[user].candidates.len(), listed);
        let Extremes { best: best_reward, worst, .. } = task.rewards().extremes();
        Ok(Self {
            part: curriculum.part(),
            reward_range: (worst.1, best_reward.1),
            random: table(&by_chance, &by_chance),
            popularity: table(&within(&popular), &within(&popular)),
            item_knn: table(&within(&near), &within(&near)),
            // For all users the expected value is known. A part is selected by its targets, so there the
            // ranks of the actual targets are used.
            best_possible: best.map(|best| {
                let reached: Vec<Option<usize>> = cases
                    .iter()
                    .zip(&best)
                    .map(|(case, best)| ranking::rank_of(case.target, &best.ranking))
                    .collect();
                let expected =
                    |user: usize, metric: Metric, listed: usize| best[user].expected(metric, listed);
                table(&expected, &within(&reached))
            }),
        })
    }

    /// Returns the evaluated part of the data set.
    pub const fn part(&self) -> HeldOut {
        self.part
    }

    fn to_json(&self) -> Value {
        json!({
            "part": self.part,
            "random": self.random,
            "popularity": self.popularity,
            "item_knn": self.item_knn,
            "best_possible": self.best_possible,
            "reward_range": self.reward_range,
        })
    }

    /// Writes baselines.json.
    pub fn write(&self, folder: &Path) -> Result<(), durable::Error> {
        write(&folder.join("baselines.json"), &self.to_json())
    }
}

/// The results of a complete run.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Number of completed steps.
    pub steps: u64,
    /// The reason why the run ended before all its steps, if it did.
    pub ended: Option<&'a str>,
    /// All evaluations.
    pub evaluations: &'a BTreeMap<PolicyVersion, EvaluationRecord>,
    /// Versions whose evaluation is abandoned, with the reason of each.
    pub abandoned: &'a BTreeMap<PolicyVersion, String>,
    /// The findings of the evaluations.
    pub findings: &'a Findings,
}

/// Writes finished.json: the evaluations of the first, the last and the best version, with the baselines.
pub fn write_finished(
    folder: &Path,
    run: &Identity,
    finished: &Finished<'_>,
    baselines: &Baselines,
) -> Result<(), durable::Error> {
    let Finished { steps, ended, evaluations, abandoned, findings } = *finished;
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
        "not_evaluated": abandoned,
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
