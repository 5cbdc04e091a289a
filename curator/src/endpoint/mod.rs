//! An OpenAI-compatible endpoint: one attempt at one request, within a deadline.
//!
//! What to do about a failure is decided by [`Error::remedy`]; when and how often is the session's business. The key
//! reaches the authorization header and nothing else.

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

/// No reply is longer.
const LONGEST_REPLY_BYTES: usize = 16 << 20;
/// Retry-After in milliseconds, as some endpoints send it.
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Of an error's text, as much is shown.
const SHOWN_CHARACTERS: usize = 300;

/// Why the endpoint cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// Not an address.
    #[error("--endpoint {0:?}: expected an address such as https://api.openai.com/v1")]
    Address(String),
    /// A password in the address would be written wherever the address is.
    #[error("--endpoint holds a user name or password: expected the key in an environment variable")]
    Credentials,
    /// A key that no header can carry.
    #[error("the key in the environment holds characters that no HTTP header carries")]
    Key(#[source] reqwest::header::InvalidHeaderValue),
    /// The client cannot be made.
    #[error("cannot set up HTTPS")]
    Client(#[source] reqwest::Error),
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing, or not all of it, within the deadline.
    #[error("no whole reply within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The connection failed, or ended before the reply did.
    #[error("the connection failed")]
    Connection(#[source] reqwest::Error),
    /// A reply that nobody asked for.
    #[error("the reply is longer than {LONGEST_REPLY_BYTES} bytes")]
    TooLong,
    /// The endpoint said no.
    #[error("{status}{}", said(.text))]
    Status {
        /// With this status.
        status: StatusCode,
        /// The beginning of its explanation.
        text: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// A reply without an answer.
    #[error(transparent)]
    Junk(#[from] reply::Error),
}

fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// What can be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Ask again after a while; after this long, if the endpoint says so.
    Again(Option<Duration>),
    /// This request will never be answered; others may be.
    Skip,
    /// No request will be answered: wrong address, key or model, or no credit.
    Stop,
}

impl Error {
    /// What can be done about it.
    pub(crate) fn remedy(&self) -> Remedy {
        let (status, text, retry_after) = match self {
            Self::Status { status, text, retry_after } => (status.as_u16(), text, *retry_after),
            Self::Junk(reply::Error::Said { status, text, .. }) => (status.unwrap_or(500), text, None),
            _ => return Remedy::Again(None),
        };
        match status {
            300..=399 | 401..=405 => Remedy::Stop,
            _ if text.contains("insufficient_quota") => Remedy::Stop,
            408 | 409 | 425 | 429 | 500..=599 => Remedy::Again(retry_after),
            400..=499 => Remedy::Skip,
            // In a reply of status 200: a code that is no status.
            _ => Remedy::Again(retry_after),
        }
    }

    /// What it cost all the same; `None` if nobody says that anything was computed.
    pub(crate) fn usage(&self) -> Option<Usage> {
        match self {
            Self::Junk(error) => error.usage(),
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
    /// The endpoint at `address`, up to and including its `/v1`. Every attempt ends within `deadline`.
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
        // A redirected question would take the key to another host.
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
            // Read first: a key that is also a piece of the JSON must not break it.
            let reply = reply::read(&body, |text| beginning(&self.secret.hide(text)))?;
            Ok(Reply { text: self.secret.hide(&reply.text), ..reply })
        } else {
            Err(Error::Status { status, text: beginning(&self.secret.hide(&body)), retry_after })
        }
    }
}

/// The beginning of a text on one line, without control characters.
fn beginning(text: &str) -> String {
    let shown: Vec<&str> = text.split_whitespace().collect();
    shown.join(" ").chars().filter(|letter| !letter.is_control()).take(SHOWN_CHARACTERS).collect()
}

/// How long the endpoint wants to be left alone: milliseconds in a header of their own, seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| *number >= 0.0);
    // More than a duration holds is longer than anyone waits.
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
    fn only_what_may_change_is_tried_again() {
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
        let inside = |body: &str| Error::Junk(reply::read(body, str::to_owned).unwrap_err()).remedy();
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
    fn addresses_with_passwords_are_refused() {
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
