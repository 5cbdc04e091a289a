//! Waiting for room on this host's disk: a rank goes on by itself once there is some.

use std::future::Future;
use std::time::Duration;

use podium_files::durable;
use podium_service::logs;
use tokio_util::sync::CancellationToken;

use super::Error;

/// How long to wait before the disk is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// Does `attempt` again for as long as the disk is full. When `stop` is cancelled the error is returned.
pub(super) async fn wait<T, F>(
    what: &str,
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    loop {
        match attempt().await {
            Err(error) if durable::is_full(&error) && !stop.is_cancelled() => {
                tracing::warn!("cannot {what}: {}: waiting for room", logs::describe(&error));
                tokio::select! {
                    () = stop.cancelled() => return Err(error),
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            outcome => return outcome,
        }
    }
}
