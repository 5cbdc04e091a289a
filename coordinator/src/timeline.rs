//! Activities of workers, learner ranks and the coordinator, and the anatomy of a step: for how long of it each activity
//! was in progress. Only for users: no result depends on it, and a restart loses the times before it.

mod intervals;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use podium_proto::v1;

use intervals::Intervals;

/// Prefix of the metrics of a step's anatomy.
const PREFIX: &str = "time/";
/// Name of the share of a step in which a worker samples or a rank computes its update.
pub const COMPUTING: &str = "time/computing";

/// Maximum number of spans that are read from a message.
const MOST_SPANS: usize = 256;

/// Something that takes time in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// The coordinator assigns a lease and writes its prompts.
    Lease,
    /// A worker links or downloads a policy version.
    Fetch,
    /// A worker loads it onto its device.
    Load,
    /// A worker samples groups of a step.
    Sample,
    /// A worker samples held-out answers.
    Evaluate,
    /// The coordinator checks and scores results.
    Grade,
    /// The coordinator waits for external rewards.
    Reward,
    /// The coordinator stores results.
    Store,
    /// The coordinator sends a rank its share of a step.
    Batch,
    /// A rank computes a step.
    Update,
    /// Rank 0 writes the files of a policy version.
    Save,
    /// Rank 0 publishes it.
    Publish,
    /// A rank gathers or writes a checkpoint.
    Checkpoint,
    /// The coordinator creates and stores the record of the step before.
    Commit,
}

use Activity::{
    Batch, Checkpoint, Commit, Evaluate, Fetch, Grade, Lease, Load, Publish, Reward, Sample, Save, Store,
    Update,
};

/// All activities with their names in metrics.
const ALL: [(Activity, &str); 14] = [
    (Lease, "lease"),
    (Fetch, "fetch"),
    (Load, "load"),
    (Sample, "sample"),
    (Evaluate, "evaluate"),
    (Grade, "grade"),
    (Reward, "reward"),
    (Store, "store"),
    (Batch, "batch"),
    (Update, "update"),
    (Save, "save"),
    (Publish, "publish"),
    (Checkpoint, "checkpoint"),
    (Commit, "commit"),
];

/// Returns the activity of a metric of the anatomy, `other` included. Rank 0 reports metrics of any name.
pub fn activity_of(metric: &str) -> Option<&'static str> {
    let name = metric.strip_prefix(PREFIX)?;
    ALL.iter().map(|(_, known)| *known).chain(["other"]).find(|known| *known == name)
}

/// The activities since the last step.
#[derive(Debug)]
pub struct Timeline {
    origin: Instant,
    /// The times at which any process was engaged in an activity.
    activities: Mutex<BTreeMap<Activity, Intervals>>,
}

impl Timeline {
    /// Creates a timeline that begins now.
    pub fn new() -> Self {
        Self { origin: Instant::now(), activities: Mutex::default() }
    }

    /// Records an activity of the coordinator from `began` until now.
    pub fn record(&self, activity: Activity, began: Instant) {
        self.add(activity, began, Instant::now());
    }

    /// Records spans of a message that arrived now. Spans of unknown activities are ignored.
    pub fn reported(&self, spans: &[v1::ActivitySpan]) {
        let now = Instant::now();
        let before = |us: u64| now.checked_sub(Duration::from_micros(us)).unwrap_or(self.origin);
        for span in spans.iter().take(MOST_SPANS) {
            if let Some(activity) = reported(span.activity()) {
                self.add(activity, before(span.began_us), before(span.ended_us));
            }
        }
    }

    /// Returns the anatomy of the time between two instants, as metrics by name: for how many seconds each
    /// activity was in progress anywhere, for how many none was (`time/other`), and the share in which a
    /// worker sampled or a rank computed ([`COMPUTING`]).
    pub fn anatomy(&self, began: Instant, ended: Instant) -> BTreeMap<String, f64> {
        let (start, end) = (self.micros(began), self.micros(ended));
        let activities = self.activities.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = |intervals: &Intervals| intervals.within(start, end) as f64 / 1e6;
        let any = Intervals::union(activities.values());
        let computing = [Sample, Evaluate, Update];
        let computing = Intervals::union(computing.iter().filter_map(|activity| activities.get(activity)));
        let all = end.saturating_sub(start) as f64 / 1e6;
        let named = |&(activity, name): &(Activity, &str)| {
            (format!("{PREFIX}{name}"), activities.get(&activity).map_or(0.0, seconds))
        };
        let mut anatomy: BTreeMap<String, f64> = ALL.iter().map(named).collect();
        anatomy.insert(format!("{PREFIX}other"), all - seconds(&any));
        anatomy.insert(COMPUTING.to_owned(), if all > 0.0 { seconds(&computing) / all } else { 0.0 });
        anatomy
    }

