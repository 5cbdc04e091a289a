//! An OpenAI-compatible endpoint: one attempt at one request, within a deadline.
//!
//! What to do about a failure is decided by [`Error::remedy`]; when and how often is the session's business. The key
//! reaches the authorization header and nothing else.

mod backoff;
mod limits;
mod secret;
mod wire;

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};

pub(crate) use backoff::wait_ms;
pub(crate) use limits::{Limits, Rates};
pub(crate) use secret::Secret;
pub(crate) use wire::{MOST_TOKENS, Message, Part, Reply, Request};

/// No reply is longer.
const LONGEST_REPLY_BYTES: usize = 16 << 20;
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
    Junk(#[from] wire::Error),
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
        let Self::Status { status, text, retry_after } = self else { return Remedy::Again(None) };
        match status.as_u16() {
            300..=399 | 401..=405 => Remedy::Stop,
            429 if text.contains("insufficient_quota") => Remedy::Stop,
            408 | 409 | 425 | 429 | 500..=599 => Remedy::Again(*retry_after),
            _ => Remedy::Skip,
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
            let reply = wire::reply(&body)?;
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

/// How long the endpoint wants to be left alone: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
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
        assert_eq!(Error::Junk(wire::reply("{}").unwrap_err()).remedy(), Remedy::Again(None));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &'static str| {
            let value = reqwest::header::HeaderValue::from_static(text);
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now)
        };
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:47 GMT"), Some(Duration::from_secs(10)));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO));
        assert_eq!(read("soon"), None);
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
