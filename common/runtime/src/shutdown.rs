//! Leaving in good order: one token that SIGTERM, SIGINT and SIGUSR1 cancel, and the exit code of who left.

use tokio_util::sync::CancellationToken;

/// Exit code of a process that was asked to leave before the run was over: started again, it goes on from where it
/// stopped. It is `EX_TEMPFAIL` of sysexits.h, which launchers take for "try again".
pub const STOPPED: u8 = 75;

/// A token that is cancelled by the first SIGTERM, SIGINT or SIGUSR1 (what Slurm is told to send some time before a time
/// limit). A second SIGINT ends the process at once. The other two may come again and again, which changes nothing: who ends
/// jobs tells a process itself and also who started it, which passes it on.
///
/// # Errors
/// If the system lets no signal handler be set.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut early = signal(SignalKind::user_defined1())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut interrupted = false;
        loop {
            let (name, interrupts) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", false),
                _ = interrupt.recv() => ("SIGINT", true),
                _ = early.recv() => ("SIGUSR1", false),
            };
            if interrupted && interrupts {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(130);
            }
            interrupted |= interrupts;
            if !cancelled.is_cancelled() {
                tracing::info!("{name}: leaving after the work at hand; a second SIGINT ends at once");
                cancelled.cancel();
            }
        }
    });
    Ok(token)
}
