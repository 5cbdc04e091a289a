//! Logs: lines on standard error, filtered by `PODIUM_LOG` (as `info,podium_learner=debug`; `info` if unset).

use std::error::Error;
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
    // A log that cannot be written (a closed pipe, a full disk) is no reason to end: by default the failure would be printed,
    // and printing panics.
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
        tracing::warn!("{FILTER_VARIABLE} cannot be read ({error}): logging at info");
    }
}

/// An error and its causes in one line; a cause that the text before it already gives is not said twice.
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
    fn causes_are_said_once() {
        let source = || std::io::Error::other("no disk");
        for failure in
            [Failure::Said(source()), Failure::Unsaid(source()), Failure::Twice { source: source() }]
        {
            assert_eq!(describe(&failure), "cannot start: no disk");
        }
    }
}
