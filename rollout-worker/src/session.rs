//! A worker's life with the coordinator: register, lease, sample, submit, heartbeat, leave.
//!
//! One task owns the state and decides through [`Scheduler`]; what takes time runs beside it and comes back as an
//! [`Event`]. A coordinator that restarts is waited for and registered with again. Knows no tensors and no files.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use podium_proto::convert::{self, Error as MessageError};
use podium_proto::v1::{self, lease_response::Answer};
use podium_transfer::{Coordinator, connection};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::lease::{Lease, Outcome};
use crate::link::{Identity, Link, Membership, is_forgotten};
use crate::metrics::{self, DeviceTime};
use crate::scheduler::{Action, Ending, Scheduler};

/// How long to wait at the end for the coordinator's answer to Leave, and for the device to stop.
const FAREWELL: Duration = Duration::from_secs(5);

/// Heartbeats until the coordinator has said how often it wants them.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(2);

/// Shortest time from one question for a lease to the next, where the answer was that there is none.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(50);

/// What samples a session's leases.
pub(crate) trait Sample: Clone + Send + Sync + 'static {
    /// Why it cannot.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Samples a lease; `None` if `stop` was cancelled before it was done.
    fn sample(
        &self,
        lease: Arc<Lease>,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<Option<Outcome>, Self::Error>> + Send;

    /// Resolves when nothing can be sampled any more.
    fn failed(&self) -> impl Future<Output = Self::Error> + Send;
}

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error<E: std::error::Error + 'static> {
    /// The coordinator cannot be reached or refuses this worker.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The coordinator sent something that does not hold together.
    #[error("the coordinator sent a message that does not hold together")]
    Message(#[from] MessageError),
    /// The coordinator registers this worker, and then does not know it, again and again.
    #[error("the coordinator does not know this worker right after registering it")]
    Forgotten,
    /// Another run has taken the coordinator's place.
    #[error(
        "the coordinator serves run {found} now, this worker joined run {joined}: start the worker again"
    )]
    OtherRun {
        /// Registered with at first.
        joined: Uuid,
        /// Registered with now.
        found: Uuid,
    },
    /// A lease cannot be sampled.
    #[error("cannot sample lease {lease}")]
    Sampling {
        /// Which.
        lease: Uuid,
        /// Why.
        source: E,
    },
    /// The device is gone.
    #[error("cannot sample any more")]
    Device(#[source] E),
}

/// Something that was begun has ended.
enum Event<E> {
    Registered(Result<v1::RegisterResponse, connection::Error>),
    Answered(Result<v1::LeaseResponse, connection::Error>),
    Sampled(Uuid, Result<Option<Outcome>, E>),
    Submitted(Uuid, Result<v1::SubmitResponse, connection::Error>),
    Beaten(Result<v1::HeartbeatResponse, connection::Error>),
}

/// What there is of a lease.
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

/// Works until the run is over or `leave` is cancelled; then at most `grace` longer, to finish what is begun.
pub(crate) async fn run<W: Sample>(
    coordinator: &Coordinator,
    identity: Identity,
    worker: W,
    leave: CancellationToken,
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
    let result = session.work(leave, grace).await;
    session.say_farewell(&result).await;
    result
}

impl<W: Sample> Session<W> {
    async fn work(&mut self, leave: CancellationToken, grace: Duration) -> Result<Ending, Error<W::Error>> {
        let worker = self.worker.clone();
        let failed = worker.failed();
        tokio::pin!(failed);
        let mut give_up_at: Option<Instant> = None;
        loop {
            self.begin_what_is_due();
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
                () = leave.cancelled(), if self.scheduler.ending().is_none() => {
                    self.scheduler.leave();
                    self.asking.take().inspect(AbortHandle::abort);
                }
                () = reached(give_up_at) => {
                    tracing::warn!("leaving with a lease unfinished: {} s were not enough", grace.as_secs());
                    return Ok(self.scheduler.ending().cloned().unwrap_or(Ending::Leaving));
                }
            }
        }
    }

    fn begin_what_is_due(&mut self) {
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
                    let worker = self.worker.clone();
                    self.tasks.spawn(async move { Event::Sampled(id, worker.sample(lease, stop).await) });
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
            // Nobody misses a lease once the run is over, and the coordinator may be gone by then.
            Err(error) if matches!(self.scheduler.ending(), Some(Ending::RunOver(_))) => {
                tracing::warn!("lease {id} was not handed in before the end: {error}");
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
                tracing::warn!("lease {id} went to somebody else: this worker was too slow or out of reach");
                metrics::lost();
                stop.cancel();
            }
        }
        Ok(())
    }

    fn forgotten(&mut self) -> Result<(), Error<W::Error>> {
        if self.scheduler.forgotten() { Ok(()) } else { Err(Error::Forgotten) }
    }

    /// Gives leases back and waits for the device to stop, so that the process can end; both in bounded time.
    async fn say_farewell(&mut self, result: &Result<Ending, Error<W::Error>>) {
        let unreachable = matches!(result, Err(Error::Connection(connection::Error::Unreachable { .. })));
        let leave = async {
            if unreachable || !self.scheduler.is_registered() {
                return;
            }
            match timeout(FAREWELL, self.link.leave()).await {
                Ok(Ok(v1::LeaveResponse {})) => {}
                Ok(Err(error)) => tracing::warn!("left without saying so: {error}"),
                Err(_) => tracing::warn!("left without saying so: no answer from the coordinator"),
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
            if timeout(FAREWELL, sampled).await.is_err() {
                tracing::warn!("left while the device was still busy");
            }
        };
        tokio::join!(leave, stop);
    }
}

/// Asks for a lease; never more often than [`BETWEEN_QUESTIONS`] allows, however soon the coordinator says no.
async fn ask(link: &Link) -> Result<v1::LeaseResponse, connection::Error> {
    let began = Instant::now();
    let answer = link.lease().await;
    if let Ok(v1::LeaseResponse { answer: Some(Answer::Idle(_)) }) = &answer {
        sleep_until(began + BETWEEN_QUESTIONS).await;
    }
    answer
}

fn ticker(period: Duration) -> Interval {
    let mut ticker = interval(period);
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
