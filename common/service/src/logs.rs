//! Logs: lines on standard error, filtered by `PODIUM_LOG` (for example `info,podium_learner=debug`; default `info`).

use std::error::Error;
use std::fmt;
use std::io::IsTerminal;

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::plain_text;

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
        builder
            .with_ansi(std::io::stderr().is_terminal())
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .init();
    }
    if let Some(error) = unreadable {
        tracing::warn!("{FILTER_VARIABLE} is invalid ({error}): logging at info");
    }
}

/// Writes a field of a log line. Text of other processes cannot control a terminal, and a second line of a message is
/// indented, so that it cannot be taken for a line of its own.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    if field.name() != "message" {
        write!(writer, "{}=", field.name())?;
    }
    for (number, line) in format!("{value:?}").split('\n').enumerate() {
        let indent = if number > 0 { "\n    " } else { "" };
        write!(writer, "{indent}{}", plain_text::escaped(line))?;
    }
    Ok(())
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
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn text_of_others_cannot_forge_lines_or_control_a_terminal() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(step = 3, "worker on {}", "gpu\r\nERROR forged \u{1b}[2J");
            tracing::info!("plain");
        });
        let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written, " WARN worker on gpu\\r\n    ERROR forged \\u{1b}[2J step=3\n INFO plain\n");
    }

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
