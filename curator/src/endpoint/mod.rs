//! An OpenAI-compatible endpoint: one attempt at one request, within a deadline.
//!
//! [`Error::remedy`] classifies failures; the session schedules retries. The key is sent only in the authorization
//! header.

mod answer;
mod limits;
mod reply;
mod wire;

use std::time::Duration;

pub(crate) use limits::{Limits, Rates};
pub(crate) use podium_endpoint::{Secret, SetupError, wait_ms};
pub(crate) use reply::{MOST_TOKENS, Reply, Usage};
pub(crate) use wire::{Message, Part, Request};

/// An error of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is no reply.
    #[error(transparent)]
    Exchange(#[from] podium_endpoint::Error),
    /// The reply has no answer.
    #[error(transparent)]
    Invalid(#[from] reply::Error),
}

/// How to react to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Retry after a wait, which the endpoint may specify.
    Again(Option<Duration>),
    /// Skip this request, which cannot succeed; others may.
    Skip,
    /// Stop: no request can succeed, because of a wrong address, key or model, or missing credit.
    Stop,
}

impl Error {
    /// Returns how to react to the error.
    pub(crate) fn remedy(&self) -> Remedy {
        let (status, text, retry_after) = match self {
            Self::Exchange(podium_endpoint::Error::Status { status, text, retry_after }) => {
                (status.as_u16(), text, *retry_after)
            }
            Self::Invalid(reply::Error::Reported { status, text, .. }) => (status.unwrap_or(500), text, None),
            _ => return Remedy::Again(None),
        };
        match status {
            300..=399 | 401..=405 => Remedy::Stop,
            _ if text.contains("insufficient_quota") => Remedy::Stop,
            408 | 409 | 425 | 429 | 500..=599 => Remedy::Again(retry_after),
            400..=499 => Remedy::Skip,
            // A reply with status 200 whose error code is not a status.
            _ => Remedy::Again(retry_after),
        }
    }

    /// Returns the cost of the failed request; `None` if it is unknown.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Invalid(error) => error.usage(),
            Self::Exchange(_) => None,
        }
    }
}

/// A connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint(podium_endpoint::Endpoint);

impl Endpoint {
    /// Creates the endpoint at `address`, up to and including its `/v1`. Every attempt has the timeout `deadline`.
    pub(crate) fn new(address: &str, secret: Secret, deadline: Duration) -> Result<Self, SetupError> {
        let agent = concat!("podium-curator/", env!("CARGO_PKG_VERSION"));
        podium_endpoint::Endpoint::new(address, "/chat/completions", secret, deadline, agent).map(Self)
    }

    /// Sends `body` once.
    pub(crate) async fn send(&self, body: &str) -> Result<Reply, Error> {
        let bytes = self.0.post(body).await?;
        // Parse before hiding the key: replacing it could break the JSON.
        let reply = reply::read(&String::from_utf8_lossy(&bytes), |text| self.0.shown(text))?;
        Ok(Reply { text: self.0.hide(&reply.text), ..reply })
    }
}

#[cfg(test)]
mod tests {
    use podium_endpoint::StatusCode;

    use super::*;

    #[test]
    fn only_transient_errors_are_retried() {
        let remedy = |status, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = Some(Duration::from_secs(3));
            Error::from(podium_endpoint::Error::Status { status, text: text.to_owned(), retry_after })
                .remedy()
        };
        for status in [408, 429, 500, 502, 503, 529] {
            assert_eq!(remedy(status, ""), Remedy::Again(Some(Duration::from_secs(3))), "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(remedy(status, ""), Remedy::Skip, "{status}");
        }
        for status in [301, 302, 307, 308, 401, 402, 403, 404, 405] {
            assert_eq!(remedy(status, ""), Remedy::Stop, "{status}");
        }
        assert_eq!(remedy(429, "\"code\": \"insufficient_quota\""), Remedy::Stop);
        let inside = |body: &str| Error::Invalid(reply::read(body, str::to_owned).unwrap_err()).remedy();
        assert_eq!(inside("{}"), Remedy::Again(None));
        for (error, expected) in [
            (r#"{"code": 402}"#, Remedy::Stop),
            (r#"{"code": "insufficient_quota", "message": "pay"}"#, Remedy::Stop),
            (r#"{"code": 400}"#, Remedy::Skip),
            (r#"{"code": 503}"#, Remedy::Again(None)),
            (r#"{"code": 1305, "message": "busy"}"#, Remedy::Again(None)),
            (r#""busy""#, Remedy::Again(None)),
        ] {
            assert_eq!(inside(&format!("{{\"error\": {error}}}")), expected, "{error}");
        }
    }
}
