//! All baselines over the same candidate lists.

use podium_evaluation::trained::{self, Trained};
use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::{Baseline, rank_of};
use podium_recsys::{Dataset, ItemId, User};

/// A held-out user with the position in the data set.
pub(super) type Asked<'a> = (usize, &'a User);

/// A baseline's name, and the rank of each list's target.
pub(super) type Ranks = (String, Vec<Option<usize>>);

/// The baselines of a data set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rankers<'a> {
    pub(super) dataset: &'a Dataset,
    pub(super) trained: Option<&'a Trained>,
}

impl Rankers<'_> {
    /// Returns the rank of each list's target by each baseline. The lists are those of the users in `asked`, repeated for
    /// each candidate sample.
    pub(super) fn ranks(
        &self,
        asked: &[Asked<'_>],
        lists: &[Vec<ItemId>],
    ) -> Result<Vec<Ranks>, trained::Error> {
        let of_users = || lists.iter().zip(asked.iter().cycle());
        let ranks = |rankings: &[Vec<ItemId>]| -> Vec<Option<usize>> {
            rankings
                .iter()
                .zip(of_users())
                .map(|(ranking, (_, (_, user)))| rank_of(user.target(), ranking))
                .collect()
        };
        let questions: Vec<Question<'_>> = of_users()
            .map(|(candidates, (_, user))| Question { history: user.history(usize::MAX), candidates })
            .collect();
        let mut all: Vec<Ranks> = Baseline::ALL
            .map(|baseline| (baseline.to_string(), ranks(&baseline.rank(self.dataset, &questions))))
            .into();
        if let Some(trained) = self.trained {
            let lists: Vec<(usize, &[ItemId])> =
                of_users().map(|(candidates, (position, _))| (*position, candidates.as_slice())).collect();
            for (model, name) in trained.names().enumerate() {
                all.push((name.to_owned(), ranks(&trained.rank(model, self.dataset, &lists)?)));
            }
        }
        Ok(all)
    }
}
