//! Reads the records of a run from its folder: the rows and values for tables and the report.
//!
//! A row that is still being written is skipped.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use podium_recsys::dataset::HeldOut;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The reasons why recorded results cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A row is invalid.
    #[error("{} line {line} is invalid", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The parser's error.
        source: serde_json::Error,
    },
}

/// A mean over evaluated users with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Estimate {
    /// Mean over users.
    pub mean: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// Gains of reward and held-out ranking over the watch's window, with 99 % intervals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watch {
    /// The policy version at the start of the window.
    pub from_version: u64,
    /// Gain of the mean reward.
    pub reward_gain: Estimate,
    /// Gain of the ranking metric of the evaluated users.
    pub ranking_gain: Estimate,
}

/// A row of evaluations.jsonl.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Evaluation {
    /// The evaluated policy version.
    pub policy_version: u64,
    /// The evaluated part of the data set; `None` in files of versions without a validation part, which evaluated the
    /// test part.
    #[serde(default)]
    pub part: Option<HeldOut>,
    /// Number of evaluated users.
    pub users: u64,
    /// Fraction of well-formed answers.
    #[serde(default, rename = "completions/well_formed")]
    pub well_formed: Option<f64>,
    /// Mean length of completions, in tokens.
    #[serde(default)]
    pub mean_length: Option<f64>,
    /// Paired difference from the initial policy, by metric.
    #[serde(default)]
    pub change_from_start: Option<BTreeMap<String, Estimate>>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

impl Evaluation {
    /// Returns the name of the evaluated part: "validation" or "test", and "held-out" if it is not recorded.
    pub const fn part_name(&self) -> &'static str {
        match self.part {
            Some(HeldOut::Validation) => "validation",
            Some(HeldOut::Test) => "test",
            None => "held-out",
        }
    }

    /// Whether the users are those by which the run chooses its best version.
    pub fn is_validation(&self) -> bool {
        self.part == Some(HeldOut::Validation)
    }

    /// Returns a metric such as `HR@1`.
    pub fn metric(&self, name: &str) -> Option<Estimate> {
        Estimate::deserialize(self.rest.get(name)?).ok()
    }

    /// Returns the names of hit rates and NDCG, in this order: HR@1 first, NDCG last.
    pub fn headline_metrics(&self) -> Vec<String> {
        self.rest.keys().filter(|name| is_headline(name)).cloned().collect()
    }

    /// Returns a metric without an interval.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.rest.get(name)?.as_f64()
    }

    /// Returns the comparison of the inflation watch, once its window was full.
    pub fn watch(&self) -> Option<Watch> {
        Some(Watch {
            from_version: self.rest.get("watch/from_version")?.as_u64()?,
            reward_gain: self.metric("watch/reward_gain")?,
            ranking_gain: self.metric("watch/ranking_gain")?,
        })
    }

    /// Whether the reward rises without the ranking.
    pub fn is_inflated(&self) -> bool {
        self.number("watch/inflated") == Some(1.0)
    }

    /// Returns the same metrics of the ranking by likelihood, if there is one.
    pub fn likelihood_metrics(&self) -> Vec<String> {
        let names = self.headline_metrics().into_iter().map(|name| format!("likelihood/{name}"));
        names.filter(|name| self.rest.contains_key(name)).collect()
    }

    /// Returns hit rates and NDCG of users with a warm target and of those with a cold one, in pairs; empty if all
    /// users are of one kind.
    pub fn metrics_of_parts(&self) -> Vec<String> {
        let names =
            self.headline_metrics().into_iter().flat_map(|name| PARTS.map(|part| format!("{part}/{name}")));
        names.filter(|name| self.rest.contains_key(name)).collect()
    }

    /// Returns the numbers of users with a warm and a cold target.
    pub fn users_of_parts(&self) -> Option<(u64, u64)> {
        let [warm, cold] = PARTS.map(|part| self.rest.get(&format!("{part}/users"))?.as_u64());
        warm.zip(cold)
    }

    /// Returns the paired difference of a metric from the first evaluation.
    pub fn change(&self, name: &str) -> Option<Estimate> {
        self.change_from_start.as_ref()?.get(name).copied()
    }
}

/// Held-out users by whether their target occurs in training interactions.
const PARTS: [&str; 2] = ["warm", "cold"];

/// Whether tables show a metric.
pub fn is_headline(name: &str) -> bool {
    (name.starts_with("HR@") || name.starts_with("NDCG@")) && !name.contains('/')
}

