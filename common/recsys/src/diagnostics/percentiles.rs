//! Popularity of an item relative to the catalogue.

use std::collections::BTreeMap;

use crate::dataset::Catalogue;
use crate::ids::ItemId;

/// Popularity of each item: the fraction of the catalogue with fewer interactions of training users, where ties count
/// half. It is between 0 and 1, averages 1/2 over the catalogue, and does not depend on the amount of data.
#[derive(Debug, Clone)]
pub struct Percentiles {
    percentiles: BTreeMap<ItemId, f64>,
}

impl Percentiles {
    /// Computes the popularity of every item of `catalogue`.
    pub fn of(catalogue: &Catalogue) -> Self {
        let mut counts: Vec<u64> = catalogue.items().iter().map(|item| item.interactions).collect();
        counts.sort_unstable();
        let percentile = |count: u64| {
            let less = counts.partition_point(|&other| other < count);
            let no_more = counts.partition_point(|&other| other <= count);
            (less + no_more) as f64 / 2.0 / counts.len() as f64
        };
        let percentiles =
            catalogue.items().iter().map(|item| (item.id, percentile(item.interactions))).collect();
        Self { percentiles }
    }

    /// Returns the popularity of an item of the catalogue.
    pub fn percentile(&self, item: ItemId) -> Option<f64> {
        self.percentiles.get(&item).copied()
    }

    /// Whether some items are more popular than others.
    pub(super) fn differs(&self) -> bool {
        let mut values = self.percentiles.values();
        let first = values.next();
        values.any(|value| Some(value) != first)
    }
}
