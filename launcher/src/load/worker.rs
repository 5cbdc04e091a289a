//! A simulated worker: registers, leases, waits as if it sampled, submits, and sends heartbeats.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use podium_proto::v1::{self, lease_response::Answer};
use podium_transfer::Coordinator;
use podium_transfer::connection::{self, Kind};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use uuid::Uuid;

use super::error::PeerError;
use super::peers::{Peers, call};

/// Longest time that a request waits for work, as with real workers.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Pause after a request for a lease that was answered without one, as with real workers.
const BETWEEN_REQUESTS: Duration = Duration::from_millis(50);

/// A simulated worker.
pub(super) struct Worker {
    peers: Arc<Peers>,
    coordinator: Coordinator,
    id: Uuid,
    heartbeat_interval: Duration,
    /// The lease that it holds.
    held: Mutex<Option<String>>,
    /// Whether it submits that lease: a heartbeat may then find it submitted, and therefore gone.
    is_submitting: AtomicBool,
}

impl Worker {
    /// Registers a worker and reports it to `registered`; then works until the peers are stopped. `phase`: part of the
    /// time of a group after which its first group is sampled, from 0 to 1.
    pub(super) async fn run(
        peers: Arc<Peers>,
        phase: f64,
        registered: mpsc::Sender<()>,
    ) -> Result<(), PeerError> {
        let (coordinator, id) = (peers.connect()?, Uuid::new_v4());
        let worked = async {
            let answer = register(&coordinator, &peers, id).await?;
            // The receiver is gone if the load test was ended.
            let _ = registered.send(()).await;
            drop(registered);
            let heartbeat_interval = Duration::from_millis(answer.heartbeat_interval_ms.max(1));
            let worker = Self {
                peers,
                coordinator,
                id,
                heartbeat_interval,
                held: Mutex::default(),
                is_submitting: AtomicBool::new(false),
            };
            tokio::try_join!(worker.work(phase), worker.beat()).map(|_| ())
        };
        match worked.await {
            Err(PeerError::Connection(connection::Error::Stopped { .. })) => Ok(()),
            ended => ended,
        }
    }

    async fn work(&self, phase: f64) -> Result<(), PeerError> {
        let Peers { tally, completions, group_size, seconds_per_group, .. } = &*self.peers;
        let group_size = *group_size;
        let mut due = Instant::now() + Duration::from_secs_f64(seconds_per_group * phase);
        while let Some(lease) = self.lease().await? {
            let samples = lease.sampling.as_ref().map_or(1, |sampling| sampling.group_size);
            let completions_of_lease = lease.tasks.len() as f64 * f64::from(samples);
            let request = completions.submission(&self.id.to_string(), lease)?;
            let training = request.results.iter().filter(|result| is_training(result)).count() as u64;
            let groups = completions_of_lease / f64::from(group_size.max(1));
            let time = Duration::from_secs_f64(seconds_per_group * groups);
            // A worker that waited for work catches up by at most one lease.
            due = due.max(Instant::now().checked_sub(time).unwrap_or(due));
            self.pause_until(due).await?;
            due += time;
            let began = Instant::now();
            self.is_submitting.store(true, Ordering::Relaxed);
            let submitted = loop {
                let request = request.clone();
                match call!(self.coordinator, rollout.submit, "submit completions", request).await {
                    Ok(answer) if answer.pending => {}
                    answered => break answered,
                }
            };
            self.hold(None);
            self.is_submitting.store(false, Ordering::Relaxed);
            match submitted {
                Ok(answer) => {
                    tally.submitted(began.elapsed());
                    let v1::SubmitResponse { accepted, repeated_results, refused, .. } = answer;
                    // A lease is training or evaluation.
                    tally.add(&tally.groups, if training > 0 { accepted.into() } else { 0 });
                    tally.add(&tally.repeated, repeated_results.into());
                    tally.add(&tally.refused, refused.into());
                }
                Err(error) => self.register_again(error).await?,
            }
        }
        Ok(())
    }

    /// Returns a lease; `None` once the run is over. The first request does not wait, so that its latency is that of
    /// the coordinator alone.
    async fn lease(&self) -> Result<Option<v1::Lease>, PeerError> {
        let tally = &self.peers.tally;
        let mut wait = Duration::ZERO;
        loop {
            let request =
                v1::LeaseRequest { worker_id: self.id.to_string(), wait_ms: wait.as_millis() as u64 };
            let began = Instant::now();
            let answer = match call!(self.coordinator, rollout.lease, "request a lease", request).await {
                Ok(answer) => answer.answer,
                Err(error) => {
                    self.register_again(error).await?;
                    continue;
                }
            };
            match answer {
                Some(Answer::Lease(lease)) => {
                    if wait.is_zero() {
                        tally.leased(began.elapsed());
                    }
                    self.hold(Some(lease.lease_id.clone()));
                    return Ok(Some(lease));
                }
                Some(Answer::RunOver(_)) => return Ok(None),
                Some(Answer::Idle(_)) | None => {
                    if wait.is_zero() {
                        tally.add(&tally.waits, 1);
                    } else {
                        sleep(BETWEEN_REQUESTS).await;
                    }
                    wait = LONGEST_WAIT.min(self.peers.limits.request_timeout / 2);
                }
            }
        }
    }

    /// Sends heartbeats. Returns only on an error.
    async fn beat(&self) -> Result<(), PeerError> {
        let mut ticks = interval(self.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let lease_ids = self.held().iter().cloned().collect();
            let request =
                v1::HeartbeatRequest { worker_id: self.id.to_string(), lease_ids, activities: Vec::new() };
            let answer = call!(self.coordinator, rollout.heartbeat, "send a heartbeat", request).await?;
            let held = self.held().clone();
            let is_lost =
                |id: &&String| held.as_ref() == Some(*id) && !self.is_submitting.load(Ordering::Relaxed);
            let lost = answer.lost_lease_ids.iter().filter(is_lost).count();
            self.peers.tally.add(&self.peers.tally.lost, lost as u64);
            if !answer.known {
                self.peers.tally.add(&self.peers.tally.lost, 1);
                register(&self.coordinator, &self.peers, self.id).await?;
            }
        }
    }

    /// Registers again if the coordinator does not know the worker any more; returns other errors.
    async fn register_again(&self, error: connection::Error) -> Result<(), PeerError> {
        if error.kind() != Kind::NotFound {
            return Err(error.into());
        }
        self.peers.tally.add(&self.peers.tally.lost, 1);
        register(&self.coordinator, &self.peers, self.id).await?;
        Ok(())
    }

    async fn pause_until(&self, due: Instant) -> Result<(), PeerError> {
        tokio::select! {
            () = sleep_until(due) => Ok(()),
            () = self.peers.stop.cancelled() => Err(connection::Error::Stopped { what: "sample a lease" }.into()),
        }
    }

    fn hold(&self, lease: Option<String>) {
        *self.held() = lease;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn register(
    coordinator: &Coordinator,
    peers: &Peers,
    worker: Uuid,
) -> Result<v1::RegisterResponse, connection::Error> {
    call!(coordinator, rollout.register, "register a simulated worker", peers.registration(worker)).await
}

const fn is_training(result: &v1::TaskResult) -> bool {
    matches!(result.purpose, Some(v1::task_result::Purpose::Training(_)))
}
