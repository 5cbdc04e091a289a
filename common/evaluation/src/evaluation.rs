//! Computes metrics from the answers of all parts.

use podium_recsys::candidates::Negatives;
use podium_recsys::ranking::probes::{First, Placed, user_means};
use podium_recsys::ranking::{BeyondAccuracy, CatalogueAnswer, Distance, Metric, estimate_values};
use podium_recsys::synthetic::{Best, Oracle};
use podium_recsys::{ItemId, User};
use serde_json::{Value, json};

use crate::error::Error;
use crate::groups::{self, Group};
use crate::lists::Lists;
use crate::metric_value::{MetricValue, name_and_cut};
use crate::plan::Plan;
use crate::ranked::{Answers, Ranked, Ranking, Table};
use crate::rankers::{Asked, Rankers};
use crate::{beyond, comparisons, probes};

/// The results of an evaluation.
#[derive(Debug)]
pub struct Evaluation {
    /// The parts whose answers were read.
    pub plan: Plan,
    /// Tables by number of negatives, in the requested order, then that of the whole catalogue.
    pub tables: Vec<Table>,
    /// All metrics, in the order of metrics.csv.
    pub values: Vec<MetricValue>,
}

impl Evaluation {
    /// Reads the answers of all parts and computes every metric.
    pub fn of(plan: Plan) -> Result<Self, Error> {
        let negatives = &plan.asked.negatives;
        let mut tables =
            negatives.iter().map(|&negatives| table(&plan, negatives)).collect::<Result<Vec<_>, _>>()?;
        if plan.asked.catalogue {
            tables.push(catalogue_table(&plan)?);
        }
        let mut evaluation = Self { values: Vec::new(), tables, plan };
        let users: Vec<&User> = evaluation.plan.users().iter().collect();
        let groups = groups::groups(&evaluation.plan.dataset, &users);
        let beyond = BeyondAccuracy::new(&evaluation.plan.dataset);
        // The oracle assumes uniformly sampled negatives.
        let even = evaluation.plan.drawn() == Negatives::Uniform;
        let data = evaluation.plan.run.data.dir.as_deref().filter(|_| even);
        let oracle = data.map(Oracle::open).transpose()?.flatten();
        for table in &evaluation.tables {
            let (plan, values) = (&evaluation.plan, &mut evaluation.values);
            for ranked in &table.ranked {
                metrics(plan, table.lists, ranked, &groups, values);
            }
            beyond::add(plan, table, &beyond, values);
            best_possible(plan, table, oracle.as_ref(), values);
            comparisons::add(plan, table, values);
            probes::add(plan, table, values);
        }
        Ok(evaluation)
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
            "protocols": asked.protocols,
            "negatives_drawn": self.plan.drawn(),
            "distance": Distance::of(&self.plan.dataset),
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
                "negatives": part.lists,
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
                (part.policy, part.lists, part.reversed) == (policy, Lists::Sampled(negatives), reversed)
            });
            some.map(|part| plan.read(part)).collect::<Result<Vec<_>, _>>()
        };
        Ok(Answers { draws: some(false)?, reversed: some(true)? })
    };
    let answers = (0..plan.policies.len()).map(of_policy).collect::<Result<Vec<_>, _>>()?;
    check_same_candidates(&answers, negatives)?;
    let depth = plan.depth();
    let mut ranked = Vec::new();
    for (policy, answers) in plan.policies.iter().zip(&answers) {
        if plan.asked.generated {
            ranked.push(Ranked::generated(&policy.name, answers, plan.run.answer.list_length, depth));
        }
        if plan.asked.likelihood {
            ranked.push(Ranked::by_likelihood(&policy.name, answers, depth));
        }
    }
    if let Some(answers) = answers.first() {
        let asked = asked(plan);
        let lists: Vec<&[ItemId]> =
            answers.draws.iter().flatten().map(|answer| answer.candidates.as_slice()).collect();
        let baselines = rankers(plan).rank(&asked, &lists)?;
        let baseline = |named| Ranked::baseline(named, asked.len(), answers.candidates());
        ranked.extend(baselines.into_iter().map(baseline));
    }
    Ok(Table { lists: Lists::Sampled(negatives), answers, ranked })
}

/// Returns the table of all items outside each user's whole history.
fn catalogue_table(plan: &Plan) -> Result<Table, Error> {
    let (items, depth) = (plan.dataset.catalogue.len(), plan.depth());
    let mut ranked = Vec::new();
    for part in plan.parts.iter().filter(|part| part.lists == Lists::Catalogue) {
        let placed = |CatalogueAnswer { rank, mut top, .. }: CatalogueAnswer| {
            top.truncate(depth);
            // The position in a list without an order that a policy reads is never used.
            let first = top.first().map(|&item| First { item, position: 0 });
            Placed { rank: Some(rank), first, top }
        };
        let placed = plan.read_catalogue(part)?.into_iter().map(placed).collect();
        ranked.push(Ranked::of_catalogue(&plan.policies[part.policy].name, placed, items));
    }
    let asked = asked(plan);
    let baselines = rankers(plan).rank_catalogue(&asked, plan.run.candidates.evaluation_seed)?;
    ranked.extend(baselines.into_iter().map(|named| Ranked::baseline(named, asked.len(), items)));
    Ok(Table { lists: Lists::Catalogue, answers: Vec::new(), ranked })
}

fn rankers(plan: &Plan) -> Rankers<'_> {
    Rankers { dataset: &plan.dataset, trained: plan.trained.as_ref(), depth: plan.depth() }
}

/// Returns the evaluated users with their positions in the data set.
fn asked(plan: &Plan) -> Vec<Asked<'_>> {
    plan.users().iter().enumerate().collect()
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
fn metrics(plan: &Plan, lists: Lists, ranked: &Ranked, groups: &[Group], values: &mut Vec<MetricValue>) {
    let seed = plan.run.candidates.evaluation_seed;
    let (metrics, ranks) = (ranked.metrics(&plan.asked.at), ranked.ranks());
    let value = |(&metric, estimate)| {
        let (name, k) = name_and_cut(metric);
        MetricValue::new(ranked.who(), lists, name, k, estimate)
    };
    values.extend(metrics.iter().zip(ranks.estimates(&metrics, seed)).map(value));
    for group in groups {
        let estimates = ranks.of(&group.slice.members).estimates(&metrics, seed);
        let sliced = metrics.iter().zip(estimates).map(value);
        values.extend(sliced.map(|value| MetricValue { slice: group.name(), ..value }));
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
    let candidates = answers.candidates();
    let metrics = Metric::at(&plan.asked.at, candidates).into_iter().chain([Metric::ReciprocalRank]);
    for metric in metrics {
        let means = user_means(&best, |best| Some([best.expected(metric, candidates)]));
        let (name, k) = name_and_cut(metric);
        let estimate = estimate_values(&means, plan.run.candidates.evaluation_seed).pop();
        values.extend(estimate.map(|estimate| {
            MetricValue::new(("best possible", Ranking::Baseline), table.lists, name, k, estimate).plain()
        }));
    }
}

#[cfg(test)]
mod tests {
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
