//! Metrics of recommendation lists beyond accuracy: coverage of the catalogue, concentration of exposure, novelty and
//! intra-list diversity of the first K items.
//!
//! | metric | definition | source |
//! |---|---|---|
//! | `coverage` | share of the catalogue that is in at least one list | Ge, Delgado-Battenfeld and Jannach 2010 |
//! | `gini` | Gini index of the number of lists with each item of the catalogue: 0 if all items have equally many, 1 if one item has all | Shani and Gunawardana 2011 |
//! | `novelty` | mean self-information of the items in bits, −log₂((n + 1) / (N + I)) for an item with n of all N training interactions in a catalogue of I items | Zhou et al. 2010; Vargas and Castells 2011 |
//! | `diversity` | mean [`Distance`] of the pairs of items | Ziegler et al. 2005 |
//! | `cold` | share of the items without training interactions; only if the catalogue has such items | |
//!
//! Coverage and Gini are of all lists together and have no interval. The others are means over users, with intervals; a
//! user without a list is excluded.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::estimate::{Estimate, estimate_values};
use super::probes::user_means;
use crate::dataset::Dataset;
use crate::ids::ItemId;

/// Largest number of pairs whose distances are stored, in about 50 MiB. Further pairs are computed each time.
const STORED_PAIRS: usize = 7 << 18;
/// Ratio of the sizes of two sets from which members of the shorter are searched in the longer.
const SEARCHED: usize = 16;

/// Distance of two items: 1 − the cosine of two sets, 1 − |A ∩ B| / √(|A| |B|). An item with an empty set has distance 1
/// to all items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// Sets of the different words of captions, in lower case, if every item of the catalogue has a caption.
    Captions,
    /// Sets of the training users with the item, as in item-kNN.
    CoOccurrence,
}

impl Distance {
    /// Returns the distance of the items of `dataset`.
    pub fn of(dataset: &Dataset) -> Self {
        let items = dataset.catalogue.items();
        if !items.is_empty() && items.iter().all(|item| item.caption.is_some()) {
            Self::Captions
        } else {
            Self::CoOccurrence
        }
    }
}

/// A metric of the first K items of all lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Written")]
pub struct ListValue {
    /// Name of the metric.
    pub metric: &'static str,
    /// Number of items.
    pub k: usize,
    /// The value: a mean over users, or the value of all lists together.
    pub estimate: Estimate,
    /// Whether it is a mean over users with an interval.
    pub has_interval: bool,
}

/// A value as JSON: limits of the interval only if there is one.
#[derive(Serialize)]
struct Written {
    metric: &'static str,
    k: usize,
    estimate: WrittenEstimate,
    has_interval: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenEstimate {
    Interval(Estimate),
    Plain { mean: f64, count: usize },
}

impl From<ListValue> for Written {
    fn from(ListValue { metric, k, estimate, has_interval }: ListValue) -> Self {
        let Estimate { mean, count, .. } = estimate;
        let estimate = if has_interval {
            WrittenEstimate::Interval(estimate)
        } else {
            WrittenEstimate::Plain { mean, count }
        };
        Self { metric, k, estimate, has_interval }
    }
}

/// The properties of items that the metrics depend on, by position in the catalogue.
#[derive(Debug)]
pub struct BeyondAccuracy<'a> {
    dataset: &'a Dataset,
    distance: Distance,
    /// Sets of the distance, ascending.
    sets: Vec<Vec<u32>>,
    /// Distances of pairs by positions, the smaller first. Lists share most of their pairs.
    distances: RefCell<HashMap<(usize, usize), f64>>,
    /// Self-information in bits.
    information: Vec<f64>,
    has_cold: bool,
}

