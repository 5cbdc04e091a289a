//! Records the activities of a process, for its reports to the coordinator.
//!
//! Spans travel with messages that are sent anyway, as times before the sending, so that clocks need not agree.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use podium_proto::v1::{Activity, ActivitySpan};

/// Maximum number of finished spans that wait for a message; the oldest are dropped.
const MOST_WAITING: usize = 64;

/// The activities of a process that the coordinator has not received. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Activities(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Number of spans that have begun or finished.
    next: u64,
    /// Spans in progress, by the number of their beginning.
    running: BTreeMap<u64, (Activity, Instant)>,
    /// Finished spans, in order.
    finished: VecDeque<Finished>,
}

#[derive(Debug, Clone, Copy)]
struct Finished {
    /// The number of its end.
    number: u64,
    activity: Activity,
    began: Instant,
    ended: Instant,
}

/// An activity in progress. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "the activity ends when this is dropped"]
pub struct Running {
    activities: Activities,
    number: u64,
}

/// The spans of one message.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The spans, relative to the time at which the report was made.
    pub spans: Vec<ActivitySpan>,
    /// Finished spans before this number are in the report.
    end: u64,
}

impl Activities {
    /// Begins an activity.
    pub fn begin(&self, activity: Activity) -> Running {
        let mut state = self.locked();
        let number = state.number();
        state.running.insert(number, (activity, Instant::now()));
        Running { activities: self.clone(), number }
    }

    /// Returns the spans to send now: those that wait and those in progress.
    pub fn report(&self) -> Report {
        let state = self.locked();
        let now = Instant::now();
        let span = |activity: Activity, began: Instant, ended: Instant| ActivitySpan {
            activity: activity.into(),
            began_us: now.duration_since(began).as_micros() as u64,
            ended_us: now.duration_since(ended).as_micros() as u64,
        };
        let finished = state.finished.iter().map(|done| span(done.activity, done.began, done.ended));
        let running = state.running.values().map(|&(activity, began)| span(activity, began, now));
        Report { spans: finished.chain(running).collect(), end: state.next }
    }

    /// Removes the finished spans of a report that the coordinator has received.
    pub fn received(&self, report: &Report) {
        self.locked().finished.retain(|span| span.number >= report.end);
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // A panic cannot leave the value inconsistent: no code panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activities.locked();
        let number = state.number();
        if let Some((activity, began)) = state.running.remove(&self.number) {
            if state.finished.len() == MOST_WAITING {
                state.finished.pop_front();
            }
            state.finished.push_back(Finished { number, activity, began, ended: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(report: &Report) -> Vec<Activity> {
        report.spans.iter().map(ActivitySpan::activity).collect()
    }

    #[test]
    fn spans_are_reported_until_they_are_received() {
        let activities = Activities::default();
        drop(activities.begin(Activity::Fetch));
        let sampling = activities.begin(Activity::Sample);
        let first = activities.report();
        assert_eq!(names(&first), [Activity::Fetch, Activity::Sample]);
        assert_eq!(first.spans[1].ended_us, 0, "in progress");
        assert!(first.spans.iter().all(|span| span.began_us >= span.ended_us), "{first:?}");
        drop(sampling);
        let again = activities.report();
        assert_eq!(names(&again), [Activity::Fetch, Activity::Sample], "a message may be lost");
        activities.received(&first);
        assert_eq!(names(&activities.report()), [Activity::Sample], "it was in progress in the first report");
        activities.received(&again);
        assert_eq!(names(&activities.report()), []);
    }

    #[test]
    fn the_number_of_waiting_spans_is_bounded() {
        let activities = Activities::default();
        drop(activities.begin(Activity::Load));
        for _ in 0..MOST_WAITING {
            drop(activities.begin(Activity::Save));
        }
        assert_eq!(names(&activities.report()), [Activity::Save; MOST_WAITING]);
    }
}
