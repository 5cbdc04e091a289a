//! Computes metrics from the answers of all parts.

use podium_recsys::candidates::Negatives;
use podium_recsys::ranking::probes::user_means;
use podium_recsys::ranking::{Baseline, Metric, estimate_values, slices};
use podium_recsys::synthetic::{Best, Oracle};
use serde_json::{Value, json};

use crate::error::Error;
use crate::metric_value::{MetricValue, name_and_cut};
use crate::plan::Plan;
use crate::ranked::{Answers, Ranked, Ranking, Table};
use crate::{comparisons, probes};

/// Number of slices of each kind.
const SLICES: usize = 3;

/// The results of an evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// The parts whose answers were read.
    pub plan: Plan,
    /// Tables by number of negatives, in the requested order.
    pub tables: Vec<Table>,
    /// All metrics, in the order of metrics.csv.
    pub values: Vec<MetricValue>,
}

/// Some of the users.
struct Group {
    name: String,
    members: Vec<usize>,
}

impl Evaluation {
    /// Reads the answers of all parts and computes every metric.
    pub fn of(plan: Plan) -> Result<Self, Error> {
        let negatives = &plan.asked.negatives;
        let tables =
            negatives.iter().map(|&negatives| table(&plan, negatives)).collect::<Result<Vec<_>, _>>()?;
        let mut evaluation = Self { values: Vec::new(), tables, plan };
        let groups = evaluation.groups();
        // The oracle assumes uniformly sampled negatives.
        let even = evaluation.plan.run.candidates.negatives == Negatives::Uniform;
        let data = evaluation.plan.run.data.dir.as_deref().filter(|_| even);
        let oracle = data.map(Oracle::open).transpose()?.flatten();
        for table in &evaluation.tables {
            let (plan, values) = (&evaluation.plan, &mut evaluation.values);
            for ranked in &table.ranked {
                metrics(plan, table.negatives, ranked, &groups, values);
            }
            best_possible(plan, table, oracle.as_ref(), values);
            comparisons::add(plan, table, values);
            probes::add(plan, table, values);
        }
        Ok(evaluation)
    }

    /// Slices by the target's number of training interactions, and by the length of the history.
    fn groups(&self) -> Vec<Group> {
        let users = self.plan.users();
        let catalogue = &self.plan.dataset.catalogue;
        let taken = users.iter().map(|user| catalogue.get(user.target()).map_or(0, |item| item.interactions));
        let before = users.iter().map(|user| user.items.len() as u64 - 1);
        let kinds: [(&str, Vec<u64>); 2] =
            [("target_interactions", taken.collect()), ("history_length", before.collect())];
        let cut = |(by, numbers): (&'static str, Vec<u64>)| {
            slices(&numbers, SLICES).into_iter().map(move |slice| Group {
                name: format!("{by} {}-{}", slice.range.start(), slice.range.end()),
                members: slice.members,
            })
        };
        kinds.into_iter().flat_map(cut).collect()
    }

    /// Returns the metrics that satisfy a condition.
    pub fn find(&self, wanted: impl Fn(&MetricValue) -> bool) -> impl Iterator<Item = &MetricValue> {
        self.values.iter().filter(move |value| wanted(value))
    }

    /// Returns the content of evaluation.json: everything except the individual users.
    pub fn to_json(&self) -> Value {
        let Plan { asked, policies, data, run, trained, .. } = &self.plan;
        json!({
            "key": self.plan.key(),
            "version": env!("CARGO_PKG_VERSION"),
            "run": run.run.name,
            "data": data,
            "part": asked.part,
            "validation": self.plan.dataset.validation_source,
            "users": self.plan.users().len(),
            "negatives_drawn": run.candidates.negatives,
            "seed": run.candidates.evaluation_seed,
            "draws": asked.draws,
            "reversed_draws": asked.reversed.min(asked.draws),
            "policies": policies.iter().map(|policy| json!({
                "name": policy.name,
                "folder": policy.folder,
            })).collect::<Vec<_>>(),
            "baselines": trained.as_ref().map(|trained| json!({
                "folder": trained.folder,
                "seed": trained.manifest.seed,
                "models": trained.manifest.models,
            })),
            "parts": self.plan.parts.iter().map(|part| json!({
                "policy": policies[part.policy].name,
                "negatives": part.negatives,
                "draw": part.draw,
                "reversed": part.reversed,
                "answers": self.plan.answers(part),
            })).collect::<Vec<_>>(),
            "ties": "in the order of the candidate list, which is random",
            "intervals": "95 %, percentile bootstrap over users, each with the mean over the candidate samples",
            "p_values": "two-sided randomisation test over users; of positions: against uniform positions",
            "metrics": self.values,
        })
    }
}

