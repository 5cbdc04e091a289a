//! The state of a rank in training, and the calls of its device thread.

use std::path::PathBuf;
use std::time::Duration;

use podium_config::RunFile;
use podium_model::DeviceThread;
use podium_transfer::connection::Coordinator;
use tokio_util::sync::CancellationToken;

use super::error::Error;
use super::outgoing::Outgoing;
use crate::rank::Rank;
use crate::session::{Identity, Session};

/// Maximum time of one job of the device thread.
pub(super) const DEVICE_DEADLINE: Duration = Duration::from_secs(3600);

/// State of the device thread; `None` after shutdown.
pub(super) type OnDevice = Option<Rank>;

/// A rank in training: its session, its device thread and its folders.
pub(super) struct Learner<'a> {
    pub(super) file: &'a RunFile,
    pub(super) session: Session,
    pub(super) identity: Identity,
    /// The client for reports of the current step, which continues during a graceful shutdown.
    pub(super) closing: Coordinator,
    pub(super) stop: CancellationToken,
    pub(super) device: DeviceThread<OnDevice>,
    /// Folder of version 0.
    pub(super) start: PathBuf,
    /// The versions that rank 0 publishes.
    pub(super) outgoing: Outgoing,
}

impl Learner<'_> {
    /// Runs a job on the device thread. `what` names it in errors.
    pub(super) async fn on_device<R: Send + 'static, E: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Rank) -> Result<R, E> + Send + 'static,
    ) -> Result<R, Error>
    where
        Error: From<E>,
    {
        let job = move |rank: &mut OnDevice| job(rank.as_mut().expect("the rank exists until shutdown"));
        Ok(self.device.call(what, DEVICE_DEADLINE, job).await??)
    }
}
