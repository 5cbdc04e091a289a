//! What a completion earns.
//!
//! A reward is a weighted sum of named terms, each a function of the completion's [`Form`] and of where it ranks the
//! target. Every term is **gated**: a malformed answer earns 0 in it, however well it ranks.
//!
//! | term | value of a well-formed answer with the target at `rank` (∞ if it is not listed) |
//! |---|---|
//! | `form` | 1 |
//! | `hit` | 1 if rank ≤ k, else 0 |
//! | `ndcg` | 1 / log₂(rank + 1) if rank ≤ k, else 0 |
//! | `reciprocal_rank` | 1 / rank |
//!
//! Before a run starts, [`check`] proves of the set of terms, over all outcomes there are, that no malformed answer
//! earns as much as a well-formed one, that no wrong ranking earns as much as the right one, and that moving the target
//! down never pays. A policy cannot then gain by answering invalidly, and the best it can do is to reason, rank the
//! target first and list what was asked for.

mod rank;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use rank::Lists;
pub use rank::{ItemCredit, ItemReward};

use crate::completion::{self, Form, Parsed, Standing};
use crate::ids::ItemId;
use crate::ranking::Metric;

/// What completions earn: `[reward]` of the run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The terms whose weighted sum is the reward.
    pub terms: Vec<Term>,
    /// What each listed item earns where `grpo.credit` is `rank`.
    pub rank_credit: ItemCredit,
    /// How much less an item at fault earns there than the least of a well-formed answer: see docs/rewards.md. Above 0.
    pub item_penalty: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            terms: vec![
                Term { name: Name::Form, k: None, weight: 0.1 },
                Term { name: Name::Hit, k: Some(1), weight: 0.5 },
                Term { name: Name::Ndcg, k: Some(3), weight: 0.5 },
            ],
            rank_credit: ItemCredit::default(),
            item_penalty: 0.5,
        }
    }
}

/// One term of the reward: `[[reward.terms]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// Which term.
    pub name: Name,
    /// For `hit` and `ndcg`: down to which rank the target counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
    /// What its value is multiplied by.
    #[serde(default = "one")]
    pub weight: f64,
}

const fn one() -> f64 {
    1.0
}

/// The terms there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    /// 1 for a well-formed answer.
    Form,
    /// 1 if the target is among the first k.
    Hit,
    /// 1 / log₂(rank + 1) if the target is among the first k.
    Ndcg,
    /// 1 / rank if the target is listed.
    ReciprocalRank,
}

/// Why a set of terms is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to earn.
    #[error("`reward.terms` is empty, expected at least one term")]
    NoTerms,
    /// A weight that is no number.
    #[error("`reward.terms`: the weight of `{term}` is {weight}, expected a finite number")]
    Weight {
        /// The term.
        term: String,
        /// Its weight.
        weight: f64,
    },
    /// Malformed items would earn what others do, or more.
    #[error("`reward.item_penalty` is {0}, expected a finite number above 0")]
    ItemPenalty(f64),
    /// `k` is missing or out of range.
    #[error("`reward.terms`: `{name:?}` needs `k` between 1 and the list length {list_length}, found {k:?}")]
    K {
        /// The term.
        name: Name,
        /// What was given.
        k: Option<usize>,
        /// The longest list there is.
        list_length: usize,
    },
    /// `k` is given where it means nothing.
    #[error("`reward.terms`: `{0:?}` takes no `k`")]
    NoK(Name),
    /// A term stands there twice.
    #[error("`reward.terms`: `{0}` stands there twice; expected each term once")]
    Twice(String),
    /// An outcome earns too much.
    #[error(
        "the reward is refused: {worse} earns {worse_total:.4}, {better} earns {better_total:.4}; expected {rule}"
    )]
    Order {
        /// The outcome that must earn less.
        worse: Outcome,
        /// What it earns.
        worse_total: f64,
        /// The outcome that must earn more.
        better: Outcome,
        /// What it earns.
        better_total: f64,
        /// What must hold.
        rule: &'static str,
    },
}

/// What of a completion its reward depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The completion's shape.
    pub form: Form,
    /// Where the list has the target, from 1; also of a malformed answer that lists it.
    pub target_rank: Option<usize>,
}

impl Outcome {
    /// The outcome of a completion when `target` was to be ranked first.
    pub fn of(parsed: &Parsed<'_>, target: ItemId) -> Self {
        let at_target =
            |listed: &completion::Listed<'_>| listed.item == target && listed.standing == Standing::Candidate;
        let target_rank = parsed.ranking.iter().position(at_target).map(|place| place + 1);
        Self { form: parsed.form, target_rank }
    }

    /// The rank that ranking metrics count: none if the answer is malformed.
    pub fn scored_rank(&self) -> Option<usize> {
        self.target_rank.filter(|_| self.form.is_well_formed())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.target_rank {
            Some(rank) => write!(f, "a {} answer with the target at rank {rank}", self.form),
            None => write!(f, "a {} answer without the target", self.form),
        }
    }
}

