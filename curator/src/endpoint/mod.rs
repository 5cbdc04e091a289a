//! An OpenAI-compatible endpoint: one attempt at one request, within a deadline.
//!
//! [`Error::remedy`] classifies failures; the session schedules retries. The key is sent only in the authorization
//! header.

mod answer;
mod backoff;
mod limits;
mod reply;
mod secret;
mod wire;

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};

pub(crate) use backoff::wait_ms;
pub(crate) use limits::{Limits, Rates};
pub(crate) use reply::{MOST_TOKENS, Reply, Usage};
pub(crate) use secret::Secret;
pub(crate) use wire::{Message, Part, Request};

/// Maximum size of a reply.
const LONGEST_REPLY_BYTES: usize = 16 << 20;
/// Retry-After in milliseconds, a header of some endpoints.
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Number of characters of an error's text that are shown.
const SHOWN_CHARACTERS: usize = 300;

/// An error while setting up the endpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The address is invalid.
    #[error("--endpoint {0:?}: expected an address such as https://api.openai.com/v1")]
    Address(String),
    /// The address contains credentials, which would be written to logs and files.
    #[error("--endpoint contains a user name or password: expected the key in an environment variable")]
    Credentials,
    /// The key contains characters that are invalid in a header.
    #[error("the key in the environment contains characters that are invalid in an HTTP header")]
    Key(#[source] reqwest::header::InvalidHeaderValue),
    /// The HTTP client cannot be created.
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
}

/// An error of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
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
    /// The reply has no answer.
    #[error(transparent)]
    Invalid(#[from] reply::Error),
}

fn with_separator(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
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
            Self::Status { status, text, retry_after } => (status.as_u16(), text, *retry_after),
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
            _ => None,
        }
    }
}

/// A connection to one endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    address: Url,
    headers: HeaderMap,
    secret: Secret,
    deadline: Duration,
}

impl Endpoint {
    /// Creates the endpoint at `address`, up to and including its `/v1`. Every attempt has the timeout `deadline`.
    pub(crate) fn new(address: &str, secret: Secret, deadline: Duration) -> Result<Self, SetupError> {
        let mut url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| SetupError::Address(secret.hide(address)))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SetupError::Credentials);
        }
        let path = format!("{}/chat/completions", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, reqwest::header::HeaderValue::from_static("application/json"));
        if let Some(value) = secret.header() {
            headers.insert(AUTHORIZATION, value.map_err(SetupError::Key)?);
        }
        // A redirect would send the key to another host.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(concat!("podium-curator/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { client, address: url, headers, secret, deadline })
    }

    /// Sends `body` once.
    pub(crate) async fn send(&self, body: &str) -> Result<Reply, Error> {
        let answered = tokio::time::timeout(self.deadline, self.exchange(body)).await;
        answered.unwrap_or(Err(Error::Deadline(self.deadline)))
    }

    async fn exchange(&self, body: &str) -> Result<Reply, Error> {
        let failed = |error: reqwest::Error| Error::Connection(error.without_url());
        let request = self.client.post(self.address.clone()).headers(self.headers.clone());
        let mut response = request.body(body.to_owned()).send().await.map_err(failed)?;
        let status = response.status();
        let retry_after = retry_after(response.headers(), SystemTime::now());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LONGEST_REPLY_BYTES {
                return Err(Error::TooLong);
            }
        }
        let body = String::from_utf8_lossy(&bytes);
        if status.is_success() {
            // Parse before hiding the key: replacing it could break the JSON.
            let reply = reply::read(&body, |text| beginning(&self.secret.hide(text)))?;
            Ok(Reply { text: self.secret.hide(&reply.text), ..reply })
        } else {
            Err(Error::Status { status, text: beginning(&self.secret.hide(&body)), retry_after })
        }
    }
}

/// Returns the beginning of a text on one line, without control characters.
fn beginning(text: &str) -> String {
    let shown: Vec<&str> = text.split_whitespace().collect();
    shown.join(" ").chars().filter(|letter| !letter.is_control()).take(SHOWN_CHARACTERS).collect()
}

/// Parses the wait requested by the endpoint: milliseconds in a separate header, seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    // Clamp waits that exceed a duration's range.
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    if let Some(milliseconds) = text(RETRY_AFTER_MS).and_then(number) {
        return Some(duration(milliseconds / 1e3));
    }
    let text = text(RETRY_AFTER.as_str())?;
    if let Some(seconds) = number(text) {
        return Some(duration(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_transient_errors_are_retried() {
        let remedy = |status, text: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let retry_after = Some(Duration::from_secs(3));
            Error::Status { status, text: text.to_owned(), retry_after }.remedy()
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

    #[test]
    fn retry_after_is_milliseconds_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &'static str| {
            let value = reqwest::header::HeaderValue::from_static(text);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
        assert_eq!(read("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(read("1e300"), Some(Duration::MAX));
        for none in ["soon", "-1", "NaN"] {
            assert_eq!(read(none), None, "{none}");
        }
        let both = [("retry-after-ms", "250.5"), ("retry-after", "9")];
        let both = both
            .map(|(name, value)| (name.parse().unwrap(), reqwest::header::HeaderValue::from_static(value)));
        assert_eq!(retry_after(&HeaderMap::from_iter(both), now), Some(Duration::from_micros(250_500)));
    }

    #[test]
    fn addresses_with_passwords_are_rejected() {
        let new = |address: &str| Endpoint::new(address, Secret::default(), Duration::from_secs(1));
        assert!(matches!(new("https://me:secret@host/v1"), Err(SetupError::Credentials)));
        for address in ["", "api.openai.com", "file:///etc/passwd", "ftp://host"] {
            assert!(matches!(new(address), Err(SetupError::Address(_))), "{address}");
        }
        let endpoint = new("http://localhost:8000/v1/?api-version=1").unwrap();
        assert_eq!(endpoint.address.path(), "/v1/chat/completions");
        assert_eq!(endpoint.address.query(), Some("api-version=1"));
    }
}
