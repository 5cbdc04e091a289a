//! The metrics of the baselines, as tables and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::{Baseline, Comparison, Draws, Estimate, Metric, slices};
use podium_recsys::{Dataset, User};
use serde::Serialize;

use super::arguments::Arguments;

/// Number of slices of each kind.
const SLICES: usize = 3;
/// The baseline that the others are compared with.
const COMPARED_WITH: Baseline = Baseline::Popularity;

/// Metrics by number of negatives, with the options that they depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    data: String,
    negatives_drawn: String,
    draws: u64,
    seed: u64,
    /// The held-out part.
    part: HeldOut,
    held_out_users: usize,
    users_asked: usize,
    ties: &'static str,
    intervals: &'static str,
    p_values: &'static str,
    /// By number of negatives: `9`, `99`, ….
    negatives: BTreeMap<usize, Table>,
    #[serde(skip)]
    cuts: Vec<usize>,
    #[serde(skip)]
    groups: Vec<Group>,
}

/// A slice of the evaluated users.
#[derive(Debug)]
struct Group {
    by: &'static str,
    least: u64,
    most: u64,
    members: Vec<usize>,
}

/// Metrics for one number of negatives.
#[derive(Debug, Serialize)]
struct Table {
    candidates: usize,
    /// By metric and baseline.
    metrics: Vec<Row>,
    slices: Vec<SliceMetrics>,
}

#[derive(Debug, Serialize)]
struct Row {
    metric: String,
    estimates: BTreeMap<String, Estimate>,
    /// Difference of item-kNN and popularity.
    item_knn_less_popularity: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct SliceMetrics {
    by: &'static str,
    least: u64,
    most: u64,
    users: usize,
    metrics: Vec<Row>,
}

impl Report {
    /// Creates a report without metrics.
    pub(super) fn new(arguments: &Arguments, dataset: &Dataset, asked: &[&User]) -> Self {
        let popularity: Vec<u64> = asked
            .iter()
            .map(|user| dataset.catalogue.get(user.target()).map_or(0, |item| item.interactions))
            .collect();
        let lengths: Vec<u64> = asked.iter().map(|user| user.items.len() as u64 - 1).collect();
        let groups = [("target_interactions", popularity), ("history_length", lengths)]
            .into_iter()
            .flat_map(|(by, numbers)| {
                slices(&numbers, SLICES).into_iter().map(move |slice| Group {
                    by,
                    least: *slice.range.start(),
                    most: *slice.range.end(),
                    members: slice.members,
                })
            })
            .collect();
        Self {
            data: dataset.name.clone(),
            negatives_drawn: format!("{:?}", arguments.drawn).to_lowercase(),
            draws: arguments.draws,
            seed: arguments.seed,
            part: arguments.part.into(),
            held_out_users: dataset.held_out(arguments.part.into()).len(),
            users_asked: asked.len(),
            ties: "in the order of the candidate list, which is random",
            intervals: "95 %, percentile bootstrap over users",
            p_values: "two-sided randomisation test over users",
            negatives: BTreeMap::new(),
            cuts: arguments.at.clone(),
            groups,
        }
    }

    /// Adds the metrics of rankings among this many candidates.
    pub(super) fn add(&mut self, ranked: &[(Baseline, Draws)]) {
        let Some(candidates) = ranked.first().map(|(_, draws)| draws.candidates()) else { return };
        let metrics = Metric::at(&self.cuts, candidates);
        let slices = self
            .groups
            .iter()
            .map(|group| {
                let some: Vec<(Baseline, Draws)> =
                    ranked.iter().map(|(baseline, draws)| (*baseline, draws.of(&group.members))).collect();
                SliceMetrics {
                    by: group.by,
                    least: group.least,
                    most: group.most,
                    users: group.members.len(),
                    metrics: rows(&some, &metrics, self.seed),
                }
            })
            .collect();
        let table = Table { candidates, metrics: rows(ranked, &metrics, self.seed), slices };
        self.negatives.insert(candidates - 1, table);
    }

    /// Returns the content of the JSON file.
    pub(super) fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("metrics are plain data");
        text + "\n"
    }
}

fn rows(ranked: &[(Baseline, Draws)], metrics: &[Metric], seed: u64) -> Vec<Row> {
    let estimates: Vec<(String, Vec<Estimate>)> = ranked
        .iter()
        .map(|(baseline, draws)| (baseline.to_string(), draws.estimates(metrics, seed)))
        .collect();
    let draws_of = |wanted| ranked.iter().find(|(baseline, _)| *baseline == wanted).map(|(_, draws)| draws);
    let pair = draws_of(Baseline::ItemKnn).zip(draws_of(COMPARED_WITH));
    metrics
        .iter()
        .enumerate()
        .map(|(index, &metric)| Row {
            metric: metric.to_string(),
            estimates: estimates
                .iter()
                .filter_map(|(name, estimates)| Some((name.clone(), *estimates.get(index)?)))
                .collect(),
            item_knn_less_popularity: pair.and_then(|(knn, other)| knn.compare(other, metric, seed)),
        })
        .collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (negatives, table) in &self.negatives {
            writeln!(
                f,
                "{}: {negatives} negatives ({}), {} candidate samples, {} of {} {} users; 95 % intervals over users",
                self.data, self.negatives_drawn, self.draws, self.users_asked, self.held_out_users, self.part
            )?;
            heading(f, "")?;
            for row in &table.metrics {
                line(f, &row.metric, row)?;
            }
            writeln!(f)?;
            // The table shows NDCG with the largest cutoff; the file has the others.
            let metric = table.metrics.iter().rev().find(|row| row.metric.starts_with("NDCG"));
            let Some(metric) = metric.map(|row| row.metric.as_str()) else { continue };
            heading(f, metric)?;
            for slice in &table.slices {
                let name = format!("{} {}–{}", slice.by.replace('_', " "), slice.least, slice.most);
                for row in slice.metrics.iter().filter(|row| row.metric == metric) {
                    line(f, &name, row)?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

const NAME_WIDTH: usize = 30;
const FIGURE_WIDTH: usize = 23;

fn heading(f: &mut fmt::Formatter<'_>, what: &str) -> fmt::Result {
    write!(f, "{what:<NAME_WIDTH$}")?;
    for baseline in Baseline::ALL {
        write!(f, "{:<FIGURE_WIDTH$}", baseline.to_string())?;
    }
    writeln!(f, "item-kNN minus popularity")
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, row: &Row) -> fmt::Result {
    write!(f, "{name:<NAME_WIDTH$}")?;
    for baseline in Baseline::ALL {
        let text = row.estimates.get(&baseline.to_string()).map_or(String::new(), |estimate| {
            format!("{:.3} [{:.3}, {:.3}]", estimate.mean, estimate.low, estimate.high)
        });
        write!(f, "{text:<FIGURE_WIDTH$}")?;
    }
    match &row.item_knn_less_popularity {
        Some(Comparison { difference, p_value, .. }) => writeln!(
            f,
            "{:+.3} [{:+.3}, {:+.3}]  p {p_value:.4}",
            difference.mean, difference.low, difference.high
        ),
        None => writeln!(f),
    }
}
