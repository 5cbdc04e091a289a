//! The metrics of the baselines, as tables and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use podium_evaluation::groups::{Group, groups};
use podium_evaluation::rankers::{Asked, NamedRankings};
use podium_evaluation::results;
use podium_evaluation::run_tables::{interval, laid_out, signed_interval};
use podium_evaluation::trained::{Manifest, Trained};
use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::probes::Placed;
use podium_recsys::ranking::{
    Baseline, BeyondAccuracy, Comparison, Distance, Draws, Estimate, ListValue, Metric,
};
use podium_recsys::{Dataset, ItemId, User};
use serde::Serialize;

use super::arguments::Arguments;

/// The kinds of metrics, each of which has a table.
const KINDS: [&str; 3] = ["HR", "NDCG", "MRR"];

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
    /// Distance of the diversity.
    distance: Distance,
    #[serde(skip_serializing_if = "Option::is_none")]
    trained: Option<Manifest>,
    /// By number of negatives: `9`, `99`, ….
    negatives: BTreeMap<usize, Table>,
    /// With all items outside each user's history as candidates.
    #[serde(skip_serializing_if = "Option::is_none")]
    catalogue: Option<Table>,
    #[serde(skip)]
    cuts: Vec<usize>,
    #[serde(skip)]
    groups: Vec<Group>,
}

/// A baseline's rankings by candidate sample and user.
#[derive(Debug)]
pub(super) struct Sampled {
    name: String,
    candidates: usize,
    draws: Vec<Vec<Placed>>,
}

impl Sampled {
    /// Divides the rankings of each baseline by candidate sample. `candidates`: length of the lists.
    pub(super) fn of(all: Vec<NamedRankings>, users: usize, candidates: usize) -> Vec<Self> {
        let one = |(name, placed): NamedRankings| {
            let draws = placed.chunks(users.max(1)).map(<[Placed]>::to_vec).collect();
            Self { name, candidates, draws }
        };
        all.into_iter().map(one).collect()
    }

    fn ranks(&self) -> Draws {
        let ranks = |draw: &Vec<Placed>| draw.iter().map(|placed| placed.rank).collect();
        Draws::new(self.candidates, self.draws.iter().map(ranks).collect())
    }

    fn tops(&self) -> Vec<Vec<&[ItemId]>> {
        self.draws.iter().map(|draw| draw.iter().map(|placed| placed.top.as_slice()).collect()).collect()
    }
}

/// Metrics for one number of negatives.
#[derive(Debug, Serialize)]
struct Table {
    candidates: usize,
    #[serde(skip)]
    rankers: Vec<String>,
    /// By metric and baseline.
    metrics: Vec<Row>,
    /// Metrics of lists by baseline.
    beyond_accuracy: BTreeMap<String, Vec<ListValue>>,
    slices: Vec<SliceMetrics>,
}

#[derive(Debug, Serialize)]
struct Row {
    metric: String,
    estimates: BTreeMap<String, Estimate>,
    /// Difference of item-kNN and popularity.
    item_knn_less_popularity: Option<Comparison>,
    /// Differences of trained models and item-kNN, by model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    less_item_knn: BTreeMap<String, Comparison>,
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
    pub(super) fn new(
        arguments: &Arguments,
        dataset: &Dataset,
        asked: &[Asked<'_>],
        trained: Option<&Trained>,
    ) -> Self {
        let users: Vec<&User> = asked.iter().map(|(_, user)| *user).collect();
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
            distance: Distance::of(dataset),
            trained: trained.map(|trained| trained.manifest.clone()),
            negatives: BTreeMap::new(),
            catalogue: None,
            cuts: arguments.at.clone(),
            groups: groups(dataset, &users),
        }
    }

