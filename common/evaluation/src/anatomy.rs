//! The anatomy of a step: for how long each activity was in progress, from a row of metrics.jsonl.

use std::collections::BTreeMap;

/// Prefix of its metrics.
const PREFIX: &str = "time/";

/// The times of a step. Activities overlap, so that their sum may exceed the step.
#[derive(Debug, Clone, PartialEq)]
pub struct Anatomy {
    /// Seconds from the commit of the step before to that of the step.
    pub step: f64,
    /// Share in which a worker sampled or a rank computed its update.
    pub computing: f64,
    /// Name of each activity and the seconds in which it was in progress in any process, the longest first.
    pub activities: Vec<(String, f64)>,
    /// Seconds without any of them.
    pub other: f64,
}

impl Anatomy {
    /// Returns the anatomy of a row; `None` if the row has none.
    pub fn of(row: &BTreeMap<String, f64>) -> Option<Self> {
        let (step, computing) = (*row.get("step_time")?, *row.get("time/computing")?);
        let named = row.iter().filter_map(|(name, &seconds)| Some((name.strip_prefix(PREFIX)?, seconds)));
        let named = named.filter(|(name, _)| !["computing", "other"].contains(name));
        let mut activities: Vec<(String, f64)> =
            named.map(|(name, seconds)| (name.to_owned(), seconds)).collect();
        activities.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Some(Self { step, computing, activities, other: *row.get("time/other")? })
    }

    /// Returns the median of each value over the rows that have it; `None` without such rows.
    pub fn median(rows: &[BTreeMap<String, f64>]) -> Option<Self> {
        let mut values: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        for (name, value) in rows.iter().flatten() {
            if name == "step_time" || name.starts_with(PREFIX) {
                values.entry(name).or_default().push(*value);
            }
        }
        let median = |(name, mut values): (&String, Vec<f64>)| {
            values.sort_by(f64::total_cmp);
            let middle = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
            (name.clone(), middle)
        };
        Self::of(&values.into_iter().map(median).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: f64, sample: f64, update: f64) -> BTreeMap<String, f64> {
        let values = [
            ("step_time", step),
            ("time/sample", sample),
            ("time/update", update),
            ("time/computing", (sample + update) / step),
            ("time/other", step - sample - update),
            ("reward", 3.0),
        ];
        values.map(|(name, value)| (name.to_owned(), value)).into()
    }

    #[test]
    fn activities_are_listed_by_their_time() {
        let anatomy = Anatomy::of(&row(2.0, 0.5, 1.0)).unwrap();
        assert_eq!(anatomy.activities, [("update".to_owned(), 1.0), ("sample".to_owned(), 0.5)]);
        assert_eq!((anatomy.step, anatomy.computing, anatomy.other), (2.0, 0.75, 0.5));
        assert_eq!(Anatomy::of(&BTreeMap::from([("step_time".to_owned(), 1.0)])), None);
    }

    #[test]
    fn each_value_has_its_own_median() {
        let rows = [row(2.0, 0.5, 1.0), row(8.0, 1.0, 2.0), row(4.0, 3.0, 0.5), row(4.0, 3.5, 0.5)];
        let median = Anatomy::median(&rows).unwrap();
        assert_eq!(median.activities, [("sample".to_owned(), 2.0), ("update".to_owned(), 0.75)]);
        assert_eq!((median.step, median.other), (4.0, 0.5));
        assert_eq!(Anatomy::median(&[]), None);
    }
}
