//! The gRPC services: they check messages, call the actor, and convert its replies. No rule of the run is here.

mod codes;
mod incoming;
mod learner;
mod policy;
mod rollout;
mod status;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use podium_config::Network;
use podium_proto::v1;
use podium_proto::v1::learner_server::LearnerServer;
use podium_proto::v1::policy_server::PolicyServer;
use podium_proto::v1::rollout_server::RolloutServer;
use podium_proto::v1::status_server::StatusServer;
use podium_service::metrics_server;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::actor::Handle;
use crate::curriculum::Curriculum;
use crate::grading::{Border, Sampling};
use crate::identity::Identity;
use crate::policies::Policies;
use crate::store::Store;

/// How long open calls have to end once the server stops.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Characters of an announced address at most; the rest is cut off.
const MAX_ADDRESS: usize = 260;

/// What the services work with.
#[derive(Debug)]
pub struct Context {
    /// Which run this is.
    pub identity: Identity,
    /// The way to the actor.
    pub handle: Handle,
    /// Prompts and scores.
    pub curriculum: Arc<Curriculum>,
    /// How completions are sampled.
    pub sampling: Sampling,
    /// What submitted results are checked against.
    pub border: Border,
    /// The policy versions.
    pub policies: Arc<Policies>,
    /// Groups, read only.
    pub store: Arc<Store>,
    /// Limits and deadlines.
    pub network: Network,
    /// Half of the identifier of every lease: it distinguishes the leases of this process from those of an earlier one.
    pub incarnation: u64,
    /// Policy versions that were dropped, in order.
    pub dropped_versions: Vec<u64>,
    /// One version at a time is taken in.
    pub publishing: Mutex<()>,
    /// Cancelled when the server stops: long polls end.
    pub stop: CancellationToken,
}

impl Context {
    /// The deadline of a reply that may wait `wait_ms`: at most half of the caller's request timeout.
    fn deadline(&self, wait_ms: u64) -> Instant {
        Instant::now() + Duration::from_millis(wait_ms.min(self.network.request_timeout_ms / 2))
    }

    /// Asks until an answer `is_final`, the deadline has passed, or the server stops.
    async fn poll<T, F>(
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

/// Serves until `context.stop` is cancelled and open calls have ended.
pub async fn serve(listener: TcpListener, context: Arc<Context>) -> Result<(), tonic::transport::Error> {
    let bytes = context.network.max_message_bytes as usize;
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
        };
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RolloutServer<rollout::Service>>().await;
    health.set_serving::<LearnerServer<learner::Service>>().await;
    health.set_serving::<PolicyServer<policy::Service>>().await;
    health.set_serving::<StatusServer<status::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(podium_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by the build");
    let stop = context.stop.clone();
    let served = Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(limited!(RolloutServer, rollout::Service(context.clone())))
        .add_service(limited!(LearnerServer, learner::Service(context.clone())))
        .add_service(limited!(PolicyServer, policy::Service(context.clone())))
        .add_service(limited!(StatusServer, status::Service(context.clone())))
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming::connections(listener), stop.clone().cancelled_owned());
    tokio::select! {
        result = served => result,
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_CALLS).await } => {
            tracing::warn!("calls are still open after {} s: shutting down without them", LAST_CALLS.as_secs());
            Ok(())
        }
    }
}

fn over(reason: String) -> v1::RunOver {
    v1::RunOver { reason }
}

/// Where the metrics can be scraped of a process at `peer` that announced `announced`; empty if nowhere.
fn scraped_at(who: &str, announced: &str, peer: Option<IpAddr>) -> String {
    let announced: String = announced.chars().take(MAX_ADDRESS).collect();
    let address = metrics_server::reachable(&announced, peer);
    if address.is_none() && !announced.is_empty() {
        let peer = peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
        tracing::info!(
            "the metrics of {who} at {peer} are not listed for scraping: {announced:?} cannot be reached from here; \
             --metrics-listen 0.0.0.0:PORT lets it be reached, --metrics-advertise HOST names it"
        );
    }
    address.unwrap_or_default()
}
