//! Graceful shutdown: one token that SIGTERM, SIGINT, SIGUSR1 and SIGHUP cancel, and the exit code of a stopped process.

use std::fs;
use std::sync::OnceLock;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of a process that was stopped before the end of the run: restarted, it resumes. It is `EX_TEMPFAIL` of
/// sysexits.h, which launchers interpret as "try again".
pub const STOPPED: u8 = 75;

/// Exit code after a second SIGINT, as expected by shells.
const INTERRUPTED: i32 = 130;

/// The first of the signals that this process received.
static RECEIVED: OnceLock<&str> = OnceLock::new();

/// Returns a token that is cancelled by the first SIGTERM, SIGINT, SIGUSR1 (which Slurm can send before a time limit)
/// or SIGHUP (a closed terminal). A second SIGINT ends the process immediately. The others may be repeated without
/// effect: a batch system signals a process and also its parent, which forwards the signal.
///
/// SIGHUP is not handled if the process was started with SIGHUP ignored, as by `nohup`.
///
/// # Errors
/// Fails if a signal handler cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut early = signal(SignalKind::user_defined1())?;
    let mut hang_up = if hang_up_is_ignored() { None } else { Some(signal(SignalKind::hangup())?) };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut interrupted = false;
        loop {
            let (name, interrupts) = tokio::select! {
                _ = terminate.recv() => ("SIGTERM", false),
                _ = interrupt.recv() => ("SIGINT", true),
                _ = early.recv() => ("SIGUSR1", false),
                () = received_by(hang_up.as_mut()) => ("SIGHUP", false),
            };
            RECEIVED.get_or_init(|| name);
            if interrupted && interrupts {
                tracing::warn!("{name} again: exiting immediately");
                std::process::exit(INTERRUPTED);
            }
            interrupted |= interrupts;
            if !cancelled.is_cancelled() {
                tracing::info!(
                    "{name}: shutting down after the work in progress; a second SIGINT exits immediately"
                );
                cancelled.cancel();
            }
        }
    });
    Ok(token)
}

/// Returns the first signal that requested a shutdown, such as `SIGTERM`.
pub fn received() -> Option<&'static str> {
    RECEIVED.get().copied()
}

async fn received_by(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

/// Whether this process inherited SIGHUP as ignored. A handler installed by an earlier call does not count.
fn hang_up_is_ignored() -> bool {
    ignores(&fs::read_to_string("/proc/self/status").unwrap_or_default(), SignalKind::hangup())
}

/// Whether a signal is in the mask of ignored signals of `/proc/PID/status`.
fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (kind.as_raw_value() - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hang_up_is_detected() {
        let status = "Name:\tpodium\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert!(ignores(status, SignalKind::hangup()));
        assert!(!ignores(status, SignalKind::terminate()));
        assert!(!ignores("Name:\tpodium\n", SignalKind::hangup()));
    }
}
