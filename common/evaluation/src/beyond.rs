//! Adds the metrics of lists beyond accuracy: coverage, concentration, novelty and diversity of the first K items.

use podium_recsys::ranking::{BeyondAccuracy, CatalogueAnswer};

use crate::lists::Lists;
use crate::metric_value::MetricValue;
use crate::plan::Plan;
use crate::ranked::Table;

/// Adds the metrics of one table.
pub(crate) fn add(plan: &Plan, table: &Table, beyond: &BeyondAccuracy<'_>, values: &mut Vec<MetricValue>) {
    for ranked in &table.ranked {
        let mut cuts = ranked.cuts(&plan.asked.at);
        if table.lists == Lists::Catalogue {
            // Policies record no more items.
            cuts.retain(|&k| k <= CatalogueAnswer::TOP);
        }
        for value in beyond.values(&ranked.tops(), &cuts, plan.run.candidates.evaluation_seed) {
            let new =
                MetricValue::new(ranked.who(), table.lists, value.metric, Some(value.k), value.estimate);
            values.push(if value.has_interval { new } else { new.plain() });
        }
    }
}
