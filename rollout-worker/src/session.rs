//! A worker's session with the coordinator: register, lease, sample, submit, heartbeat, disconnect.
//!
//! One task owns the state and decides through [`Scheduler`]; slow operations run concurrently and return as an
//! [`Event`]. After a restart of the coordinator the worker waits and registers again. Independent of tensors and
//! files.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use podium_proto::convert::{self, Error as MessageError};
use podium_proto::v1::{self, lease_response::Answer};
use podium_transfer::{Activities, Coordinator, connection};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lease::{Lease, Outcome};
use crate::link::{Identity, Link, Membership, is_forgotten};
use crate::metrics::{self, DeviceTime};
use crate::scheduler::{Action, Ending, Scheduler};

/// Time limit at the end for the coordinator's answer to Leave, and for the device to stop.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Heartbeat interval until the coordinator has set one.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(2);

/// Minimum interval between two requests for a lease that were answered without one.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(50);

/// Samples the leases of a session.
pub(crate) trait Sample: Clone + Send + Sync + 'static {
    /// The sampling error.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Samples a lease; returns `None` if `stop` was cancelled before the end. `activities`: the record of the work.
    fn sample(
        &self,
        lease: Arc<Lease>,
        stop: CancellationToken,
        activities: Activities,
    ) -> impl Future<Output = Result<Option<Outcome>, Self::Error>> + Send;

    /// Resolves when the device has failed.
    fn failed(&self) -> impl Future<Output = Self::Error> + Send;
}

/// The reasons why a session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error<E: std::error::Error + 'static> {
    /// The coordinator cannot be reached or refuses this worker.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The coordinator sent an inconsistent message.
    #[error("the coordinator sent an inconsistent message")]
    Message(#[from] MessageError),
    /// The coordinator repeatedly forgets this worker right after registering it.
    #[error("the coordinator does not know this worker right after registering it")]
    Forgotten,
    /// The coordinator now serves another run.
    #[error(
        "the coordinator now serves run {found}, but this worker joined run {joined}: restart the worker"
    )]
    OtherRun {
        /// The first registered run.
        joined: Uuid,
        /// The present run.
        found: Uuid,
    },
    /// A lease cannot be sampled.
    #[error("cannot sample lease {lease}")]
    Sampling {
        /// The lease.
        lease: Uuid,
        /// The cause.
        source: E,
    },
    /// The device has failed.
    #[error("the device has failed")]
    Device(#[source] E),
}

/// Completion of a started operation.
enum Event<E> {
    Registered(Result<v1::RegisterResponse, connection::Error>),
    Answered(Result<v1::LeaseResponse, connection::Error>),
    Sampled(Uuid, Result<Option<Outcome>, E>),
    Submitted(Uuid, Result<v1::SubmitResponse, connection::Error>),
    Beaten(Result<v1::HeartbeatResponse, connection::Error>),
}

/// State of a lease.
enum Work {
    ToSample(Arc<Lease>),
    ToSubmit(Arc<v1::SubmitRequest>),
}

struct Session<W: Sample> {
    link: Link,
    worker: W,
    scheduler: Scheduler,
    work: BTreeMap<Uuid, Work>,
    tasks: JoinSet<Event<W::Error>>,
    asking: Option<AbortHandle>,
    sampling: Option<CancellationToken>,
    heartbeat: Interval,
    heartbeat_under_way: bool,
    membership: Option<Membership>,
    device_time: DeviceTime,
}

/// Works until the run is over or `stop` is cancelled; then at most `grace` longer, to finish started work.
pub(crate) async fn run<W: Sample>(
    coordinator: &Coordinator,
    identity: Identity,
    worker: W,
    stop: CancellationToken,
    grace: Duration,
) -> Result<Ending, Error<W::Error>> {
    let mut session = Session {
        link: Link::new(coordinator.clone(), identity),
        worker,
        scheduler: Scheduler::new(),
        work: BTreeMap::new(),
        tasks: JoinSet::new(),
        asking: None,
        sampling: None,
        heartbeat: ticker(FIRST_HEARTBEAT),
        heartbeat_under_way: false,
        membership: None,
        device_time: DeviceTime::new(),
    };
    let result = session.work(stop, grace).await;
    session.disconnect(&result).await;
    result
}

