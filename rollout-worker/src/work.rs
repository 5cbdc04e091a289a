//! The work of one worker: from its options to the end of the run.

use std::path::PathBuf;
use std::time::Duration;

use podium_config::RunFile;
use podium_model::SharedDevice;
use podium_proto::v1;
use podium_service::{advertise, gpus};
use podium_transfer::{Coordinator, CoordinatorLocation, Credentials, Limits, manifest};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::Engine;
use crate::link::Identity;
use crate::policy_cache::PolicyCache;
use crate::scheduler::Ending;
use crate::session;

/// A worker's options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the coordinator.
    pub coordinator: CoordinatorLocation,
    /// The run's secret.
    pub credentials: Credentials,
    /// Folder for policy versions, which workers of one host may share.
    pub cache: PathBuf,
    /// `cpu`, `cuda`, `cuda:1` or `auto`.
    pub device: String,
    /// Time limit for finishing the current lease during a graceful shutdown.
    pub shutdown_deadline: Duration,
    /// The advertised host:port of this process's metrics.
    pub metrics_address: String,
    /// The device, if a learner of this process uses it too.
    pub shared: Option<SharedDevice>,
}

/// Samples until the run is over or `stop` is cancelled. Calls `ready` once the first policy is loaded.
pub async fn run(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl FnOnce(),
) -> anyhow::Result<Ending> {
    // Calls continue after SIGTERM, so that the current lease can still be submitted.
    let limits = Limits::of(&file.network);
    let coordinator = Coordinator::at(options.coordinator.clone(), limits, CancellationToken::new())?
        .with_credentials(options.credentials.clone());
    let run_hash = file.hash();
    let cache = PolicyCache::new(coordinator.clone(), &run_hash, &options.cache)?;
    let cache = cache.with_deltas(file.network.policy_deltas);
    let engine = Engine::start(&options.device, file, options.shared.clone(), cache).await?;

    let folder = tokio::select! {
        () = stop.cancelled() => return Ok(Ending::ShutDown),
        folder = engine.ensure_latest() => folder?,
    };
    let device = engine.device_name().await?;
    tracing::info!("computing on {device}");
    let _sampling = gpus::Sampling::start(&device);
    let identity = Identity {
        worker_id: Uuid::new_v4(),
        run_hash,
        model_fingerprint: manifest::fingerprint(&folder)?,
        capabilities: v1::Capabilities {
            device,
            host: advertise::host_name(),
            metrics_address: options.metrics_address.clone(),
        },
    };
    ready();
    let ending = session::run(&coordinator, identity, engine, stop, options.shutdown_deadline).await?;
    match &ending {
        Ending::RunOver(reason) => tracing::info!("shut down: {reason}"),
        Ending::ShutDown => tracing::info!("shut down on request"),
    }
    Ok(ending)
}