impl<'a> BeyondAccuracy<'a> {
    /// Reads the training interactions and captions of `dataset`.
    pub fn new(dataset: &'a Dataset) -> Self {
        let items = dataset.catalogue.items();
        let total: u64 = items.iter().map(|item| item.interactions).sum();
        let all = (total + items.len() as u64) as f64;
        let distance = Distance::of(dataset);
        Self {
            distance,
            sets: match distance {
                Distance::Captions => words(dataset),
                Distance::CoOccurrence => users(dataset),
            },
            distances: RefCell::default(),
            information: items.iter().map(|item| (all / (item.interactions + 1) as f64).log2()).collect(),
            has_cold: items.iter().any(|item| item.interactions == 0),
            dataset,
        }
    }

    /// Returns the distance of the diversity.
    pub const fn distance(&self) -> Distance {
        self.distance
    }

    /// Returns the metrics at each of `ks` of the lists by candidate sample and user, best item first. An empty list
    /// stands for no answer.
    pub fn values<L: AsRef<[ItemId]>>(&self, lists: &[Vec<L>], ks: &[usize], seed: u64) -> Vec<ListValue> {
        ks.iter().filter(|&&k| k > 0).flat_map(|&k| self.at(lists, k, seed)).collect()
    }

    fn at<L: AsRef<[ItemId]>>(&self, lists: &[Vec<L>], k: usize, seed: u64) -> Vec<ListValue> {
        let position = |item: &ItemId| self.dataset.catalogue.position(*item);
        let first = |list: &L| list.as_ref().iter().take(k).filter_map(position).collect::<Vec<usize>>();
        let lists: Vec<Vec<Vec<usize>>> =
            lists.iter().map(|sample| sample.iter().map(first).collect()).collect();
        let users = lists.first().map_or(0, Vec::len);
        let mut counts = vec![0_u64; self.sets.len()];
        for item in lists.iter().flatten().flatten() {
            counts[*item] += 1;
        }
        let value = |metric, estimate, has_interval| ListValue { metric, k, estimate, has_interval };
        let plain =
            |metric, mean| value(metric, Estimate { mean, low: mean, high: mean, count: users }, false);
        let covered = counts.iter().filter(|&&count| count > 0).count();
        let mut values = vec![plain("coverage", covered as f64 / counts.len().max(1) as f64)];
        values.extend(gini(&mut counts).map(|gini| plain("gini", gini)));
        let mean = |list: &Vec<usize>, of: &dyn Fn(usize) -> f64| {
            (!list.is_empty()).then(|| [list.iter().map(|&item| of(item)).sum::<f64>() / list.len() as f64])
        };
        let [novelty] = user_means(&lists, |list| mean(list, &|item| self.information[item]));
        let [diversity] = user_means(&lists, |list| self.mean_distance(list).map(|mean| [mean]));
        let is_cold = |item: usize| f64::from(self.dataset.catalogue.items()[item].interactions == 0);
        let [cold] = user_means(&lists, |list| mean(list, &is_cold).filter(|_| self.has_cold));
        for (metric, means) in [("novelty", novelty), ("diversity", diversity), ("cold", cold)] {
            let estimate = estimate_values(&[means], seed).pop();
            values.extend(estimate.map(|estimate| value(metric, estimate, true)));
        }
        values
    }

    /// Returns the mean distance of all pairs; `None` for fewer than two items.
    fn mean_distance(&self, list: &[usize]) -> Option<f64> {
        let pairs =
            || list.iter().enumerate().flat_map(|(n, one)| list[..n].iter().map(move |other| (one, other)));
        let count = list.len() * list.len().saturating_sub(1) / 2;
        let sum: f64 = pairs().map(|(&one, &other)| self.distance_of(one, other)).sum();
        (count > 0).then(|| sum / count as f64)
    }

    fn distance_of(&self, one: usize, other: usize) -> f64 {
        let pair = (one.min(other), one.max(other));
        let mut known = self.distances.borrow_mut();
        if let Some(&distance) = known.get(&pair) {
            return distance;
        }
        let distance = distance(&self.sets[one], &self.sets[other]);
        if known.len() < STORED_PAIRS {
            known.insert(pair, distance);
        }
        distance
    }
}

