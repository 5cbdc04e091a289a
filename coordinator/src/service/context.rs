//! State that the services share.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podium_config::Network;
use podium_proto::v1;
use podium_service::{metrics_server, plain_text};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::submissions::Submissions;
use super::uploads::Uploads;
use crate::actor::{self, Handle, blocking};
use crate::curriculum::Curriculum;
use crate::external::ExternalRewards;
use crate::grading::{Border, SamplingByWork};
use crate::identity::Identity;
use crate::policies::Policies;
use crate::store::Store;
use crate::timeline::Timeline;

/// State that the services use.
#[derive(Debug)]
pub struct Context {
    /// The identity of the run.
    pub identity: Identity,
    /// The handle of the actor.
    pub handle: Handle,
    /// Prompts and scores.
    pub curriculum: Arc<Curriculum>,
    /// The sampling parameters.
    pub sampling: SamplingByWork,
    /// The checks of submitted results.
    pub border: Border,
    /// The policy versions.
    pub policies: Arc<Policies>,
    /// The store, for reading groups.
    pub store: Arc<Store>,
    /// The activities of a step.
    pub timeline: Arc<Timeline>,
    /// Rewards that a program of the user computes.
    pub external: Arc<ExternalRewards>,
    /// The submissions in progress.
    pub submissions: Submissions,
    /// Limits and deadlines.
    pub network: Network,
    /// Half of the identifier of every lease: it distinguishes the leases of this process from those of an earlier one.
    pub incarnation: u64,
    /// Policy versions that were dropped, in order.
    pub dropped_versions: Vec<u64>,
    /// The upload of a version; only one is received at a time.
    pub uploads: Uploads,
    /// A permit for each computation that may run at once.
    pub computations: Arc<Semaphore>,
    /// Cancelled when the server stops, which ends long polls.
    pub stop: CancellationToken,
}

impl Context {
    /// Returns the deadline of a reply that may wait `wait_ms`: at most half of the caller's request timeout.
    pub(super) fn deadline(&self, wait_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(wait_ms.min(self.network.request_timeout_ms / 2))
    }

    /// Waits until the server has been stopping for a time.
    pub(super) async fn stopping(&self, time: Duration) {
        self.stop.cancelled().await;
        tokio::time::sleep(time).await;
    }

    /// Runs a computation on a thread for such work, once a permit is free: more threads than cores would only take
    /// turns, each with memory of its own.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, actor::Error> + Send + 'static,
    ) -> Result<T, actor::Error> {
        // The semaphore is never closed. The permit belongs to the computation, which continues if the caller hangs up.
        let permit = Arc::clone(&self.computations).acquire_owned().await;
        blocking(move || {
            let _permit = permit;
            work()
        })
        .await
    }

    /// Returns the longest pause of an upload.
    pub(super) const fn pause(&self) -> Duration {
        Duration::from_millis(self.network.request_timeout_ms)
    }

    /// Repeats a call until its reply `is_final`, the deadline has passed, or the server stops.
    pub(super) async fn poll<T, F>(
        &self,
        deadline: Instant,
        mut ask: impl FnMut() -> F,
        is_final: impl Fn(&T) -> bool,
    ) -> Result<T, crate::actor::Error>
    where
        F: Future<Output = Result<T, crate::actor::Error>>,
    {
        let mut changes = self.handle.changes();
        loop {
            changes.mark_unchanged();
            let answer = ask().await?;
            if is_final(&answer) {
                return Ok(answer);
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(answer) },
                () = tokio::time::sleep_until(deadline) => return Ok(answer),
                () = self.stop.cancelled() => return Ok(answer),
            }
        }
    }
}

pub(super) fn over(reason: String) -> v1::RunOver {
    v1::RunOver { reason }
}

/// Returns the address at which to scrape a process at `peer` that announced `announced`; empty if there is
/// none.
pub(super) fn scraped_at(who: &str, announced: &str, peer: Option<IpAddr>) -> String {
    let announced = plain_text::name(announced);
    let address = metrics_server::reachable(&announced, peer);
    if address.is_none() && !announced.is_empty() {
        let peer = peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
        tracing::info!(
            "the metrics of {who} at {peer} are not listed for scraping: {announced:?} is not an address of its connection; \
             --metrics-listen 0.0.0.0:PORT lets it be reached there"
        );
    }
    address.unwrap_or_default()
}
