//! Logs: lines on standard error, filtered by `PODIUM_LOG` (as `info,podium_learner=debug`; `info` if unset).

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that filters logs.
pub const FILTER_VARIABLE: &str = "PODIUM_LOG";

/// Starts logging for this process. Call once, first thing in `main`.
///
/// `PODIUM_LOG_FORMAT=json` gives one JSON object a line. A filter that cannot be read is reported and replaced.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE);
    let unreadable = match &filter {
        Err(error) if std::env::var_os(FILTER_VARIABLE).is_some() => Some(error.to_string()),
        _ => None,
    };
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    if std::env::var("PODIUM_LOG_FORMAT").is_ok_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
    if let Some(error) = unreadable {
        tracing::warn!("{FILTER_VARIABLE} cannot be read ({error}): logging at info");
    }
}
