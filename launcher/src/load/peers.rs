//! State that the simulated peers share.

use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::{Coordinator, Credentials, Limits, connection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::completions::Completions;
use super::tally::Tally;

/// State of all simulated peers of a load test.
#[derive(Debug)]
pub(super) struct Peers {
    /// The coordinator's address.
    pub(super) address: String,
    pub(super) credentials: Credentials,
    pub(super) limits: Limits,
    pub(super) run_hash: String,
    pub(super) model_fingerprint: String,
    pub(super) completions: Completions,
    /// Completions of a training group.
    pub(super) group_size: u32,
    /// Seconds between two groups of one worker; 0: as fast as the coordinator replies.
    pub(super) seconds_per_group: f64,
    pub(super) tally: Tally,
    /// Ends all peers.
    pub(super) stop: CancellationToken,
}

impl Peers {
    /// Opens a connection of its own for a peer.
    pub(super) fn connect(&self) -> Result<Coordinator, connection::Error> {
        let coordinator = Coordinator::new(&self.address, self.limits, self.stop.clone())?;
        Ok(coordinator.with_credentials(self.credentials.clone()))
    }

    pub(super) fn registration(&self, worker: Uuid) -> v1::RegisterRequest {
        v1::RegisterRequest {
            worker_id: worker.to_string(),
            run_hash: self.run_hash.clone(),
            model_fingerprint: self.model_fingerprint.clone(),
            protocol: PROTOCOL_VERSION,
            capabilities: Some(v1::Capabilities {
                device: "simulated".to_owned(),
                host: "localhost".to_owned(),
                ..v1::Capabilities::default()
            }),
        }
    }

    pub(super) fn join(&self, learner: Uuid, wait_ms: u64) -> v1::JoinRequest {
        v1::JoinRequest {
            learner_id: learner.to_string(),
            run_hash: self.run_hash.clone(),
            model_fingerprint: self.model_fingerprint.clone(),
            protocol: PROTOCOL_VERSION,
            world_size: 1,
            wait_ms,
            ..v1::JoinRequest::default()
        }
    }
}

/// Calls a method of the coordinator with the retries of the connection.
macro_rules! call {
    ($coordinator:expr, $client:ident . $method:ident, $what:expr, $request:expr) => {{
        let (coordinator, request) = (&$coordinator, $request);
        coordinator.call($what, move || {
            let (mut client, request) = (coordinator.$client(), request.clone());
            async move { client.$method(request).await }
        })
    }};
}
pub(super) use call;
