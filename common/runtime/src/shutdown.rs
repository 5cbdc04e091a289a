//! Leaving in good order: one token that SIGTERM and SIGINT cancel.

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. A second signal ends the process at once.
///
/// # Errors
/// If the system lets no signal handler be set.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if first {
                tracing::info!("{name}: leaving after the work at hand; a second signal ends at once");
                cancelled.cancel();
            } else {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(130);
            }
        }
    });
    Ok(token)
}
