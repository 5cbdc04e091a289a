//! The ranking of all candidates by their log-probability of being listed next, beside the generated one.
//!
//! It is a permutation of the candidates, so that every HR@K and NDCG@K comes of one evaluation. Equal log-probabilities
//! keep the order of the candidate list, which is random.

use podium_recsys::ranking::{self, Metric};

use super::answers::Answered;
use super::estimates::{Ranked, Ranks};

/// Stands before the names of these metrics.
pub(super) const PREFIX: &str = "likelihood/";

/// Cut-offs, as far as there are that many candidates.
const CUT_OFFS: [usize; 4] = [1, 3, 5, 10];

/// The metrics over rankings of so many candidates. A hit among all of them is certain, and NDCG@1 is HR@1.
pub fn metrics(candidates: usize) -> Vec<Metric> {
    let hits = CUT_OFFS.iter().filter(|&&k| k < candidates).map(|&k| Metric::Hit(k));
    let gains = CUT_OFFS.iter().filter(|&&k| k > 1 && k <= candidates).map(|&k| Metric::Ndcg(k));
    hits.chain(gains).chain([Metric::ReciprocalRank]).collect()
}

/// Where the target is among the candidates of each answer; `None` where candidates were not scored.
pub fn ranks(answers: &[Answered]) -> Option<Ranks> {
    let rank = |answered: &Answered| {
        let (case, logprobs) = (&answered.case, &answered.answer.choice_logprobs);
        let scored = logprobs.len() == case.candidates.len() && !logprobs.is_empty();
        scored.then(|| ranking::rank_of(case.target, &ranking::by_score(&case.candidates, logprobs)))
    };
    answers.iter().map(rank).collect()
}

/// The rankings by likelihood and their metrics, with the ranks under version 0 where `start` is of the same users; `None`
/// where candidates were not scored.
pub fn ranked(answers: &[Answered], start: Option<&[Option<usize>]>) -> Option<Ranked> {
    let ranks = ranks(answers).filter(|ranks| !ranks.is_empty())?;
    let candidates = answers.iter().map(|answered| answered.case.candidates.len()).max().unwrap_or(0);
    let start = start.filter(|start| start.len() == ranks.len()).map(<[_]>::to_vec);
    Some(Ranked { prefix: PREFIX.to_owned(), metrics: metrics(candidates), ranks, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_say_something() {
        let names = |candidates| metrics(candidates).iter().map(Metric::to_string).collect::<Vec<_>>();
        assert_eq!(names(4), ["HR@1", "HR@3", "NDCG@3", "MRR"]);
        assert_eq!(names(10), ["HR@1", "HR@3", "HR@5", "NDCG@3", "NDCG@5", "NDCG@10", "MRR"]);
        assert_eq!(names(100).len(), 8);
    }
}
