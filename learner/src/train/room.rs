//! Waits for free disk space: a rank continues on its own once there is some.

use std::future::Future;
use std::time::Duration;

use podium_files::durable;
use podium_service::logs;
use tokio_util::sync::CancellationToken;

use super::error::Error;

/// Interval between retries.
const PAUSE: Duration = Duration::from_secs(5);

/// Retries `attempt` as long as the disk is full. Returns the error when `stop` is cancelled.
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
                tracing::warn!("cannot {what}: {}: waiting for free disk space", logs::describe(&error));
                tokio::select! {
                    () = stop.cancelled() => return Err(error),
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            outcome => return outcome,
        }
    }
}
