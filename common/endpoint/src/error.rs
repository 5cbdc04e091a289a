//! Errors of endpoints.

use std::time::Duration;

use reqwest::StatusCode;

/// Maximum size of a reply.
pub const LONGEST_REPLY_BYTES: usize = 16 << 20;

/// An error while setting up an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address is invalid.
    #[error("{0:?} is not an address: expected one such as https://api.openai.com/v1")]
    Address(String),
    /// The address contains credentials, which would be written to logs and files.
    #[error(
        "the address contains a user name or password: expected the key in an environment variable or a file"
    )]
    Credentials,
    /// The key contains characters that are invalid in a header.
    #[error("the key contains characters that are invalid in an HTTP header")]
    Key(#[source] reqwest::header::InvalidHeaderValue),
    /// The HTTP client cannot be created.
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
}

/// An error of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No complete reply within the deadline.
    #[error("no complete reply within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The connection failed or ended before the reply was complete.
    #[error("the connection failed")]
    Connection(#[source] reqwest::Error),
    /// The reply is too long.
    #[error("the reply is longer than {LONGEST_REPLY_BYTES} bytes")]
    TooLong,
    /// The endpoint returned an error status.
    #[error("{status}{}", with_separator(.text))]
    Status {
        /// The status.
        status: StatusCode,
        /// The beginning of its text.
        text: String,
        /// The wait that it requests.
        retry_after: Option<Duration>,
    },
}

fn with_separator(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