    /// Forgets all activities before a time.
    pub fn forget_before(&self, time: Instant) {
        let time = self.micros(time);
        let mut activities = self.activities.lock().unwrap_or_else(PoisonError::into_inner);
        activities.values_mut().for_each(|intervals| intervals.forget_before(time));
    }

    fn add(&self, activity: Activity, began: Instant, ended: Instant) {
        let (start, end) = (self.micros(began), self.micros(ended));
        let mut activities = self.activities.lock().unwrap_or_else(PoisonError::into_inner);
        activities.entry(activity).or_default().add(start, end);
    }

    /// Returns the microseconds since the origin; 0 before it.
    fn micros(&self, time: Instant) -> u64 {
        time.saturating_duration_since(self.origin).as_micros() as u64
    }
}

impl Default for Timeline {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the activity of a message; `None` for those of later protocols.
const fn reported(activity: v1::Activity) -> Option<Activity> {
    Some(match activity {
        v1::Activity::Unspecified => return None,
        v1::Activity::Fetch => Fetch,
        v1::Activity::Load => Load,
        v1::Activity::Sample => Sample,
        v1::Activity::Evaluate => Evaluate,
        v1::Activity::Update => Update,
        v1::Activity::Save => Save,
        v1::Activity::Publish => Publish,
        v1::Activity::Checkpoint => Checkpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_anatomy_of_a_step_counts_every_instant_once() {
        let timeline = Timeline::new();
        let at = |ms: u64| timeline.origin + Duration::from_millis(ms);
        // Before the step; two workers at once; an update during an evaluation.
        for (activity, began, ended) in [
            (Sample, 0, 150),
            (Sample, 160, 300),
            (Sample, 250, 400),
            (Store, 400, 420),
            (Evaluate, 430, 700),
            (Update, 500, 800),
            (Commit, 90, 110),
        ] {
            timeline.add(activity, at(began), at(ended));
        }
        let anatomy = timeline.anatomy(at(100), at(1100));
        let expected = BTreeMap::from([
            ("time/sample", 0.05 + 0.24),
            ("time/store", 0.02),
            ("time/evaluate", 0.27),
            ("time/update", 0.3),
            ("time/commit", 0.01),
            ("time/other", 0.01 + 0.01 + 0.3),
            ("time/computing", 0.05 + 0.24 + 0.37),
        ]);
        for (name, value) in &anatomy {
            let expected = expected.get(name.as_str()).copied().unwrap_or(0.0);
            assert!((value - expected).abs() < 1e-9, "{name} is {value}, not {expected}");
        }
        assert_eq!(anatomy.len(), ALL.len() + 2);
        timeline.forget_before(at(1100));
        let next = timeline.anatomy(at(1100), at(1200));
        assert!(next.iter().all(|(name, &value)| name == "time/other" || value == 0.0), "{next:?}");
    }

    #[test]
    fn reported_times_are_relative_to_the_arrival() {
        let timeline = Timeline::new();
        let span = |activity: v1::Activity, began_us, ended_us| v1::ActivitySpan {
            activity: activity.into(),
            began_us,
            ended_us,
        };
        // As if the timeline had begun earlier than the longest span.
        let timeline =
            Timeline { origin: timeline.origin.checked_sub(Duration::from_secs(9)).unwrap(), ..timeline };
        timeline.reported(&[
            span(v1::Activity::Update, 3_000_000, 1_000_000),
            span(v1::Activity::Update, 3_000_000, 1_000_000),
            span(v1::Activity::Sample, u64::MAX, 8_000_000),
            span(v1::Activity::Load, 1, 2),
            span(v1::Activity::Unspecified, 3_000_000, 0),
            v1::ActivitySpan { activity: 99, began_us: 5, ended_us: 0 },
        ]);
        let anatomy = timeline.anatomy(timeline.origin, Instant::now());
        assert!((anatomy["time/update"] - 2.0).abs() < 1e-5, "a repeated span counts once: {anatomy:?}");
        assert!(anatomy["time/sample"] >= 1.0, "{anatomy:?}");
        assert_eq!(anatomy["time/load"].to_bits(), 0.0_f64.to_bits());
    }
}
