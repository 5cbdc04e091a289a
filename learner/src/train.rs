//! The training loop of one learner rank (`podium-learner train`).
//!
//! For each step the rank receives its share of groups and takes one update together with the other ranks. Rank 0 then
//! writes the new policy version, a checkpoint if one is due, and the commit. A restarted rank continues from rank 0's
//! newest checkpoint; later steps are repeated on the same groups and produce the same bits.
//!
//! On SIGTERM a rank finishes its step and rank 0 writes a checkpoint. Unsent reports are sent when the run resumes.

mod alive;
mod aside;
mod error;
mod gate;
mod learner;
mod options;
mod outgoing;
mod publishing;
mod rendezvous;
mod room;
mod steps;

use std::path::Path;
use std::time::Duration;

use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_model::{DeviceThread, device_thread};
use podium_service::logs;
use podium_transfer::connection::{Coordinator, Limits};
use podium_transfer::{LocalBase, fetch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::rank::Rank;
use crate::session::{Identity, Session};
use gate::Gate;
use learner::{DEVICE_DEADLINE, Learner, OnDevice};
use outgoing::Outgoing;

pub use error::Error;
pub use options::Options;

/// Identifies the sources of this build.
const CODE_VERSION: &str = env!("PODIUM_CODE_VERSION");

/// Outcome of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The run is over.
    RunOver,
    /// The process shut down on request; the run resumes from its checkpoint at the next start.
    Stopped,
}

/// Trains until the run is over or `stop` is cancelled. Calls `ready` once all ranks are connected.
pub async fn run(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<Ending, Error> {
    match train(file, options, stop, ready).await {
        Ok(()) => Ok(Ending::RunOver),
        Err(error) if error.is_stop() => {
            tracing::info!("shut down before the end of the run, on request: {error}");
            Ok(Ending::Stopped)
        }
        Err(error) => Err(error),
    }
}

async fn train(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<(), Error> {
    let coordinator = Coordinator::at(options.coordinator.clone(), Limits::of(&file.network), stop.clone())?
        .with_credentials(options.credentials.clone());
    let closing = coordinator.until(some_time_after(stop.clone(), options.shutdown_deadline));
    // Ranks on one machine may share a folder.
    let state = options.state.join(format!("rank-{}", options.rank));
    durable::remove_leftovers(&state)?;
    let into = state.join("policy");
    let fetch = async || Ok(fetch::fetch(&coordinator, Some(PolicyVersion::START), &into).await?);
    let (manifest, start) = room::wait("fetch the first policy version", &stop, fetch).await?;
    let base = LocalBase::new(&manifest, &start);
    let identity = Identity {
        learner_id: Uuid::now_v7(),
        run_hash: file.hash(),
        model_fingerprint: manifest.model_fingerprint,
        rank: options.rank,
        world_size: options.world_size,
        metrics_address: options.metrics_address.clone(),
        code_version: CODE_VERSION,
    };
    let every = Duration::from_millis(file.network.heartbeat_interval_ms);
    let alive = tokio::spawn(alive::report(coordinator.clone(), identity.learner_id, every));
    let gate = Gate::open(options)?;
    let outgoing = Outgoing::open(state.join("outgoing"), base, file.network.policy_deltas)?;
    let weights = reward_weights(file);
    let learner = Learner {
        session: Session::new(coordinator, closing.clone(), identity.clone(), weights),
        device: start_device(file, options, &state, &start).await?,
        start,
        outgoing,
        closing,
        stop,
        identity,
        file,
    };
    let mut result = learner.train(gate.as_ref(), ready).await;
    if result.as_ref().is_err_and(Error::is_stop)
        && let Err(error) = learner.on_device("write a checkpoint", Rank::shut_down).await
    {
        result = Err(error);
    }
    if let Err(error) = &result
        && !error.is_stop()
    {
        learner.session.fail(error.failure(), logs::describe(error)).await;
    }
    alive.abort();
    // Tensors are dropped before the process exits, on the thread that owns them. A failed thread has dropped them
    // already.
    let _ = learner.device.call("release the policy", DEVICE_DEADLINE, |rank| drop(rank.take())).await;
    result
}

/// Returns a token that is cancelled `pause` after another.
fn some_time_after(stop: CancellationToken, pause: Duration) -> CancellationToken {
    let later = CancellationToken::new();
    let cancelled = later.clone();
    tokio::spawn(async move {
        stop.cancelled_owned().await;
        tokio::time::sleep(pause).await;
        cancelled.cancel();
    });
    later
}

fn reward_weights(file: &RunFile) -> Vec<f64> {
    file.reward.terms.iter().map(|term| term.weight).collect()
}

async fn start_device(
    file: &RunFile,
    options: &Options,
    state: &Path,
    start: &Path,
) -> Result<DeviceThread<OnDevice>, Error> {
    let (file, start, device) = (file.clone(), start.to_owned(), options.device.clone());
    let (state, rank, shared) = (state.to_owned(), options.rank, options.shared.clone());
    let build = move || Rank::build(&file, &start, &state, rank, &device, shared).map(Some);
    DeviceThread::start("learner", 1, build).await.map_err(|error| match error {
        device_thread::StartError::Spawn { source, .. } => Error::Thread { source },
        device_thread::StartError::State(error) => error.into(),
        device_thread::StartError::Failed(error) => error.into(),
    })
}
