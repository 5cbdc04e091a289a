//! Kinds of prompts, a small fixed set that is derived from the data set.
//!
//! | kind | values |
//! |---|---|
//! | `target_popularity` | `tail`, `middle`, `head`: the target's [`Percentiles`] is below 1/3, between, or at least 2/3 |
//! | `history` | `short`, `middle`, `long`: number of interactions before the target, by the terciles of the training users |
//! | `captions` | `none`, `some`, `all`: whether none, some or all of the shown items have a caption |
//!
//! A kind that is the same for all prompts of the data set is omitted.

use std::collections::BTreeSet;

use super::Percentiles;
use crate::dataset::Dataset;
use crate::ids::ItemId;
use crate::task::Case;

/// The kinds that differ between prompts of a data set.
#[derive(Debug, Clone)]
pub(super) struct Kinds {
    popularity: bool,
    /// Lower limits of a middle and of a long history.
    history: Option<(usize, usize)>,
    /// The items with a caption, if only some have one.
    captioned: Option<BTreeSet<ItemId>>,
}

impl Kinds {
    pub(super) fn of(dataset: &Dataset, popularity: &Percentiles) -> Self {
        let mut lengths: Vec<usize> = dataset.train.iter().map(|user| user.items.len() - 1).collect();
        lengths.sort_unstable();
        let tercile = |n: usize| lengths.get(lengths.len() * n / 3).copied();
        let history = match (lengths.first(), lengths.last(), tercile(1), tercile(2)) {
            (Some(shortest), Some(longest), Some(middle), Some(long)) if shortest < longest => {
                Some((middle, long))
            }
            _ => None,
        };
        let items = dataset.catalogue.items();
        let captioned: BTreeSet<ItemId> =
            items.iter().filter(|item| item.caption.is_some()).map(|item| item.id).collect();
        let some = !captioned.is_empty() && captioned.len() < items.len();
        Self { popularity: popularity.differs(), history, captioned: some.then_some(captioned) }
    }

    /// Returns the kinds of a case, as `<kind>/<value>`.
    pub(super) fn of_case(&self, case: &Case, popularity: &Percentiles) -> Vec<String> {
        let mut kinds = Vec::new();
        if let Some(percentile) = popularity.percentile(case.target).filter(|_| self.popularity) {
            let value = match percentile {
                low if low < 1.0 / 3.0 => "tail",
                high if high >= 2.0 / 3.0 => "head",
                _ => "middle",
            };
            kinds.push(format!("target_popularity/{value}"));
        }
        if let Some((middle, long)) = self.history {
            let value = match case.past {
                past if past >= long => "long",
                past if past >= middle => "middle",
                _ => "short",
            };
            kinds.push(format!("history/{value}"));
        }
        if let Some(captioned) = &self.captioned {
            let shown = || case.history.iter().chain(&case.candidates);
            let value = match shown().filter(|item| captioned.contains(item)).count() {
                0 => "none",
                count if count == shown().count() => "all",
                _ => "some",
            };
            kinds.push(format!("captions/{value}"));
        }
        kinds
    }
}