    /// Adds the metrics of rankings with this many negatives, or of the whole catalogue.
    pub(super) fn add(
        &mut self,
        negatives: Option<usize>,
        beyond: &BeyondAccuracy<'_>,
        rankings: &[Sampled],
    ) {
        let Some(candidates) = rankings.first().map(|one| one.candidates) else { return };
        let metrics = Metric::at(&self.cuts, candidates);
        let ranked: Vec<(String, Draws)> =
            rankings.iter().map(|one| (one.name.clone(), one.ranks())).collect();
        let slices = self
            .groups
            .iter()
            .map(|group| {
                let members = &group.slice.members;
                let some: Vec<(String, Draws)> =
                    ranked.iter().map(|(name, draws)| (name.clone(), draws.of(members))).collect();
                SliceMetrics {
                    by: group.by,
                    least: *group.slice.range.start(),
                    most: *group.slice.range.end(),
                    users: members.len(),
                    metrics: rows(&some, &metrics, self.seed, false),
                }
            })
            .collect();
        let cuts: Vec<usize> = self.cuts.iter().copied().filter(|&k| k < candidates).collect();
        let values = |one: &Sampled| (one.name.clone(), beyond.values(&one.tops(), &cuts, self.seed));
        let table = Table {
            candidates,
            rankers: ranked.iter().map(|(name, _)| name.clone()).collect(),
            metrics: rows(&ranked, &metrics, self.seed, true),
            beyond_accuracy: rankings.iter().map(values).collect(),
            slices,
        };
        match negatives {
            Some(negatives) => _ = self.negatives.insert(negatives, table),
            None => self.catalogue = Some(table),
        }
    }

    /// Returns the content of the JSON file.
    pub(super) fn to_json(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("metrics are plain data");
        text + "\n"
    }
}

/// Returns the metrics of all rankers; `compared`: with the differences of trained models and item-kNN.
fn rows(ranked: &[(String, Draws)], metrics: &[Metric], seed: u64, compared: bool) -> Vec<Row> {
    let estimates: Vec<(String, Vec<Estimate>)> =
        ranked.iter().map(|(name, draws)| (name.clone(), draws.estimates(metrics, seed))).collect();
    let draws_of = |baseline: Baseline| {
        ranked.iter().find(|(name, _)| *name == baseline.to_string()).map(|(_, draws)| draws)
    };
    let (knn, popularity) = (draws_of(Baseline::ItemKnn), draws_of(Baseline::Popularity));
    let untrained = Baseline::ALL.map(|baseline| baseline.to_string());
    let trained = || ranked.iter().filter(|(name, _)| compared && !untrained.contains(name));
    metrics
        .iter()
        .enumerate()
        .map(|(index, &metric)| Row {
            metric: metric.to_string(),
            estimates: estimates
                .iter()
                .filter_map(|(name, estimates)| Some((name.clone(), *estimates.get(index)?)))
                .collect(),
            item_knn_less_popularity: knn
                .zip(popularity)
                .and_then(|(knn, other)| knn.compare(other, metric, seed)),
            less_item_knn: trained()
                .filter_map(|(name, draws)| Some((name.clone(), draws.compare(knn?, metric, seed)?)))
                .collect(),
        })
        .collect()
}

/// Returns the numbers that tables show.
fn shown(Estimate { mean, low, high, .. }: Estimate) -> results::Estimate {
    results::Estimate { mean, low, high }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let users = format!("{} of {} {} users", self.users_asked, self.held_out_users, self.part);
        for (negatives, table) in &self.negatives {
            let lists =
                format!("{negatives} negatives ({}), {} candidate samples", self.negatives_drawn, self.draws);
            writeln!(f, "{}: {lists}, {users}; 95 % intervals over users", self.data)?;
            table.show(f)?;
        }
        if let Some(table) = &self.catalogue {
            writeln!(
                f,
                "{}: all items outside the history as candidates, {users}; 95 % intervals over users",
                self.data
            )?;
            table.show(f)?;
        }
        Ok(())
    }
}

