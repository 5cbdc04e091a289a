//! The rankings of a ranker for every evaluated list.

use std::fmt;

use podium_recsys::ItemId;
use podium_recsys::ranking::probes::Placed;
use podium_recsys::ranking::{Draws, Metric, RankedAnswer};
use serde::Serialize;

use crate::lists::Lists;
use crate::rankers::NamedRankings;

/// Kind of a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// The items that a policy's answers list.
    Generated,
    /// All candidates by the policy's probability of listing them next.
    Likelihood,
    /// A baseline without a policy.
    Baseline,
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generated => "generated",
            Self::Likelihood => "likelihood",
            Self::Baseline => "baseline",
        })
    }
}

/// A ranker with its rankings of one kind of lists.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    /// Name of the policy or baseline.
    pub(crate) policy: String,
    pub(crate) ranking: Ranking,
    /// Number of listed candidates.
    pub(crate) listed: usize,
    /// Number of candidates; with the whole catalogue, number of its items.
    pub(crate) candidates: usize,
    /// By candidate sample and user.
    pub(crate) draws: Vec<Vec<Placed>>,
    /// The same for reversed lists, of the first candidate samples; empty for baselines, which ignore the order.
    pub(crate) reversed: Vec<Vec<Placed>>,
}

/// A policy's answers for one number of negatives.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// By candidate sample and user.
    pub(crate) draws: Vec<Vec<RankedAnswer>>,
    /// The same for reversed lists.
    pub(crate) reversed: Vec<Vec<RankedAnswer>>,
}

/// The rankers of one kind of lists.
#[derive(Debug)]
pub struct Table {
    /// The candidate lists.
    pub lists: Lists,
    /// By policy; empty for the whole catalogue, which has no completions.
    pub(crate) answers: Vec<Answers>,
    /// Policies in both rankings, then those without one.
    pub(crate) ranked: Vec<Ranked>,
}

impl Ranked {
    /// Creates the ranking by a policy's answers, with `listed` items each. `depth`: number of stored items of each.
    pub(crate) fn generated(policy: &str, answers: &Answers, listed: usize, depth: usize) -> Self {
        let ranking = |answer: &RankedAnswer| answer.generated().map(<[ItemId]>::to_vec);
        Self::of(policy, Ranking::Generated, answers, (listed, depth), ranking)
    }

    /// Creates the ranking by likelihood.
    pub(crate) fn by_likelihood(policy: &str, answers: &Answers, depth: usize) -> Self {
        let listed = answers.candidates();
        Self::of(policy, Ranking::Likelihood, answers, (listed, depth), RankedAnswer::by_likelihood)
    }

    fn of(
        policy: &str,
        ranking: Ranking,
        answers: &Answers,
        (listed, depth): (usize, usize),
        rank: impl Fn(&RankedAnswer) -> Option<Vec<ItemId>>,
    ) -> Self {
        let placed = |answer: &RankedAnswer| {
            Placed::of(rank(answer).as_deref(), answer.target, &answer.candidates, depth)
        };
        let each = |draws: &[Vec<RankedAnswer>]| -> Vec<Vec<Placed>> {
            draws.iter().map(|draw| draw.iter().map(placed).collect()).collect()
        };
        Self {
            policy: policy.to_owned(),
            ranking,
            listed,
            candidates: answers.candidates(),
            draws: each(&answers.draws),
            reversed: each(&answers.reversed),
        }
    }

    /// Creates a baseline from its rankings by candidate sample and user, of this number of candidates.
    pub(crate) fn baseline((name, placed): NamedRankings, users: usize, candidates: usize) -> Self {
        Self {
            policy: name,
            ranking: Ranking::Baseline,
            listed: candidates,
            candidates,
            draws: placed.chunks(users.max(1)).map(<[Placed]>::to_vec).collect(),
            reversed: Vec::new(),
        }
    }

    /// Creates a policy's ranking of a catalogue of this many items by likelihood, by user.
    pub(crate) fn of_catalogue(policy: &str, placed: Vec<Placed>, items: usize) -> Self {
        let of_baseline = Self::baseline((policy.to_owned(), placed), usize::MAX, items);
        Self { ranking: Ranking::Likelihood, ..of_baseline }
    }