/// What a completion earned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The weighted sum.
    pub total: f64,
    /// The terms before weighting, in the order of [`Rewards::names`].
    pub parts: Vec<f64>,
}

/// A checked set of terms.
#[derive(Debug, Clone)]
pub struct Rewards {
    terms: Vec<(Value, f64)>,
    names: Vec<String>,
    list_length: usize,
    rank_credit: ItemCredit,
    item_penalty: f64,
}

/// How a term is computed.
#[derive(Debug, Clone, Copy)]
enum Value {
    Form,
    Ranking(Metric),
}

impl Value {
    fn of(self, outcome: &Outcome) -> f64 {
        match self {
            Self::Form => f64::from(outcome.form.is_well_formed()),
            Self::Ranking(metric) => metric.value(outcome.scored_rank()),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Form => "form".to_owned(),
            Self::Ranking(Metric::Hit(k)) => format!("hit@{k}"),
            Self::Ranking(Metric::Ndcg(k)) => format!("ndcg@{k}"),
            Self::Ranking(Metric::ReciprocalRank) => "reciprocal_rank".to_owned(),
        }
    }
}

impl Rewards {
    /// The reward of `options` for answers that should look like `answer`, if it passes [`check`].
    pub fn new(options: &Options, answer: &completion::Options) -> Result<Self, Error> {
        let list_length = answer.list_length;
        let terms: Vec<(Value, f64)> = options
            .terms
            .iter()
            .map(|term| Ok((value(term, list_length)?, term.weight)))
            .collect::<Result<_, Error>>()?;
        let names: Vec<String> = terms.iter().map(|(value, _)| value.name()).collect();
        if terms.is_empty() {
            return Err(Error::NoTerms);
        }
        for (at, (name, &(_, weight))) in names.iter().zip(&terms).enumerate() {
            if !weight.is_finite() {
                return Err(Error::Weight { term: name.clone(), weight });
            }
            if names[..at].contains(name) {
                return Err(Error::Twice(name.clone()));
            }
        }
        let Options { rank_credit, item_penalty, .. } = *options;
        if !(item_penalty.is_finite() && item_penalty > 0.0) {
            return Err(Error::ItemPenalty(item_penalty));
        }
        let rewards = Self { terms, names, list_length, rank_credit, item_penalty };
        check(&rewards)?;
        Ok(rewards)
    }

    /// Names of the terms, as in the metrics `rewards/<name>/mean`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Weights of the terms, in the order of [`Self::names`].
    pub fn weights(&self) -> Vec<f64> {
        self.terms.iter().map(|&(_, weight)| weight).collect()
    }

    /// What `outcome` earns.
    pub fn score(&self, outcome: &Outcome) -> Score {
        let parts: Vec<f64> = self.terms.iter().map(|(value, _)| value.of(outcome)).collect();
        let total = parts.iter().zip(&self.terms).map(|(part, (_, weight))| part * weight).sum();
        Score { total, parts }
    }

    /// What each item of a completion's list earns, for credit by rank; `candidates`: how many there were.
    pub fn items(&self, parsed: &Parsed<'_>, target: ItemId, candidates: usize) -> Vec<ItemReward> {
        let lists = Lists { length: self.list_length, candidates };
        self.rank_credit.rewards(parsed, target, lists, self.item_penalty)
    }

    /// The most that can be earned: a well-formed answer with the target first.
    pub fn best(&self) -> f64 {
        self.score(&Outcome { form: Form::WellFormed, target_rank: Some(1) }).total
    }
}

fn value(term: &Term, list_length: usize) -> Result<Value, Error> {
    let k = || match term.k {
        Some(k) if (1..=list_length).contains(&k) => Ok(k),
        k => Err(Error::K { name: term.name, k, list_length }),
    };
    let value = match term.name {
        Name::Hit => Value::Ranking(Metric::Hit(k()?)),
        Name::Ndcg => Value::Ranking(Metric::Ndcg(k()?)),
        Name::Form | Name::ReciprocalRank if term.k.is_some() => return Err(Error::NoK(term.name)),
        Name::Form => Value::Form,
        Name::ReciprocalRank => Value::Ranking(Metric::ReciprocalRank),
    };
    Ok(value)
}

/// Proves the order of outcomes that the module describes, by trying all of them.
pub fn check(rewards: &Rewards) -> Result<(), Error> {
    let ranks = || (1..=rewards.list_length).map(Some).chain([None]);
    let well_formed: Vec<Outcome> =
        ranks().map(|target_rank| Outcome { form: Form::WellFormed, target_rank }).collect();
    let malformed = Form::ALL
        .into_iter()
        .filter(|form| !form.is_well_formed())
        .flat_map(|form| ranks().map(move |target_rank| Outcome { form, target_rank }));

    for bad in malformed {
        for good in &well_formed {
            demand(rewards, bad, *good, f64::lt, "a malformed answer to earn less than any well-formed one")?;
        }
    }
    let [right, wrong @ ..] = well_formed.as_slice() else { return Ok(()) };
    for miss in wrong {
        demand(rewards, *miss, *right, f64::lt, "a wrong ranking to earn less than the right one")?;
    }
    for pair in well_formed.windows(2) {
        demand(
            rewards,
            pair[1],
            pair[0],
            f64::le,
            "a lower rank of the target to earn no more than a higher one",
        )?;
    }
    Ok(())
}

