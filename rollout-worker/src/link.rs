//! The coordinator's rollout service for one worker: one method per request, each retried according to the table in
//! `podium_transfer::connection`.

use std::time::Duration;

use podium_proto::convert::{self, Error as MessageError};
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::Activities;
use podium_transfer::connection::{Coordinator, Error, Kind};
use uuid::Uuid;

/// Maximum time for which the coordinator may hold a lease request.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Identity of this worker.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Chosen at the start of the process.
    pub(crate) worker_id: Uuid,
    /// Hash of the worker's run file.
    pub(crate) run_hash: String,
    /// Fingerprint of the loaded policy.
    pub(crate) model_fingerprint: String,
    /// Its device.
    pub(crate) capabilities: v1::Capabilities,
}

/// The result of registering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The run.
    pub(crate) run_id: Uuid,
    /// Interval between heartbeats.
    pub(crate) heartbeat_interval: Duration,
}

impl TryFrom<v1::RegisterResponse> for Membership {
    type Error = MessageError;

    fn try_from(message: v1::RegisterResponse) -> Result<Self, MessageError> {
        let run_id = convert::uuid("RegisterResponse.run_id", &message.run_id)?;
        if message.heartbeat_interval_ms == 0 {
            return Err(MessageError::Invalid {
                field: "RegisterResponse.heartbeat_interval_ms",
                value: "0".into(),
                expected: "at least 1",
            });
        }
        Ok(Self { run_id, heartbeat_interval: Duration::from_millis(message.heartbeat_interval_ms) })
    }
}

/// A client of the coordinator. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    coordinator: Coordinator,
    identity: Identity,
    activities: Activities,
}

impl Link {
    pub(crate) fn new(coordinator: Coordinator, identity: Identity) -> Self {
        Self { coordinator, identity, activities: Activities::default() }
    }

    /// The record of this worker's activities, which is sent with results and heartbeats.
    pub(crate) const fn activities(&self) -> &Activities {
        &self.activities
    }

    pub(crate) const fn worker_id(&self) -> Uuid {
        self.identity.worker_id
    }

    pub(crate) async fn register(&self) -> Result<v1::RegisterResponse, Error> {
        let Identity { run_hash, model_fingerprint, capabilities, .. } = self.identity.clone();
        let request = v1::RegisterRequest {
            worker_id: self.name(),
            run_hash,
            model_fingerprint,
            protocol: PROTOCOL_VERSION,
            capabilities: Some(capabilities),
        };
        let attempt = || {
            let (mut client, request) = (self.coordinator.rollout(), request.clone());
            async move { client.register(request).await }
        };
        self.coordinator.call("register this worker", attempt).await
    }

    /// Requests a lease; waits about half as long as a call may take.
    pub(crate) async fn lease(&self) -> Result<v1::LeaseResponse, Error> {
        let wait = (self.coordinator.limits().request_timeout / 2).min(LONGEST_WAIT);
        let request = v1::LeaseRequest { worker_id: self.name(), wait_ms: wait.as_millis() as u64 };
        let attempt = || {
            let (mut client, request) = (self.coordinator.rollout(), request.clone());
            async move { client.lease(request).await }
        };
        self.coordinator.call("request a lease", attempt).await
    }

    /// Submits results; repeats the call until the coordinator has graded them.
    pub(crate) async fn submit(&self, request: &v1::SubmitRequest) -> Result<v1::SubmitResponse, Error> {
        let attempt = || {
            let (mut client, mut request) = (self.coordinator.rollout(), request.clone());
            let report = self.activities.report();
            request.activities.clone_from(&report.spans);
            async move {
                let answer = client.submit(request).await;
                if answer.is_ok() {
                    self.activities.received(&report);
                }
                answer
            }
        };
        loop {
            let answer = self.coordinator.call("submit a lease's completions", attempt).await?;
            if !answer.pending {
                return Ok(answer);
            }
        }
    }

    pub(crate) async fn heartbeat(&self, held: Vec<Uuid>) -> Result<v1::HeartbeatResponse, Error> {
        let lease_ids: Vec<String> = held.iter().map(Uuid::to_string).collect();
        let attempt = || {
            let (mut client, activities) = (self.coordinator.rollout(), self.activities.report().spans);
            let request =
                v1::HeartbeatRequest { worker_id: self.name(), lease_ids: lease_ids.clone(), activities };
            async move { client.heartbeat(request).await }
        };
        self.coordinator.call("send a heartbeat", attempt).await
    }

    pub(crate) async fn leave(&self) -> Result<v1::LeaveResponse, Error> {
        let request = v1::LeaveRequest { worker_id: self.name() };
        let attempt = || {
            let (mut client, request) = (self.coordinator.rollout(), request.clone());
            async move { client.leave(request).await }
        };
        self.coordinator.call("leave the run", attempt).await
    }

    fn name(&self) -> String {
        self.identity.worker_id.to_string()
    }
}

/// Whether a refusal means that the coordinator does not know this worker, for example after a restart.
pub(crate) fn is_forgotten(error: &Error) -> bool {
    error.kind() == Kind::NotFound
}
