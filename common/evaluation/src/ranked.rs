//! The rankings of a ranker for every evaluated list.

use std::fmt;

use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::probes::Placed;
use podium_recsys::ranking::{Baseline, Draws, Metric, RankedAnswer};
use podium_recsys::{Dataset, ItemId, User};
use serde::Serialize;

use crate::trained::{self, Trained};

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

/// A ranker with its rankings for one number of negatives.
#[derive(Debug, Clone)]
pub(crate) struct Ranked {
    /// Name of the policy or baseline.
    pub(crate) policy: String,
    pub(crate) ranking: Ranking,
    /// Number of listed candidates.
    pub(crate) listed: usize,
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

/// The rankers at one number of negatives.
#[derive(Debug)]
pub struct Table {
    /// Number of negatives in each candidate list.
    pub negatives: usize,
    /// By policy.
    pub(crate) answers: Vec<Answers>,
    /// Policies in both rankings, then those without one.
    pub(crate) ranked: Vec<Ranked>,
}

impl Ranked {
    /// Creates the ranking by a policy's answers, with `listed` items each.
    pub(crate) fn generated(policy: &str, answers: &Answers, listed: usize) -> Self {
        let placed =
            |answer: &RankedAnswer| Placed::of(answer.generated(), answer.target, &answer.candidates);
        Self::of(policy, Ranking::Generated, answers, listed, placed)
    }

    /// Creates the ranking by likelihood.
    pub(crate) fn by_likelihood(policy: &str, answers: &Answers) -> Self {
        let placed = |answer: &RankedAnswer| {
            Placed::of(answer.by_likelihood().as_deref(), answer.target, &answer.candidates)
        };
        Self::of(policy, Ranking::Likelihood, answers, answers.candidates(), placed)
    }

    fn of(
        policy: &str,
        ranking: Ranking,
        answers: &Answers,
        listed: usize,
        placed: impl Fn(&RankedAnswer) -> Placed,
    ) -> Self {
        let each = |draws: &[Vec<RankedAnswer>]| -> Vec<Vec<Placed>> {
            draws.iter().map(|draw| draw.iter().map(&placed).collect()).collect()
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

    /// Creates a baseline's ranking of the lists in `answers`.
    pub(crate) fn baseline(baseline: Baseline, dataset: &Dataset, users: &[User], answers: &Answers) -> Self {
        let questions: Vec<Question<'_>> = answers
            .draws
            .iter()
            .flat_map(|draw| users.iter().zip(draw))
            .map(|(user, answer)| Question {
                history: user.history(usize::MAX),
                candidates: &answer.candidates,
            })
            .collect();
        Self::of_rankings(&baseline.to_string(), &baseline.rank(dataset, &questions), users, answers)
    }

    /// Creates the ranking of the lists in `answers` by a trained baseline. `users` are the first held-out users.
    pub(crate) fn trained(
        trained: &Trained,
        model: usize,
        dataset: &Dataset,
        users: &[User],
        answers: &Answers,
    ) -> Result<Self, trained::Error> {
        let draws = answers.draws.iter().flatten().map(|answer| answer.candidates.as_slice());
        let lists: Vec<(usize, &[ItemId])> = (0..users.len()).cycle().zip(draws).collect();
        let rankings = trained.rank(model, dataset, &lists)?;
        Ok(Self::of_rankings(&trained.manifest.models[model].name, &rankings, users, answers))
    }

    /// Creates a baseline from its rankings of the lists in `answers`, by candidate sample and user.
    fn of_rankings(name: &str, rankings: &[Vec<ItemId>], users: &[User], answers: &Answers) -> Self {
        let lists = answers.draws.iter().flat_map(|draw| users.iter().zip(draw));
        let placed: Vec<Placed> = rankings
            .iter()
            .zip(lists)
            .map(|(ranking, (user, answer))| Placed::of(Some(ranking), user.target(), &answer.candidates))
            .collect();
        Self {
            policy: name.to_owned(),
            ranking: Ranking::Baseline,
            listed: answers.candidates(),
            candidates: answers.candidates(),
            draws: placed.chunks(users.len().max(1)).map(<[Placed]>::to_vec).collect(),
            reversed: Vec::new(),
        }
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

    /// Policy and ranking.
    pub(crate) fn who(&self) -> (&str, Ranking) {
        (&self.policy, self.ranking)
    }
}

impl Answers {
    fn candidates(&self) -> usize {
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
        let generated = Ranked::generated("p", &answers, 2);
        let ranks = |ranked: &Ranked| -> Vec<Option<usize>> {
            ranked.draws[0].iter().map(|placed| placed.rank).collect()
        };
        assert_eq!(ranks(&generated), [Some(2), None]);
        assert_eq!(ranks(&Ranked::by_likelihood("p", &answers)), [Some(2), Some(2)]);
        assert_eq!(generated.draws[0][0].first.map(|first| first.position), Some(2));
    }

    #[test]
    fn a_short_list_has_no_metrics_beyond_its_end() {
        let answers = Answers { draws: vec![vec![answer(1, Form::WellFormed, &[2, 0])]], reversed: vec![] };
        let names = |ranked: &Ranked| -> Vec<String> {
            ranked.metrics(&[1, 3, 4]).iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&Ranked::generated("p", &answers, 2)), ["HR@1", "MRR"]);
        assert_eq!(
            names(&Ranked::by_likelihood("p", &answers)),
            ["HR@1", "HR@3", "NDCG@3", "MRR@3", "NDCG@4", "MRR@4", "MRR"],
            "a hit among all candidates is certain"
        );
    }
}
