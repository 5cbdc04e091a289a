//! Command-line options of a rank.

use std::path::PathBuf;
use std::time::Duration;

use podium_model::SharedDevice;
use podium_transfer::{CoordinatorLocation, Credentials};

/// A rank's command-line options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the coordinator.
    pub coordinator: CoordinatorLocation,
    /// The run's secret.
    pub credentials: Credentials,
    /// Folder for checkpoints and policy files; each rank uses its own subfolder.
    pub state: PathBuf,
    /// This rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// `cpu`, `cuda`, `cuda:1` or `auto`.
    pub device: String,
    /// host:port where rank 0 listens for the other ranks.
    pub collective_listen: String,
    /// HOST or HOST:PORT by which the other ranks reach rank 0; see [`podium_service::advertise::address`].
    pub collective_advertise: Option<String>,
    /// Time limit for submitting the finished step during a graceful shutdown.
    pub shutdown_deadline: Duration,
    /// The advertised host:port of this process's metrics.
    pub metrics_address: String,
    /// The device, if a worker of this process uses it too.
    pub shared: Option<SharedDevice>,
}
