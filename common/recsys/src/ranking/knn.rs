//! Item-kNN: items are similar if the same users interacted with them.
//!
//! The similarity of two items is the cosine of the sets of training users who interacted with them, |Uᵢ ∩ Uⱼ| / √(|Uᵢ|
//! |Uⱼ|) (Sarwar et al. 2001, over sets instead of ratings). A candidate's score is the sum of its similarities to the
//! last items of a history.

use std::collections::BTreeMap;

use crate::dataset::{Catalogue, User};
use crate::ids::ItemId;

/// Maximum number of history items that count, from the end.
pub const HISTORY: usize = 10;

/// Interactions of training users, indexed by user and by item.
#[derive(Debug)]
pub struct ItemKnn<'a> {
    catalogue: &'a Catalogue,
    /// Catalogue positions of each training user's distinct items.
    items_of: Vec<Vec<u32>>,
    /// Training users of the item at each catalogue position.
    users_of: Vec<Vec<u32>>,
}

/// Candidates to be scored for a history.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Items before the target, oldest first; the last [`HISTORY`] count.
    pub history: &'a [ItemId],
    /// Items to be ranked.
    pub candidates: &'a [ItemId],
}

impl<'a> ItemKnn<'a> {
    /// Indexes `train`. Items outside the catalogue have no similarity.
    pub fn new(catalogue: &'a Catalogue, train: &[User]) -> Self {
        let mut users_of = vec![Vec::new(); catalogue.len()];
        let mut items_of = Vec::with_capacity(train.len());
        for (user, number) in train.iter().zip(0_u32..) {
            let mut items: Vec<u32> =
                user.items.iter().filter_map(|&item| catalogue.position(item)).map(|at| at as u32).collect();
            items.sort_unstable();
            items.dedup();
            for &item in &items {
                users_of[item as usize].push(number);
            }
            items_of.push(items);
        }
        Self { catalogue, items_of, users_of }
    }

    /// Returns the scores of each question's candidates, in their order. Batches are efficient: an item's neighbours
    /// are counted once for all histories that contain it.
    pub fn scores(&self, questions: &[Question<'_>]) -> Vec<Vec<f64>> {
        let mut asking: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, question) in questions.iter().enumerate() {
            let recent = &question.history[question.history.len().saturating_sub(HISTORY)..];
            for item in recent.iter().filter_map(|&item| self.catalogue.position(item)) {
                asking.entry(item).or_default().push(number);
            }
        }
        let candidates: Vec<Vec<Option<usize>>> = questions
            .iter()
            .map(|question| question.candidates.iter().map(|&item| self.catalogue.position(item)).collect())
            .collect();
        let mut scores: Vec<Vec<f64>> = candidates.iter().map(|list| vec![0.0; list.len()]).collect();
        let mut shared = vec![0_u32; self.catalogue.len()];
        for (item, numbers) in asking {
            self.count_shared(item, &mut shared);
            for number in numbers {
                for (score, &candidate) in scores[number].iter_mut().zip(&candidates[number]) {
                    *score +=
                        candidate.map_or(0.0, |candidate| self.cosine(item, candidate, shared[candidate]));
                }
            }
        }
        scores
    }

    /// Counts the users that `item` shares with the item at each position.
    fn count_shared(&self, item: usize, shared: &mut [u32]) {
        shared.fill(0);
        for &user in &self.users_of[item] {
            for &other in &self.items_of[user as usize] {
                shared[other as usize] += 1;
            }
        }
    }

    fn cosine(&self, one: usize, other: usize, shared: u32) -> f64 {
        if shared == 0 {
            return 0.0;
        }
        let (one, other) = (self.users_of[one].len() as f64, self.users_of[other].len() as f64);
        f64::from(shared) / (one * other).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Item;
    use crate::ids::UserId;

    fn ids(items: &[u64]) -> Vec<ItemId> {
        items.iter().copied().map(ItemId).collect()
    }

    #[test]
    fn scores_are_sums_of_cosines_over_the_last_items() {
        let catalogue = Catalogue::new((0..5).map(|id| Item {
            id: ItemId(id),
            title: format!("Title {id}"),
            caption: None,
            interactions: 0,
        }));
        // Item 0: users 0, 1, 2. Item 1: users 0, 1. Item 2: users 2, 3. Item 3: user 3. Item 4: no user.
        let rows: [&[u64]; 4] = [&[0, 1, 0], &[1, 0], &[0, 2], &[2, 3]];
        let train: Vec<User> =
            rows.iter().zip(0..).map(|(items, id)| User { id: UserId(id), items: ids(items) }).collect();
        let knn = ItemKnn::new(&catalogue, &train);

        let long: Vec<ItemId> = [vec![ItemId(3)], vec![ItemId(0); HISTORY]].concat();
        let questions = [
            Question { history: &ids(&[0]), candidates: &ids(&[1, 2, 3, 4, 9]) },
            Question { history: &ids(&[1, 2]), candidates: &ids(&[0]) },
            // Item 3 is too old to count.
            Question { history: &long, candidates: &ids(&[3, 1]) },
            Question { history: &[], candidates: &ids(&[1]) },
        ];
        let near = 2.0 / 6.0_f64.sqrt();
        let far = 1.0 / 6.0_f64.sqrt();
        let expected = [vec![near, far, 0.0, 0.0, 0.0], vec![near + far], vec![0.0, 10.0 * near], vec![0.0]];
        for (scores, expected) in knn.scores(&questions).iter().zip(expected) {
            assert!(
                scores.len() == expected.len()
                    && scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12),
                "{scores:?}, expected {expected:?}"
            );
        }
    }
}