fn demand(
    rewards: &Rewards,
    worse: Outcome,
    better: Outcome,
    holds: fn(&f64, &f64) -> bool,
    rule: &'static str,
) -> Result<(), Error> {
    let (worse_total, better_total) = (rewards.score(&worse).total, rewards.score(&better).total);
    if holds(&worse_total, &better_total) {
        Ok(())
    } else {
        Err(Error::Order { worse, worse_total, better, better_total, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewards(terms: Vec<Term>) -> Result<Rewards, Error> {
        Rewards::new(&Options { terms, ..Options::default() }, &completion::Options::default())
    }

    fn term(name: Name, k: Option<usize>, weight: f64) -> Term {
        Term { name, k, weight }
    }

    fn outcome(form: Form, target_rank: Option<usize>) -> Outcome {
        Outcome { form, target_rank }
    }

    #[test]
    fn the_default_orders_outcomes() {
        let rewards = Rewards::new(&Options::default(), &completion::Options::default()).unwrap();
        assert_eq!(rewards.names(), ["form", "hit@1", "ndcg@3"]);
        let total = |form, rank| rewards.score(&outcome(form, rank)).total;
        assert!((total(Form::WellFormed, Some(1)) - 1.1).abs() < 1e-12);
        assert!((rewards.best() - 1.1).abs() < 1e-12);
        assert!((total(Form::WellFormed, Some(3)) - 0.35).abs() < 1e-12);
        assert!((total(Form::WellFormed, None) - 0.1).abs() < 1e-12);
        assert!(total(Form::NoThinking, Some(1)).abs() < 1e-12);
        let score = rewards.score(&outcome(Form::WellFormed, Some(2)));
        for (part, expected) in score.parts.iter().zip([1.0, 0.0, 1.0 / 3_f64.log2()]) {
            assert!((part - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn rewards_that_pay_for_the_wrong_thing_are_refused() {
        // Without a form term a well-formed miss earns what a malformed answer does.
        let no_form = rewards(vec![term(Name::Ndcg, Some(3), 1.0)]);
        assert!(matches!(
            no_form,
            Err(Error::Order { worse, better, .. })
                if !worse.form.is_well_formed() && better == outcome(Form::WellFormed, None)
        ));
        // Form alone, or a hit among the first three, does not tell the right ranking from a wrong one.
        for terms in [
            vec![term(Name::Form, None, 1.0)],
            vec![term(Name::Form, None, 1.0), term(Name::Hit, Some(3), 1.0)],
        ] {
            assert!(matches!(rewards(terms), Err(Error::Order { .. })));
        }
        // A penalty on rank two that is worse than missing.
        let inverted = rewards(vec![
            term(Name::Form, None, 2.0),
            term(Name::Hit, Some(1), 3.0),
            term(Name::Hit, Some(2), -1.0),
        ]);
        assert!(matches!(inverted, Err(Error::Order { .. })));
    }

    #[test]
    fn terms_are_checked() {
        let form = || term(Name::Form, None, 0.1);
        assert!(matches!(rewards(vec![]), Err(Error::NoTerms)));
        assert!(matches!(rewards(vec![form(), term(Name::Hit, None, 1.0)]), Err(Error::K { k: None, .. })));
        assert!(matches!(rewards(vec![form(), term(Name::Ndcg, Some(4), 1.0)]), Err(Error::K { .. })));
        assert!(matches!(rewards(vec![term(Name::Form, Some(1), 1.0)]), Err(Error::NoK(Name::Form))));
        assert!(matches!(rewards(vec![form(), form()]), Err(Error::Twice(_))));
        assert!(matches!(rewards(vec![term(Name::Form, None, f64::NAN)]), Err(Error::Weight { .. })));
        for item_penalty in [0.0, -1.0, f64::NAN] {
            let options = Options { item_penalty, ..Options::default() };
            let refused = Rewards::new(&options, &completion::Options::default());
            assert!(matches!(refused, Err(Error::ItemPenalty(_))), "{item_penalty}");
        }
    }

    #[test]
    fn terms_are_read_from_a_run_file() {
        let json = r#"{"terms": [{"name": "reciprocal_rank"}, {"name": "ndcg", "k": 3, "weight": 0.5}]}"#;
        let options: Options = serde_json::from_str(json).unwrap();
        assert_eq!(options.terms, [term(Name::ReciprocalRank, None, 1.0), term(Name::Ndcg, Some(3), 0.5)]);
        assert!(serde_json::from_str::<Options>(r#"{"terms": [{"name": "form", "wieght": 1}]}"#).is_err());
    }
}