/// Returns the Gini index of some counts, which are sorted; `None` if all are 0, and for fewer than two.
fn gini(counts: &mut [u64]) -> Option<f64> {
    counts.sort_unstable();
    let (n, total) = (counts.len() as f64, counts.iter().sum::<u64>() as f64);
    if counts.len() < 2 || total == 0.0 {
        return None;
    }
    let weighted = |(rank, &count): (usize, &u64)| (2.0 * (rank as f64 + 1.0) - n - 1.0) * count as f64;
    Some(counts.iter().enumerate().map(weighted).sum::<f64>() / ((n - 1.0) * total))
}

/// Returns 1 − the cosine of two ascending sets.
fn distance(one: &[u32], other: &[u32]) -> f64 {
    if one.is_empty() || other.is_empty() {
        return 1.0;
    }
    1.0 - shared(one, other) as f64 / ((one.len() * other.len()) as f64).sqrt()
}

/// Returns the number of common members of two ascending sets.
fn shared(one: &[u32], other: &[u32]) -> usize {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    if long.len() / SEARCHED >= short.len() {
        return short.iter().filter(|number| long.binary_search(number).is_ok()).count();
    }
    let (mut short, mut long, mut count) = (short, long, 0);
    while let ([first, after @ ..], [other, rest @ ..]) = (short, long) {
        count += usize::from(first == other);
        (short, long) =
            (if first <= other { after } else { short }, if other <= first { rest } else { long });
    }
    count
}

/// Returns the sets of words of all captions, as numbers.
fn words(dataset: &Dataset) -> Vec<Vec<u32>> {
    let mut numbers: BTreeMap<String, u32> = BTreeMap::new();
    let mut set = |caption: &str| {
        let caption = caption.to_lowercase();
        let words = caption.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
        let next = |word: &str, numbers: &mut BTreeMap<String, u32>| {
            let number = numbers.len() as u32;
            *numbers.entry(word.to_owned()).or_insert(number)
        };
        ascending(words.map(|word| next(word, &mut numbers)).collect())
    };
    dataset.catalogue.items().iter().map(|item| set(item.caption.as_deref().unwrap_or_default())).collect()
}

/// Returns the sets of training users of all items.
fn users(dataset: &Dataset) -> Vec<Vec<u32>> {
    let mut sets = vec![Vec::new(); dataset.catalogue.len()];
    for (user, number) in dataset.train.iter().zip(0_u32..) {
        for position in user.items.iter().filter_map(|&item| dataset.catalogue.position(item)) {
            sets[position].push(number);
        }
    }
    sets.into_iter().map(ascending).collect()
}