    /// Returns the ranks of the targets.
    pub(crate) fn ranks(&self) -> Draws {
        let ranks = self.draws.iter().map(|draw| draw.iter().map(|placed| placed.rank).collect()).collect();
        Draws::new(self.candidates, ranks)
    }

    /// Returns the applicable metrics, with each cutoff of `at` up to the end of the list.
    pub(crate) fn metrics(&self, at: &[usize]) -> Vec<Metric> {
        let within = |metric: &Metric| match *metric {
            Metric::Hit(k) | Metric::Ndcg(k) | Metric::ReciprocalRankAt(k) => k <= self.listed,
            Metric::ReciprocalRank => true,
        };
        let mut metrics = Metric::at(at, self.candidates);
        metrics.retain(within);
        metrics.push(Metric::ReciprocalRank);
        metrics
    }

    /// Returns the cutoffs of `at` at which the lists are a choice: within the ranking, and fewer than all candidates.
    pub(crate) fn cuts(&self, at: &[usize]) -> Vec<usize> {
        at.iter().copied().filter(|&k| k <= self.listed && k < self.candidates).collect()
    }

    /// Returns the first items of each ranking, by candidate sample and user.
    pub(crate) fn tops(&self) -> Vec<Vec<&[ItemId]>> {
        self.draws.iter().map(|draw| draw.iter().map(|placed| placed.top.as_slice()).collect()).collect()
    }

    /// Policy and ranking.
    pub(crate) fn who(&self) -> (&str, Ranking) {
        (&self.policy, self.ranking)
    }
}

impl Answers {
    pub(crate) fn candidates(&self) -> usize {
        self.draws.iter().flatten().next().map_or(0, |answer| answer.candidates.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use podium_recsys::completion::Form;
    use podium_recsys::{ItemId, UserId};

    use super::*;

    /// An answer for four candidates, the first of which is the target.
    pub(crate) fn answer(user: u64, form: Form, listed: &[u64]) -> RankedAnswer {
        RankedAnswer {
            user: UserId(user),
            target: ItemId(0),
            candidates: [0, 1, 2, 3].map(ItemId).into(),
            form,
            listed: listed.iter().copied().map(ItemId).collect(),
            tokens: 8,
            cut_off: false,
            logprobs: vec![Some(-2.0), Some(-1.0), Some(-3.0), Some(-3.0)],
        }
    }

    #[test]
    fn a_policy_ranks_in_two_ways() {
        let answers = Answers {
            draws: vec![vec![answer(1, Form::WellFormed, &[2, 0]), answer(2, Form::ShortList, &[0])]],
            reversed: vec![],
        };
        let generated = Ranked::generated("p", &answers, 2, 1);
        let ranks = |ranked: &Ranked| -> Vec<Option<usize>> {
            ranked.draws[0].iter().map(|placed| placed.rank).collect()
        };
        assert_eq!(ranks(&generated), [Some(2), None]);
        assert_eq!(ranks(&Ranked::by_likelihood("p", &answers, 1)), [Some(2), Some(2)]);
        assert_eq!(generated.draws[0][0].first.map(|first| first.position), Some(2));
        assert_eq!(generated.tops(), [[&[ItemId(2)][..], &[]]], "a malformed answer lists nothing");
        assert_eq!(generated.cuts(&[1, 2, 3]), [1, 2]);
        assert_eq!(Ranked::by_likelihood("p", &answers, 1).cuts(&[3, 4]), [3], "four of four are no choice");
    }

    #[test]
    fn a_short_list_has_no_metrics_beyond_its_end() {
        let answers = Answers { draws: vec![vec![answer(1, Form::WellFormed, &[2, 0])]], reversed: vec![] };
        let names = |ranked: &Ranked| -> Vec<String> {
            ranked.metrics(&[1, 3, 4]).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&Ranked::generated("p", &answers, 2, 1)), ["HR@1", "MRR"]);
        assert_eq!(
            names(&Ranked::by_likelihood("p", &answers, 1)),
            ["HR@1", "HR@3", "NDCG@3", "MRR@3", "NDCG@4", "MRR@4", "MRR"],
            "a hit among all candidates is certain"
        );
    }
}