impl<W: Sample> Session<W> {
    async fn work(&mut self, stop: CancellationToken, grace: Duration) -> Result<Ending, Error<W::Error>> {
        let worker = self.worker.clone();
        let failed = worker.failed();
        tokio::pin!(failed);
        let mut give_up_at: Option<Instant> = None;
        loop {
            self.start_due_actions();
            if let Some(ending) = self.scheduler.ending() {
                if self.scheduler.is_finished() {
                    return Ok(ending.clone());
                }
                give_up_at.get_or_insert_with(|| Instant::now() + grace);
            }
            tokio::select! {
                Some(event) = self.tasks.join_next() => match event {
                    Ok(event) => self.handle(event)?,
                    Err(ended) if ended.is_cancelled() => {}
                    Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                },
                error = &mut failed => return Err(Error::Device(error)),
                _ = self.heartbeat.tick() => self.begin_heartbeat(),
                () = stop.cancelled(), if self.scheduler.ending().is_none() => {
                    self.scheduler.shut_down();
                    self.asking.take().inspect(AbortHandle::abort);
                }
                () = reached(give_up_at) => {
                    tracing::warn!("shutting down with an unfinished lease: it did not finish within {} s", grace.as_secs());
                    return Ok(self.scheduler.ending().cloned().unwrap_or(Ending::ShutDown));
                }
            }
        }
    }

    fn start_due_actions(&mut self) {
        self.work.retain(|id, _| self.scheduler.holds(*id));
        while let Some(action) = self.scheduler.next() {
            let link = self.link.clone();
            match action {
                Action::Register => {
                    self.tasks.spawn(async move { Event::Registered(link.register().await) });
                }
                Action::Ask => {
                    let ask = async move { Event::Answered(ask(&link).await) };
                    self.asking = Some(self.tasks.spawn(ask));
                }
                Action::Sample(id) => {
                    let Some(Work::ToSample(lease)) = self.work.get(&id) else { continue };
                    let (lease, stop) = (lease.clone(), CancellationToken::new());
                    self.sampling = Some(stop.clone());
                    let (worker, activities) = (self.worker.clone(), link.activities().clone());
                    let sample =
                        async move { Event::Sampled(id, worker.sample(lease, stop, activities).await) };
                    self.tasks.spawn(sample);
                }
                Action::Submit(id) => {
                    let Some(Work::ToSubmit(request)) = self.work.get(&id) else { continue };
                    let request = request.clone();
                    self.tasks.spawn(async move { Event::Submitted(id, link.submit(&request).await) });
                }
            }
        }
    }

    fn begin_heartbeat(&mut self) {
        if self.scheduler.is_registered() && !self.heartbeat_under_way {
            self.heartbeat_under_way = true;
            let (link, held) = (self.link.clone(), self.scheduler.held().collect());
            self.tasks.spawn(async move { Event::Beaten(link.heartbeat(held).await) });
        }
    }

    fn registered(&mut self, answer: v1::RegisterResponse) -> Result<(), Error<W::Error>> {
        let membership = Membership::try_from(answer)?;
        if let Some(before) = self.membership
            && before.run_id != membership.run_id
        {
            return Err(Error::OtherRun { joined: before.run_id, found: membership.run_id });
        }
        self.membership = Some(membership);
        self.heartbeat = ticker(membership.heartbeat_interval);
        self.scheduler.registered();
        metrics::registered();
        tracing::info!("registered as worker {} of run {}", self.link.worker_id(), membership.run_id);
        Ok(())
    }

    fn handle(&mut self, event: Event<W::Error>) -> Result<(), Error<W::Error>> {
        match event {
            Event::Registered(answer) => self.registered(answer?),
            Event::Answered(answer) => self.answered(answer),
            Event::Sampled(id, outcome) => {
                self.sampled(id, outcome.map_err(|source| Error::Sampling { lease: id, source })?);
                Ok(())
            }
            Event::Submitted(id, answer) => self.submitted(id, answer),
            Event::Beaten(answer) => self.beaten(answer),
        }
    }

    fn answered(
        &mut self,
        answer: Result<v1::LeaseResponse, connection::Error>,
    ) -> Result<(), Error<W::Error>> {
        self.asking = None;
        let answer = match answer {
            Err(error) if is_forgotten(&error) => {
                self.scheduler.not_answered();
                return self.forgotten();
            }
            answer => answer?.answer.ok_or(MessageError::Missing { field: "LeaseResponse.answer" })?,
        };
        match answer {
            Answer::Idle(v1::Idle {}) => self.scheduler.idle(),
            Answer::RunOver(v1::RunOver { reason }) => {
                tracing::info!("the run is over: {reason}");
                self.scheduler.run_over(reason);
            }
            Answer::Lease(lease) => {
                let lease = Lease::try_from(lease)?;
                if self.scheduler.leased(lease.id) {
                    self.work.insert(lease.id, Work::ToSample(Arc::new(lease)));
                }
            }
        }
        Ok(())
    }

