//! The ranking of all candidates by their log-probability of being listed next, in addition to the generated
//! ranking.
//!
//! It is a permutation of the candidates, so one evaluation yields every HR@K and NDCG@K. Candidates with
//! equal log-probabilities remain in the order of the candidate list, which is random.

use podium_recsys::ranking::{self, Metric};

use super::answers::Answered;
use super::estimates::{Ranked, Ranks};

/// Prefix of the names of these metrics.
pub(super) const PREFIX: &str = "likelihood/";

/// Cutoffs, up to the number of candidates.
const CUT_OFFS: [usize; 4] = [1, 3, 5, 10];

/// Returns the metrics of rankings of this number of candidates. HR over all candidates is always 1, and
/// NDCG@1 equals HR@1, so both are omitted.
pub fn metrics(candidates: usize) -> Vec<Metric> {
    let hits = CUT_OFFS.iter().filter(|&&k| k < candidates).map(|&k| Metric::Hit(k));
    let gains = CUT_OFFS.iter().filter(|&&k| k > 1 && k <= candidates).map(|&k| Metric::Ndcg(k));
    hits.chain(gains).chain([Metric::ReciprocalRank]).collect()
}

/// Returns the rank of the target among the candidates of each answer; `None` if candidates were not scored.
pub fn ranks(answers: &[Answered]) -> Option<Ranks> {
    let rank = |answered: &Answered| {
        let (case, logprobs) = (&answered.case, &answered.answer.choice_logprobs);
        let scored = logprobs.len() == case.candidates.len() && !logprobs.is_empty();
        scored.then(|| ranking::rank_of(case.target, &ranking::by_score(&case.candidates, logprobs)))
    };
    answers.iter().map(rank).collect()
}

/// Returns the rankings by likelihood and their metrics, with the ranks under version 0 if `start` has the
/// same users; `None` if candidates were not scored.
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