fn ascending(mut numbers: Vec<u32>) -> Vec<u32> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset;

    /// Four items: the first with four interactions, the second with two, the third with one, the last without any.
    fn dataset(captions: [Option<&str>; 4]) -> Dataset {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop");
        std::fs::create_dir(&path).unwrap();
        let file = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        file("train.tsv", "1\t0 1 0\n2\t1 0\n3\t2 0\n");
        file("test.tsv", "9\t0 1\n");
        file("shop_titles.csv", "item_id,title\n0,A\n1,B\n2,C\n3,D\n");
        let texts: BTreeMap<String, serde_json::Value> = captions
            .iter()
            .enumerate()
            .filter_map(|(id, caption)| {
                Some((id.to_string(), serde_json::json!({"title": "", "caption": (*caption)?})))
            })
            .collect();
        file("shop_captions.json", &serde_json::to_string(&texts).unwrap());
        let options = dataset::Options {
            min_interactions: 2,
            validation: dataset::Validation::None,
            ..dataset::Options::default()
        };
        Dataset::load(&path, &options).unwrap()
    }

    fn find(values: &[ListValue], metric: &str) -> Option<f64> {
        values.iter().find(|value| value.metric == metric).map(|value| value.estimate.mean)
    }

    fn lists(of_users: &[&[u64]]) -> Vec<Vec<Vec<ItemId>>> {
        vec![of_users.iter().map(|items| items.iter().copied().map(ItemId).collect()).collect()]
    }

    fn near(found: Option<f64>, expected: f64) -> bool {
        found.is_some_and(|found| (found - expected).abs() < 1e-12)
    }

    #[test]
    fn values_match_a_computation_by_hand() {
        let dataset = dataset([None; 4]);
        let beyond = BeyondAccuracy::new(&dataset);
        assert_eq!(beyond.distance(), Distance::CoOccurrence);
        let values = beyond.values(&lists(&[&[0, 1, 3], &[0, 2, 1], &[]]), &[2], 0);
        // Items 0, 1 and 0, 2: three of four items, with 2, 1, 1, 0 lists; Σ (2j − 5) c = −1 + 1 + 6 over 3 · 4.
        assert!(near(find(&values, "coverage"), 0.75), "{values:?}");
        assert!(near(find(&values, "gini"), 0.5), "{values:?}");
        // Seven interactions and four items: 11 / 5, 11 / 3, 11 / 2.
        let (popular, middle, rare) =
            ((11.0_f64 / 5.0).log2(), (11.0_f64 / 3.0).log2(), (11.0_f64 / 2.0).log2());
        assert!(near(find(&values, "novelty"), (2.0 * popular + middle + rare) / 4.0), "{values:?}");
        // Item 0 has users 1, 2, 3, item 1 users 1 and 2, item 2 user 3.
        let expected = (2.0 - 2.0 / 6.0_f64.sqrt() - 1.0 / 3.0_f64.sqrt()) / 2.0;
        assert!(near(find(&values, "diversity"), expected), "{values:?}");
        assert!(near(find(&values, "cold"), 0.0));
        let three = beyond.values(&lists(&[&[0, 1, 3]]), &[3], 0);
        assert!(near(find(&three, "cold"), 1.0 / 3.0), "{three:?}");
        let novelty = values.iter().find(|value| value.metric == "novelty").unwrap();
        assert!(novelty.estimate.count == 2 && novelty.has_interval, "the user without a list is excluded");
        for value in &values {
            let written = serde_json::to_value(value).unwrap();
            assert_eq!(written["estimate"].get("low").is_some(), value.has_interval, "{written}");
        }
    }

    #[test]
    fn sets_of_any_sizes_share_their_common_members() {
        let long: Vec<u32> = (0..100).map(|number| 3 * number).collect();
        let sets: [&[u32]; 4] = [&[], &[0, 1, 297, 300], &[3, 4, 5, 6, 8, 9, 10, 12, 299], &long];
        for short in sets {
            let expected = short.iter().filter(|number| long.contains(number)).count();
            assert_eq!((shared(short, &long), shared(&long, short)), (expected, expected), "{short:?}");
        }
    }

    #[test]
    fn complete_captions_define_the_distance() {
        let dataset = dataset([Some("Red shoe"), Some("a red, RED hat"), Some("blue"), Some("hat")]);
        let beyond = BeyondAccuracy::new(&dataset);
        assert_eq!(beyond.distance(), Distance::Captions);
        // {red, shoe} and {a, red, hat}.
        let values = beyond.values(&lists(&[&[0, 1]]), &[1, 2], 0);
        assert!(near(find(&values, "diversity"), 1.0 - 1.0 / 6.0_f64.sqrt()), "{values:?}");
        assert_eq!(
            values.iter().filter(|value| value.metric == "diversity").count(),
            1,
            "one item has no pair"
        );
    }

    #[test]
    fn exposure_of_one_item_is_concentrated_and_of_all_is_even() {
        assert!(near(gini(&mut [0, 0, 5]), 1.0) && near(gini(&mut [2, 2, 2]), 0.0));
        assert_eq!((gini(&mut [0, 0]), gini(&mut [3])), (None, None));
        let dataset = dataset([None; 4]);
        let none = BeyondAccuracy::new(&dataset).values(&lists(&[&[], &[]]), &[1], 0);
        assert!(near(find(&none, "coverage"), 0.0) && none.len() == 1, "{none:?}");
    }
}
