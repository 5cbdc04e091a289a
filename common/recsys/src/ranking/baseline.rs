//! Rankers without a policy, to stand beside every figure.
//!
//! Ties keep the order of the candidate list. The list is shuffled when it is drawn, by a stream that knows neither target
//! nor ranker, so that ties are broken at random, and in the same way for every ranker. The order of the list itself is
//! the random ranker.

use std::cmp::Reverse;
use std::fmt;

use super::knn::{ItemKnn, Question};
use crate::dataset::{Catalogue, Dataset};
use crate::ids::ItemId;

/// A ranker without a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Baseline {
    /// The order of the candidate list, which is random.
    Random,
    /// By how often training users took an item.
    Popularity,
    /// By how near an item is to the last of the history: [`ItemKnn`].
    ItemKnn,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Random, Self::Popularity, Self::ItemKnn];

    /// The candidates of each question, best first, by what `dataset` has to train on.
    pub fn rank(self, dataset: &Dataset, questions: &[Question<'_>]) -> Vec<Vec<ItemId>> {
        let catalogue = &dataset.catalogue;
        let each = |rank: &dyn Fn(&[ItemId]) -> Vec<ItemId>| {
            questions.iter().map(|question| rank(question.candidates)).collect()
        };
        match self {
            Self::Random => each(&<[ItemId]>::to_vec),
            Self::Popularity => each(&|candidates| by_popularity(candidates, catalogue)),
            Self::ItemKnn => {
                let scores = ItemKnn::new(catalogue, &dataset.train).scores(questions);
                questions
                    .iter()
                    .zip(scores)
                    .map(|(question, scores)| by_score(question.candidates, &scores))
                    .collect()
            }
        }
    }
}

impl fmt::Display for Baseline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "random",
            Self::Popularity => "popularity",
            Self::ItemKnn => "item-kNN",
        })
    }
}

/// `candidates` by how often training users took them. Ties keep the order of the candidate list, which is random.
pub fn by_popularity(candidates: &[ItemId], catalogue: &Catalogue) -> Vec<ItemId> {
    let mut ranking = candidates.to_vec();
    ranking.sort_by_key(|&id| Reverse(catalogue.get(id).map_or(0, |item| item.interactions)));
    ranking
}

/// `candidates` by descending score. Ties keep the order of the list; what is not a number comes last.
///
/// # Panics
/// If there is not one score a candidate.
pub fn by_score(candidates: &[ItemId], scores: &[f64]) -> Vec<ItemId> {
    assert_eq!(candidates.len(), scores.len(), "one score a candidate");
    // Adding zero makes one of the two zeros, which are a tie.
    let key = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score + 0.0 };
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    places.sort_by(|&one, &other| key(scores[other]).total_cmp(&key(scores[one])));
    places.into_iter().map(|place| candidates[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;

    #[test]
    fn popular_items_come_first_and_ties_keep_their_order() {
        let catalogue = Catalogue::new([5, 9, 5].iter().zip(0..).map(|(&interactions, id)| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions,
        }));
        let ranking = by_popularity(&[ItemId(2), ItemId(0), ItemId(1)], &catalogue);
        assert_eq!(ranking, [ItemId(1), ItemId(2), ItemId(0)]);
    }

    #[test]
    fn higher_scores_come_first_and_ties_keep_their_order() {
        let ranking = by_score(&[4, 3, 2, 1].map(ItemId), &[0.5, f64::NAN, 0.5, 2.0]);
        assert_eq!(ranking, [1, 4, 2, 3].map(ItemId));
        assert_eq!(by_score(&[4, 3].map(ItemId), &[0.0, -0.0]), [4, 3].map(ItemId));
    }
}