impl Table {
    /// Writes the metrics of all users, paired differences, and slices. The latter two have the NDCG with the largest cutoff;
    /// the file has the others.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in KINDS {
            let of_kind = |row: &&Row| row.metric.split('@').next() == Some(kind);
            let columns: Vec<(String, &Row)> =
                self.metrics.iter().filter(of_kind).map(|row| (row.metric.clone(), row)).collect();
            self.estimates(f, "", &columns)?;
        }
        let Some(row) = self.metrics.iter().rev().find(|row| row.metric.starts_with("NDCG")) else {
            return Ok(());
        };
        let difference = |one: &str, other: &str, Comparison { difference, p_value, .. }: &Comparison| {
            let names = format!("{one} less {other}");
            vec![names, row.metric.clone(), signed_interval(shown(*difference)), format!("{p_value:.4}")]
        };
        let (knn, popularity) = (Baseline::ItemKnn.to_string(), Baseline::Popularity.to_string());
        let mut differences = vec![["paired difference", "", "", "p"].map(str::to_owned).to_vec()];
        differences
            .extend(row.item_knn_less_popularity.iter().map(|found| difference(&knn, &popularity, found)));
        let trained = self.rankers.iter().filter_map(|name| Some((name, row.less_item_knn.get(name)?)));
        differences.extend(trained.map(|(name, found)| difference(name, &knn, found)));
        if differences.len() > 1 {
            f.write_str(&laid_out(&differences))?;
        }
        f.write_str(&self.lists())?;
        for slices in self.slices.chunk_by(|one, other| one.by == other.by) {
            let mut columns: Vec<(String, &Row)> = Vec::new();
            for slice in slices {
                let name = format!("{} {}–{}", slice.by.replace('_', " "), slice.least, slice.most);
                let own = slice.metrics.iter().find(|own| own.metric == row.metric);
                columns.extend(own.map(|own| (name, own)));
            }
            self.estimates(f, &row.metric, &columns)?;
        }
        writeln!(f)
    }

    /// Returns the metrics of lists with the largest cutoff; the file has the others.
    fn lists(&self) -> String {
        let all = || self.beyond_accuracy.values().flatten();
        let Some(k) = all().map(|value| value.k).max() else { return String::new() };
        let mut names: Vec<&str> = Vec::new();
        for value in all().filter(|value| value.k == k) {
            if !names.contains(&value.metric) {
                names.push(value.metric);
            }
        }
        let header = |name: &&str| format!("{name}@{k}");
        let mut rows: Vec<Vec<String>> =
            vec![std::iter::once(String::new()).chain(names.iter().map(header)).collect()];
        for ranker in &self.rankers {
            let own = self.beyond_accuracy.get(ranker).map_or(&[][..], Vec::as_slice);
            let cell = |name: &&str| {
                let value = own.iter().find(|value| value.metric == *name && value.k == k);
                value.map_or("–".to_owned(), |value| {
                    if value.has_interval {
                        interval(shown(value.estimate))
                    } else {
                        format!("{:.3}", value.estimate.mean)
                    }
                })
            };
            rows.push(std::iter::once(ranker.clone()).chain(names.iter().map(cell)).collect());
        }
        laid_out(&rows)
    }

    /// Writes a table with a row for each ranker.
    fn estimates(&self, f: &mut fmt::Formatter<'_>, corner: &str, columns: &[(String, &Row)]) -> fmt::Result {
        if columns.is_empty() {
            return Ok(());
        }
        let mut rows = vec![
            std::iter::once(corner.to_owned())
                .chain(columns.iter().map(|(name, _)| name.clone()))
                .collect::<Vec<_>>(),
        ];
        for ranker in &self.rankers {
            let cell = |(_, row): &(String, &Row)| {
                row.estimates
                    .get(ranker)
                    .copied()
                    .map_or("–".to_owned(), |estimate| interval(shown(estimate)))
            };
            rows.push(std::iter::once(ranker.clone()).chain(columns.iter().map(cell)).collect());
        }
        f.write_str(&laid_out(&rows))
    }
}
