//! Unusable results of workers: refused at submission, or set aside because a learner cannot train on them.

use std::collections::BTreeMap;

use podium_grpo::{GroupId, Step};
use uuid::Uuid;

use super::error::Error;
use super::offences::Offender;
use super::state::State;
use crate::machine::LeaseId;
use crate::machine::sequencer::{Aside, Reply, Report};
use crate::metrics;
use crate::results::{SampledBy, SetAside};

/// Maximum number of times that a slot is sampled again after its group was set aside; the next time ends the
/// run.
const MAX_SET_ASIDE: u32 = 5;

impl State {
    /// Counts an offence of a worker whose results were refused at submission. The service logs the refusal.
    pub(super) async fn record_offence(
        &mut self,
        worker: Uuid,
        lease: Option<LeaseId>,
        cause: &str,
    ) -> Offender {
        metrics::offended("submit");
        let (now, name) = (self.now(), self.worker_name(worker));
        let offences = self.run.apply(|machine| machine.record_offence(now, worker, lease)).await;
        let offender = Offender { worker: name, offences };
        // The same text as in the reply to the worker.
        self.offences.add(&format!("{offender}: {cause}"));
        offender
    }

    /// Sets groups aside that a rank cannot train on, and reopens their slots; `None` until the current close
    /// of a step has ended.
    pub(super) async fn set_aside(&mut self, report: Report) -> Result<Option<()>, Error> {
        let learner = report.learner;
        let waiting = self.run.machine().waiting_groups();
        let Reply::Ready(aside) = self.run.set_aside(self.now(), report).await? else { return Ok(None) };
        metrics::set_aside(waiting.saturating_sub(self.run.machine().waiting_groups()));
        self.note_aside(&aside.new).await;
        match self.spent(&aside) {
            Some(error) => {
                tracing::error!("{error}");
                let (now, reason) = (self.now(), error.to_string());
                self.run.apply(|machine| machine.drain(now, reason)).await;
                // The error is reported to the rank.
                if let Some(rank) = self.run.machine().rank_of(learner) {
                    self.run.apply(|machine| machine.dismiss_rank(now, rank)).await;
                }
                Err(error)
            }
            None => Ok(Some(())),
        }
    }

    /// Counts one offence for each worker that sampled one of these groups, and logs all of them.
    async fn note_aside(&mut self, records: &[SetAside]) {
        let mut offenders: BTreeMap<Uuid, u32> = BTreeMap::new();
        for worker in records.iter().filter_map(|record| record.worker.as_ref()) {
            offenders.insert(worker.worker, 0);
        }
        for (&worker, offences) in &mut offenders {
            metrics::offended("train");
            let now = self.now();
            *offences = self.run.apply(|machine| machine.record_offence(now, worker, None)).await;
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

    /// Returns the error that ends the run if the slot of a new group was sampled again too often.
    fn spent(&self, Aside { before, new }: &Aside) -> Option<Error> {
        let times = |record: &SetAside| self.run.machine().reopened(record.index);
        let last = new.iter().find(|record| times(record) > MAX_SET_ASIDE)?;
        let all = before.iter().chain(new).filter(|record| record.index == last.index);
        let history: Vec<String> =
            all.map(|record| format!("by worker {}: {}", worker_of(record), record.cause)).collect();
        Some(Error::Spent { group: group(last), times: times(last), history: history.join("; ") })
    }

    /// Returns a worker's description, as stored with the groups that it sampled.
    pub(super) fn sampled_by(&self, worker: Uuid) -> SampledBy {
        SampledBy { worker, name: self.worker_name(worker) }
    }

    /// Returns a worker's id, with host and device while it is registered.
    pub(super) fn worker_name(&self, worker: Uuid) -> String {
        match self.profiles.get(&worker) {
            Some(profile) if profile.host.is_empty() => worker.to_string(),
            Some(profile) => format!("{worker} on {} ({})", profile.host, profile.device),
            None => worker.to_string(),
        }
    }
}

fn worker_of(record: &SetAside) -> &str {
    record.worker.as_ref().map_or("unknown", |worker| worker.name.as_str())
}

const fn group(record: &SetAside) -> GroupId {
    GroupId { step: Step(record.step), index: record.index, attempt: record.attempt }
}
