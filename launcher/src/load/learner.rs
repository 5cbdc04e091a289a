//! A simulated learner rank: fetches the groups of each step, publishes the next version, and commits the step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use podium_grpo::PolicyVersion;
use podium_proto::v1::{self, batch_part::Part};
use podium_transfer::connection;
use podium_transfer::{Coordinator, Manifest, publish};
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::StreamExt;
use uuid::Uuid;

use super::error::PeerError;
use super::peers::{Peers, call};

/// Longest time that a request waits for the groups of a step.
const WAIT: Duration = Duration::from_secs(5);

/// A learner of one rank.
pub(super) struct Learner {
    pub(super) peers: Arc<Peers>,
    /// The files of every version: all versions have the initial weights.
    pub(super) folder: PathBuf,
    /// The manifest of version 0.
    pub(super) manifest: Manifest,
    pub(super) checkpoint_every_steps: u64,
    pub(super) heartbeat_interval: Duration,
}

impl Learner {
    /// Trains until the peers are stopped or the run is over. Returns the coordinator's reason if it is over.
    pub(super) async fn run(self) -> Result<Option<String>, PeerError> {
        let coordinator = self.peers.connect()?;
        let learner = Uuid::new_v4();
        let ended = tokio::select! {
            trained = self.train(&coordinator, learner) => trained,
            lost = self.report(&coordinator, learner) => lost,
        };
        match ended {
            Err(PeerError::Connection(connection::Error::Stopped { .. })) => Ok(None),
            ended => ended,
        }
    }

    async fn train(&self, coordinator: &Coordinator, learner: Uuid) -> Result<Option<String>, PeerError> {
        let join = self.peers.join(learner, WAIT.as_millis() as u64);
        while !call!(coordinator, learner.join, "join the run", join.clone()).await?.complete {}
        for step in 0.. {
            match self.fetch(coordinator, learner, step).await? {
                Part::Header(_) => {}
                Part::RunOver(over) => return Ok(Some(over.reason)),
                other => {
                    let found = format!("{other:?}");
                    return Err(PeerError::Unexpected { found, expected: "the groups of a step" });
                }
            }
            let manifest = Manifest { version: PolicyVersion(step + 1), ..self.manifest.clone() };
            let name = learner.to_string();
            publish::publish(coordinator, &name, &manifest, &self.folder, None).await?;
            let next = step + 1;
            let commit = v1::CommitStepRequest {
                activities: Vec::new(),
                learner_id: name,
                step,
                metrics: BTreeMap::from([("loss".to_owned(), 0.0)]),
                checkpoint_step: next.is_multiple_of(self.checkpoint_every_steps).then_some(next),
            };
            let answer = call!(coordinator, learner.commit_step, "commit a step", commit).await?;
            self.peers.tally.add(&self.peers.tally.steps, 1);
            if answer.run_over {
                return Ok(Some("the run is complete".to_owned()));
            }
        }
        Ok(None)
    }

    /// Waits for a step, receives its groups, and returns the first part.
    async fn fetch(&self, coordinator: &Coordinator, learner: Uuid, step: u64) -> Result<Part, PeerError> {
        let request = v1::NextBatchRequest {
            learner_id: learner.to_string(),
            rank: 0,
            step,
            wait_ms: WAIT.as_millis() as u64,
            lost_versions: vec![],
        };
        loop {
            let receive = || {
                let (mut client, request) = (coordinator.learner(), request.clone());
                async move {
                    let mut stream = client.next_batch(request).await?.into_inner();
                    let mut first = None;
                    while let Some(part) = stream.next().await {
                        let part = part?.part;
                        first = first.or(part);
                    }
                    Ok(tonic::Response::new(first))
                }
            };
            match coordinator.call("fetch the groups of a step", receive).await? {
                Some(Part::NotReady(_)) | None => {}
                Some(part) => return Ok(part),
            }
        }
    }

    /// Reports that the rank is alive. Returns only on an error.
    async fn report(&self, coordinator: &Coordinator, learner: Uuid) -> Result<Option<String>, PeerError> {
        let mut ticks = interval(self.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let alive = v1::AliveRequest { learner_id: learner.to_string() };
            call!(coordinator, learner.alive, "report that a rank is alive", alive).await?;
        }
    }
}
