//! Results of workers that cannot be used: refused when they are submitted, or set aside since a learner cannot train on
//! them. Their workers are counted, and named in the log and in the status.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use podium_grpo::{GroupId, Step};
use uuid::Uuid;

use super::state::State;
use super::{Error, blocking};
use crate::machine::{Event, LeaseId, MOST_OFFENCES, Reopening};
use crate::metrics;
use crate::store::{self, SampledBy, SetAside, Store};

/// A slot whose group was set aside so many times is sampled once more; then the run ends.
const MOST_ASIDE: u32 = 5;

/// Lines that the status keeps, the newest ones.
const MOST_LINES: usize = 10;
/// Characters of a line that are kept.
const LONGEST_LINE: usize = 500;

/// A worker whose results cannot be used, by name, and how often that was so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// The worker's id, with host and device while it is registered.
    pub worker: String,
    /// Its offences so far; 0 for a worker that is not registered.
    pub offences: u32,
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, offences } = self;
        write!(f, "results of worker {worker} cannot be used (")?;
        match *offences {
            0 => f.write_str("it is not registered; they are sampled again)"),
            MOST_OFFENCES.. => write!(f, "offence {offences} of {MOST_OFFENCES}: it gets no more work)"),
            _ => write!(f, "offence {offences} of {MOST_OFFENCES}; they are sampled again)"),
        }
    }
}

/// Groups that a rank cannot train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The rank's process.
    pub learner: Uuid,
    /// Chosen by it: a report that is repeated changes nothing.
    pub id: Uuid,
    /// The step that the groups are of.
    pub step: Step,
    /// The groups.
    pub groups: Vec<Unusable>,
}

/// A group that a rank cannot train on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Position in the step's batch.
    pub index: u32,
    /// The attempt at that place.
    pub attempt: u32,
    /// Why.
    pub cause: String,
}

/// The newest offences, as lines for people.
#[derive(Debug, Default)]
pub(super) struct Offences(VecDeque<String>);

impl Offences {
    fn add(&mut self, line: &str) {
        while self.0.len() >= MOST_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.chars().take(LONGEST_LINE).collect());
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}

impl State {
    /// Notes results that were refused when they were submitted. The service logs the refusal.
    pub(super) async fn offended(&mut self, worker: Uuid, lease: Option<LeaseId>, cause: &str) -> Offender {
        metrics::offended("submit");
        let name = self.worker_name(worker);
        self.step(Event::Offended { worker, lease }).await;
        let offender = Offender { worker: name, offences: self.parts.machine.offences(worker) };
        // As the worker is answered.
        self.offences.add(&format!("{offender}: {cause}"));
        offender
    }

    /// Sets groups aside that a rank cannot train on, and opens their slots again.
    pub(super) async fn set_aside(&mut self, report: Report) -> Result<(), Error> {
        let (store, step, learner) = (self.parts.store.clone(), report.step, report.learner);
        let known = blocking(move || Ok::<_, Error>(store.aside(step)?)).await?;
        if known.iter().any(|aside| aside.report == report.id) {
            return Ok(());
        }
        let slots: Vec<(u32, u32)> = report.groups.iter().map(|group| (group.index, group.attempt)).collect();
        let Reopening { slots, removed } = self.parts.machine.reopening(learner, step, &slots)?;
        let (store, reopened) = (self.parts.store.clone(), slots.clone());
        let records = self.write(move || Ok(remove(&store, &report, &reopened, &removed)?)).await?;
        let before = self.parts.machine.waiting_groups();
        self.step(Event::Reopened { step, slots }).await;
        metrics::set_aside(before.saturating_sub(self.parts.machine.waiting_groups()));
        self.note_aside(&records).await;
        match self.spent(&records, &known) {
            Some(error) => {
                tracing::error!("{error}");
                self.step(Event::DrainWanted { reason: error.to_string() }).await;
                // The rank that reported is told by the answer.
                if let Some(rank) = self.parts.machine.rank_of(learner) {
                    self.step(Event::RankTold { rank }).await;
                }
                Err(error)
            }
            None => Ok(()),
        }
    }

    /// Counts one offence for each worker that sampled one of these groups, and names them all.
    async fn note_aside(&mut self, records: &[SetAside]) {
        let mut offenders: BTreeMap<Uuid, u32> = BTreeMap::new();
        for worker in records.iter().filter_map(|record| record.worker.as_ref()) {
            offenders.insert(worker.worker, 0);
        }
        for (&worker, offences) in &mut offenders {
            metrics::offended("train");
            self.step(Event::Offended { worker, lease: None }).await;
            *offences = self.parts.machine.offences(worker);
        }
        for record in records {
            let offences = record.worker.as_ref().and_then(|worker| offenders.get(&worker.worker));
            let offences = offences.copied().unwrap_or_default();
            let offender = Offender { worker: worker_of(record).to_owned(), offences };
            let line = format!("{offender}: {} was set aside: {}", group(record), record.cause);
            tracing::warn!("{line}");
            self.offences.add(&line);
        }
    }

    /// Why the run ends, where one of these slots was sampled again too often.
    fn spent(&self, records: &[SetAside], before: &[SetAside]) -> Option<Error> {
        let times = |record: &SetAside| self.parts.machine.reopened(record.index);
        let last = records.iter().find(|record| times(record) > MOST_ASIDE)?;
        let all = before.iter().chain(records).filter(|record| record.index == last.index);
        let history: Vec<String> =
            all.map(|record| format!("by worker {}: {}", worker_of(record), record.cause)).collect();
        Some(Error::Spent { group: group(last), times: times(last), history: history.join("; ") })
    }

    /// A worker as it is stored beside the groups that it sampled.
    pub(super) fn sampled_by(&self, worker: Uuid) -> SampledBy {
        SampledBy { worker, name: self.worker_name(worker) }
    }

    /// A worker's id, with host and device while it is registered.
    pub(super) fn worker_name(&self, worker: Uuid) -> String {
        match self.profiles.get(&worker) {
            Some(profile) if profile.host.is_empty() => worker.to_string(),
            Some(profile) => format!("{worker} on {} ({})", profile.host, profile.device),
            None => worker.to_string(),
        }
    }
}

/// Removes the results of `removed` from the store, and keeps why those of `slots` are set aside.
fn remove(
    store: &Store,
    report: &Report,
    slots: &[(u32, u32)],
    removed: &[(u32, Option<u32>)],
) -> Result<Vec<SetAside>, store::Error> {
    let record = |&(index, attempt): &(u32, u32)| {
        let (worker, version) = store.sampled_by(report.step, index)?;
        let cause = report.groups.iter().find(|group| (group.index, group.attempt) == (index, attempt));
        Ok(SetAside {
            report: report.id,
            step: report.step.0,
            index,
            attempt,
            policy_version: version.map(|version| version.0),
            worker,
            cause: cause.map(|group| group.cause.clone()).unwrap_or_default(),
        })
    };
    let records = slots.iter().map(record).collect::<Result<Vec<_>, store::Error>>()?;
    store.set_aside(removed, &records)?;
    Ok(records)
}

fn worker_of(record: &SetAside) -> &str {
    record.worker.as_ref().map_or("unknown", |worker| worker.name.as_str())
}

const fn group(record: &SetAside) -> GroupId {
    GroupId { step: Step(record.step), index: record.index, attempt: record.attempt }
}
