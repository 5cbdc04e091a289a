//! Errors of external rewards.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use podium_endpoint::{LONGEST_REPLY_BYTES, SecretError};

/// The reasons why an external term cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address cannot be used.
    #[error("`url` of the reward term `{term}` cannot be used")]
    Endpoint {
        /// The term.
        term: String,
        /// The cause.
        source: podium_endpoint::SetupError,
    },
    /// The token cannot be read.
    #[error("the token of the reward term `{term}` cannot be used")]
    Token {
        /// The term.
        term: String,
        /// The cause.
        source: SecretError,
    },
    /// The program cannot be started.
    #[error("`command` of the reward term `{term}` cannot be used")]
    Program {
        /// The term.
        term: String,
        /// The cause.
        source: Failure,
    },
}

/// The reasons why an attempt at a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The server did not reply.
    #[error(transparent)]
    Endpoint(#[from] podium_endpoint::Error),
    /// The answer cannot be used; the text says why.
    #[error("{0}")]
    Answer(String),
    /// The program cannot be started.
    #[error("cannot start {program:?} in {}: expected a program that can be executed there", directory.display())]
    Start {
        /// The program.
        program: String,
        /// Its working directory.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The program did not answer in time.
    #[error("the program did not answer within {} ms, and was killed", .0.as_millis())]
    Deadline(Duration),
    /// The program ended.
    #[error("the program ended before its answer ({status}){}: expected it to run until the end of its input", last(.line))]
    Ended {
        /// Its exit status.
        status: String,
        /// The last line of its standard error.
        line: String,
    },
    /// The program's answer is too long.
    #[error("the answer is longer than {LONGEST_REPLY_BYTES} bytes")]
    TooLong,
    /// The answer cannot be read.
    #[error("cannot read the program's answer")]
    Read(#[source] io::Error),
}

fn last(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(", last line of its standard error: {line:?}") }
}

impl Failure {
    /// Returns the kind as a label of metrics.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Endpoint(podium_endpoint::Error::Deadline(_)) | Self::Deadline(_) => "timeout",
            Self::Endpoint(podium_endpoint::Error::Connection(_)) => "connection",
            Self::Endpoint(podium_endpoint::Error::Status { .. }) => "status",
            Self::Endpoint(podium_endpoint::Error::TooLong) | Self::Answer(_) | Self::TooLong => "answer",
            Self::Start { .. } | Self::Ended { .. } | Self::Read(_) => "program",
        }
    }

    /// Returns the wait that the server requests.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Endpoint(podium_endpoint::Error::Status { retry_after, .. }) => *retry_after,
            _ => None,
        }
    }
}