    fn sampled(&mut self, id: Uuid, outcome: Option<Outcome>) {
        self.sampling = None;
        let Some(outcome) = outcome else {
            self.work.remove(&id);
            self.scheduler.stopped(id);
            return;
        };
        self.device_time.sampled(&outcome);
        let request = outcome.into_request(self.link.worker_id(), id);
        self.work.insert(id, Work::ToSubmit(Arc::new(request)));
        self.scheduler.sampled(id);
    }

    fn submitted(
        &mut self,
        id: Uuid,
        answer: Result<v1::SubmitResponse, connection::Error>,
    ) -> Result<(), Error<W::Error>> {
        let answer = match answer {
            Err(error) if is_forgotten(&error) => {
                self.scheduler.not_submitted(id);
                return self.forgotten();
            }
            // A lease is not needed once the run is over, and the coordinator may be gone by then.
            Err(error) if matches!(self.scheduler.ending(), Some(Ending::RunOver(_))) => {
                tracing::warn!("lease {id} was not submitted before the end of the run: {error}");
                v1::SubmitResponse::default()
            }
            answer => answer?,
        };
        if answer.refused > 0 {
            tracing::warn!("the coordinator refused {} groups of lease {id}", answer.refused);
        }
        metrics::submitted(&answer);
        self.work.remove(&id);
        self.scheduler.submitted(id);
        Ok(())
    }

    fn beaten(
        &mut self,
        answer: Result<v1::HeartbeatResponse, connection::Error>,
    ) -> Result<(), Error<W::Error>> {
        self.heartbeat_under_way = false;
        let answer = match answer {
            Err(error) if is_forgotten(&error) => return self.forgotten(),
            answer => answer?,
        };
        if !answer.known {
            return self.forgotten();
        }
        self.scheduler.known();
        for lost in &answer.lost_lease_ids {
            let id = convert::uuid("HeartbeatResponse.lost_lease_ids", lost)?;
            if self.scheduler.lost(id)
                && let Some(stop) = self.sampling.as_ref().filter(|stop| !stop.is_cancelled())
            {
                tracing::warn!(
                    "lease {id} was assigned to another worker: this worker was too slow or unreachable"
                );
                metrics::lost();
                stop.cancel();
            }
        }
        Ok(())
    }

    fn forgotten(&mut self) -> Result<(), Error<W::Error>> {
        if self.scheduler.forgotten() { Ok(()) } else { Err(Error::Forgotten) }
    }

    /// Returns leases and waits for the device to stop, so that the process can exit; both in bounded time.
    async fn disconnect(&mut self, result: &Result<Ending, Error<W::Error>>) {
        let unreachable =
            matches!(result, Err(Error::Connection(error)) if error.kind() == connection::Kind::Unreachable);
        let leave = async {
            if unreachable || !self.scheduler.is_registered() {
                return;
            }
            match timeout(DISCONNECT_TIMEOUT, self.link.leave()).await {
                Ok(Ok(v1::LeaveResponse {})) => {}
                Ok(Err(error)) => tracing::warn!("cannot report the shutdown to the coordinator: {error}"),
                Err(_) => tracing::warn!("cannot report the shutdown to the coordinator: no answer"),
            }
        };
        let stop = async {
            let Some(stop) = self.sampling.take() else { return };
            stop.cancel();
            metrics::returned();
            let sampled = async {
                while let Some(event) = self.tasks.join_next().await {
                    if matches!(event, Ok(Event::Sampled(..))) {
                        return;
                    }
                }
            };
            if timeout(DISCONNECT_TIMEOUT, sampled).await.is_err() {
                tracing::warn!("shut down while the device was still busy");
            }
        };
        tokio::join!(leave, stop);
    }
}

/// Requests a lease; at most once per [`BETWEEN_REQUESTS`], however fast the coordinator answers without one.
async fn ask(link: &Link) -> Result<v1::LeaseResponse, connection::Error> {
    let began = Instant::now();
    let answer = link.lease().await;
    if let Ok(v1::LeaseResponse { answer: Some(Answer::Idle(_)) }) = &answer {
        sleep_until(began + BETWEEN_REQUESTS).await;
    }
    answer
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
