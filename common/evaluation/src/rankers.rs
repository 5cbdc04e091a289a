//! All rankers without a policy over the same candidate lists.

use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::probes::Placed;
use podium_recsys::ranking::{Baseline, outside_history};
use podium_recsys::{Dataset, ItemId, User};

use crate::trained::{self, Trained};

/// Number of users whose lists of the whole catalogue are in memory at once.
const CATALOGUE_USERS: usize = 256;

/// A held-out user with the position in the data set.
pub type Asked<'a> = (usize, &'a User);

/// A ranker's name, and the ranking of each list.
pub type NamedRankings = (String, Vec<Placed>);

/// The baselines of a data set.
#[derive(Debug, Clone, Copy)]
pub struct Rankers<'a> {
    /// The data set with the training interactions.
    pub dataset: &'a Dataset,
    /// Trained baselines, if there are any.
    pub trained: Option<&'a Trained>,
    /// Number of items of each ranking that are stored.
    pub depth: usize,
}

impl Rankers<'_> {
    /// Ranks the lists of the users in `asked`, repeated for each candidate sample.
    pub fn rank<L: AsRef<[ItemId]>>(
        &self,
        asked: &[Asked<'_>],
        lists: &[L],
    ) -> Result<Vec<NamedRankings>, trained::Error> {
        let of_users = || lists.iter().map(AsRef::as_ref).zip(asked.iter().cycle());
        let placed = |rankings: &[Vec<ItemId>]| -> Vec<Placed> {
            let placed = |(ranking, (list, (_, user))): (&Vec<ItemId>, (&[ItemId], &Asked<'_>))| {
                Placed::of(Some(ranking), user.target(), list, self.depth)
            };
            rankings.iter().zip(of_users()).map(placed).collect()
        };
        let questions: Vec<Question<'_>> = of_users()
            .map(|(candidates, (_, user))| Question { history: user.history(usize::MAX), candidates })
            .collect();
        let mut all: Vec<NamedRankings> = Baseline::ALL
            .map(|baseline| (baseline.to_string(), placed(&baseline.rank(self.dataset, &questions))))
            .into();
        if let Some(trained) = self.trained {
            let lists: Vec<(usize, &[ItemId])> =
                of_users().map(|(candidates, (position, _))| (*position, candidates)).collect();
            for (model, name) in trained.names().enumerate() {
                all.push((name.to_owned(), placed(&trained.rank(model, self.dataset, &lists)?)));
            }
        }
        Ok(all)
    }

    /// Ranks all items outside the whole history of each user, some users at a time.
    pub fn rank_catalogue(
        &self,
        asked: &[Asked<'_>],
        seed: u64,
    ) -> Result<Vec<NamedRankings>, trained::Error> {
        let mut all: Vec<NamedRankings> = Vec::new();
        for chunk in asked.chunks(CATALOGUE_USERS) {
            let list = |(_, user): &Asked<'_>| outside_history(&self.dataset.catalogue, user, seed);
            let lists: Vec<Vec<ItemId>> = chunk.iter().map(list).collect();
            for (index, (name, placed)) in self.rank(chunk, &lists)?.into_iter().enumerate() {
                match all.get_mut(index) {
                    Some((_, before)) => before.extend(placed),
                    None => all.push((name, placed)),
                }
            }
        }
        Ok(all)
    }
}
