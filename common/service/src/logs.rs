//! Logs: lines on standard error, filtered by `PODIUM_LOG` (for example `info,podium_learner=debug`; default `info`).

use std::error::Error;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Environment variable with the log filter.
pub const FILTER_VARIABLE: &str = "PODIUM_LOG";

/// Starts logging for this process. Call it once, first in `main`.
///
/// `PODIUM_LOG_FORMAT=json` selects one JSON object per line. An invalid filter is reported and replaced.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER_VARIABLE);
    let unreadable = match &filter {
        Err(error) if std::env::var_os(FILTER_VARIABLE).is_some() => Some(error.to_string()),
        _ => None,
    };
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // A log that cannot be written (a closed pipe, a full disk) must not end the process: by default the failure
    // would be printed, and printing panics.
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_env_filter(filter);
    if std::env::var_os("PODIUM_LOG_FORMAT").is_some_and(|format| format == "json") {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).init();
    }
    if let Some(error) = unreadable {
        tracing::warn!("{FILTER_VARIABLE} is invalid ({error}): logging at info");
    }
}

/// Returns an error and its causes in one line; a cause that the preceding text contains is not repeated.
pub fn describe(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (**error).source());
    causes.map(ToString::to_string).fold(String::new(), |said, cause| match said.as_str() {
        "" => cause,
        _ if said.contains(&cause) => said,
        _ => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot start: {0}")]
        Said(std::io::Error),
        #[error("cannot start")]
        Unsaid(#[source] std::io::Error),
        #[error("cannot start: {source}")]
        Twice { source: std::io::Error },
    }

    #[test]
    fn causes_are_not_repeated() {
        let source = || std::io::Error::other("no disk");
        for failure in
            [Failure::Said(source()), Failure::Unsaid(source()), Failure::Twice { source: source() }]
        {
            assert_eq!(describe(&failure), "cannot start: no disk");
        }
    }
}
