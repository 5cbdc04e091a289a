//! Rankers without a policy, as baselines.
//!
//! Ties keep the order of the candidate list. The list is shuffled with a random stream that depends on neither target
//! nor ranker, so that ties are broken at random and equally for every ranker. The order of the list itself is the
//! random baseline.

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
    /// By number of interactions of training users.
    Popularity,
    /// By similarity to the last history items: [`ItemKnn`].
    ItemKnn,
}

impl Baseline {
    /// All baselines.
    pub const ALL: [Self; 3] = [Self::Random, Self::Popularity, Self::ItemKnn];

    /// Ranks the candidates of each question, best first, with the training data of `dataset`.
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

/// Ranks `candidates` by number of interactions of training users. Ties keep the order of the candidate list, which is
/// random.
pub fn by_popularity(candidates: &[ItemId], catalogue: &Catalogue) -> Vec<ItemId> {
    let mut ranking = candidates.to_vec();
    ranking.sort_by_key(|&id| Reverse(catalogue.get(id).map_or(0, |item| item.interactions)));
    ranking
}

/// Ranks `candidates` by descending score. Ties keep the order of the list; NaN is ranked last.
///
/// # Panics
/// If the numbers of scores and candidates differ.
pub fn by_score(candidates: &[ItemId], scores: &[f64]) -> Vec<ItemId> {
    assert_eq!(candidates.len(), scores.len(), "one score per candidate");
    order_by_score(scores).into_iter().map(|position| candidates[position]).collect()
}

/// Returns the positions of the scores in descending order. Equal scores keep their order; NaN is last.
pub(super) fn order_by_score(scores: &[f64]) -> Vec<usize> {
    // Adding zero maps -0.0 to 0.0, so that they tie.
    let key = |score: f64| if score.is_nan() { f64::NEG_INFINITY } else { score + 0.0 };
    let mut positions: Vec<usize> = (0..scores.len()).collect();
    positions.sort_by(|&one, &other| key(scores[other]).total_cmp(&key(scores[one])));
    positions
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