fn table(plan: &Plan, negatives: usize) -> Result<Table, Error> {
    let of_policy = |policy: usize| -> Result<Answers, Error> {
        let some = |reversed: bool| {
            let some = plan.parts.iter().filter(move |part| {
                (part.policy, part.negatives, part.reversed) == (policy, negatives, reversed)
            });
            some.map(|part| plan.read(part)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Answers { draws: some(false)?, reversed: some(true)? })
    };
    let answers = (0..plan.policies.len()).map(of_policy).collect::<Result<Vec<_>, _>>()?;
    check_same_candidates(&answers, negatives)?;
    let mut ranked = Vec::new();
    for (policy, answers) in plan.policies.iter().zip(&answers) {
        if plan.asked.generated {
            ranked.push(Ranked::generated(&policy.name, answers, plan.run.answer.list_length));
        }
        if plan.asked.likelihood {
            ranked.push(Ranked::by_likelihood(&policy.name, answers));
        }
    }
    if let Some(answers) = answers.first() {
        let baselines =
            Baseline::ALL.map(|baseline| Ranked::baseline(baseline, &plan.dataset, plan.users(), answers));
        ranked.extend(baselines);
        if let Some(trained) = &plan.trained {
            for model in 0..trained.manifest.models.len() {
                ranked.push(Ranked::trained(trained, model, &plan.dataset, plan.users(), answers)?);
            }
        }
    }
    Ok(Table { negatives, answers, ranked })
}

/// Checks that all policies answered the same lists, since comparisons would otherwise be invalid.
fn check_same_candidates(answers: &[Answers], negatives: usize) -> Result<(), Error> {
    for pair in answers.windows(2) {
        for (draw, (one, other)) in (0..).zip(pair[0].draws.iter().zip(&pair[1].draws)) {
            if one.iter().zip(other).any(|(one, other)| one.candidates != other.candidates) {
                return Err(Error::OtherCandidates { negatives, draw });
            }
        }
    }
    Ok(())
}

/// Metrics over all users and over each group.
fn metrics(plan: &Plan, negatives: usize, ranked: &Ranked, groups: &[Group], values: &mut Vec<MetricValue>) {
    let seed = plan.run.candidates.evaluation_seed;
    let (metrics, ranks) = (ranked.metrics(&plan.asked.at), ranked.ranks());
    let value = |(&metric, estimate)| {
        let (name, k) = name_and_cut(metric);
        MetricValue::new(ranked.who(), negatives, name, k, estimate)
    };
    values.extend(metrics.iter().zip(ranks.estimates(&metrics, seed)).map(value));
    for Group { name, members } in groups {
        let estimates = ranks.of(members).estimates(&metrics, seed);
        let sliced = metrics.iter().zip(estimates).map(value);
        values.extend(sliced.map(|value| MetricValue { slice: name.clone(), ..value }));
    }
}

/// Adds the best possible expected values, if the data set's probabilities are known.
fn best_possible(plan: &Plan, table: &Table, oracle: Option<&Oracle>, values: &mut Vec<MetricValue>) {
    let (Some(oracle), Some(answers)) = (oracle, table.answers.first()) else { return };
    let best: Vec<Vec<Best>> = answers
        .draws
        .iter()
        .map(|draw| {
            let asked = plan.users().iter().zip(draw);
            asked.map(|(user, answer)| oracle.best(plan.dataset.history(user), &answer.candidates)).collect()
        })
        .collect();
    let candidates = table.negatives + 1;
    let metrics = Metric::at(&plan.asked.at, candidates).into_iter().chain([Metric::ReciprocalRank]);
    for metric in metrics {
        let means = user_means(&best, |best| Some([best.expected(metric, candidates)]));
        let (name, k) = name_and_cut(metric);
        let estimate = estimate_values(&means, plan.run.candidates.evaluation_seed).pop();
        values.extend(estimate.map(|estimate| {
            MetricValue::new(("best possible", Ranking::Baseline), table.negatives, name, k, estimate).plain()
        }));
    }
}

#[cfg(test)]
mod tests {
    use podium_recsys::ItemId;
    use podium_recsys::completion::Form;

    use super::*;
    use crate::ranked::tests::answer;

    #[test]
    fn different_candidates_are_an_error() {
        let answers = |candidates: [u64; 4]| {
            let mut one = answer(1, Form::WellFormed, &[0]);
            one.candidates = candidates.map(ItemId).into();
            Answers { draws: vec![vec![answer(1, Form::WellFormed, &[0])], vec![one]], reversed: vec![] }
        };
        check_same_candidates(&[answers([0, 1, 2, 3]), answers([0, 1, 2, 3])], 3).unwrap();
        let error = check_same_candidates(&[answers([0, 1, 2, 3]), answers([0, 1, 3, 2])], 3).unwrap_err();
        assert!(matches!(error, Error::OtherCandidates { negatives: 3, draw: 1 }));
    }
}