/// baselines.json: values without training and with perfect knowledge, by metric.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Baselines {
    /// A random ranking.
    pub random: BTreeMap<String, f64>,
    /// Ranking by popularity.
    pub popularity: BTreeMap<String, f64>,
    /// Item-kNN.
    pub item_knn: BTreeMap<String, f64>,
    /// The expected values of the best ranking, if the data set's probabilities are known.
    pub best_possible: Option<BTreeMap<String, f64>>,
    /// The smallest and the largest reward of an answer.
    pub reward_range: Option<(f64, f64)>,
}

impl Baselines {
    /// The best possible value of a metric.
    pub fn best(&self, metric: &str) -> Option<f64> {
        self.best_possible.as_ref()?.get(metric).copied()
    }
}

/// A row of metrics.jsonl: values by name.
pub type Step = BTreeMap<String, f64>;

/// The input of tables and the report.
#[derive(Debug, Default)]
pub struct Results {
    /// By step.
    pub steps: Vec<Step>,
    /// By policy version.
    pub evaluations: Vec<Evaluation>,
    /// Empty before the coordinator has written baselines.json.
    pub baselines: Baselines,
}

impl Results {
    /// Returns the name of the evaluated part, as [`Evaluation::part_name`].
    pub fn part_name(&self) -> &'static str {
        self.evaluations.last().map_or("held-out", Evaluation::part_name)
    }

    /// Returns the evaluation with the highest `metric`; the earliest of equal ones.
    pub fn best(&self, metric: &str) -> Option<&Evaluation> {
        let known = |row: &'_ &Evaluation| row.metric(metric).is_some();
        let mean = |row: &Evaluation| row.metric(metric).map_or(0.0, |value| value.mean);
        self.evaluations.iter().filter(known).rev().max_by(|one, other| mean(one).total_cmp(&mean(other)))
    }

    /// Reads a run folder; missing files are empty.
    pub fn read(out: &Path) -> Result<Self, Error> {
        let mut evaluations: Vec<Evaluation> = rows(&out.join("evaluations.jsonl"))?;
        evaluations.sort_by_key(|evaluation| evaluation.policy_version);
        Ok(Self {
            steps: rows(&out.join("metrics.jsonl"))?.into_iter().map(numbers).collect(),
            evaluations,
            baselines: document(&out.join("baselines.json"))?.unwrap_or_default(),
        })
    }
}

/// Returns the entries of a row that are numbers.
fn numbers(row: BTreeMap<String, serde_json::Value>) -> Step {
    row.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect()
}

/// Returns the complete lines of a JSON Lines file; none without a file.
pub fn rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    let Some(text) = read(path)? else { return Ok(Vec::new()) };
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(index, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|source| Error::Row {
            path: path.to_owned(),
            line: index + 1,
            source,
        })
    };
    complete.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parse).collect()
}

/// Reads a file with one JSON value, if it exists.
pub fn document<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let parse = |text: String| {
        let failed =
            |source: serde_json::Error| Error::Row { path: path.to_owned(), line: source.line(), source };
        serde_json::from_str(&text).map_err(failed)
    };
    read(path)?.map(parse).transpose()
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_except_an_incomplete_one() {
        let folder = tempfile::tempdir().unwrap();
        let rows = "{\"policy_version\":2,\"step\":2,\"users\":9,\"HR@1\":{\"mean\":0.5,\"low\":0.4,\"high\":0.6}}\n\
                    {\"policy_version\":0,\"step\":0,\"users\":9}\n{\"policy_ver";
        std::fs::write(folder.path().join("evaluations.jsonl"), rows).unwrap();
        std::fs::write(folder.path().join("metrics.jsonl"), "{\"step\":1,\"reward\":0.25,\"note\":\"x\"}\n")
            .unwrap();
        let results = Results::read(folder.path()).unwrap();
        assert_eq!(results.evaluations.iter().map(|row| row.policy_version).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(results.evaluations[1].metric("HR@1"), Some(Estimate { mean: 0.5, low: 0.4, high: 0.6 }));
        assert_eq!(results.evaluations[1].metric("HR@3"), None);
        assert_eq!(results.steps, [Step::from([("step".into(), 1.0), ("reward".into(), 0.25)])]);
    }

    #[test]
    fn an_invalid_row_is_named_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("metrics.jsonl"), "{}\n{\n").unwrap();
        let message = Results::read(folder.path()).unwrap_err().to_string();
        assert!(message.contains("metrics.jsonl line 2"), "{message}");
    }
}
