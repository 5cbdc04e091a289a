//! HTTP endpoints that answer JSON with JSON: one attempt at one request, within a deadline.
//!
//! Callers classify failures and schedule retries. The key is sent only in the authorization header, and is hidden in
//! the text of errors. Redirects are not followed, because a redirect would send the key to another host.

mod backoff;
mod error;
mod secret;

use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Url, redirect};

pub use backoff::wait_ms;
pub use error::{Error, LONGEST_REPLY_BYTES, SetupError};
pub use reqwest::StatusCode;
pub use secret::{Secret, SecretError};

/// Retry-After in milliseconds, a header of some endpoints.
const RETRY_AFTER_MS: &str = "retry-after-ms";
/// Number of characters of a text that errors show.
const SHOWN_CHARACTERS: usize = 300;

/// A connection to one endpoint.
#[derive(Debug)]
pub struct Endpoint {
    client: Client,
    address: Url,
    headers: HeaderMap,
    secret: Secret,
    deadline: Duration,
}

impl Endpoint {
    /// Creates the endpoint at `address` with `path` appended. `agent`: the name of this program for the server. Every
    /// attempt has the timeout `deadline`.
    pub fn new(
        address: &str,
        path: &str,
        secret: Secret,
        deadline: Duration,
        agent: &str,
    ) -> Result<Self, SetupError> {
        let mut url = Url::parse(address)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                // A query may contain a key.
                let shown = address.split(['?', '#']).next().unwrap_or_default();
                SetupError::Address(secret.hide(shown))
            })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(SetupError::Credentials);
        }
        if !path.is_empty() {
            let path = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(value) = secret.header() {
            headers.insert(AUTHORIZATION, value.map_err(SetupError::Key)?);
        }
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .user_agent(agent)
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { client, address: url, headers, secret, deadline })
    }

    /// Sends `body` once and returns the body of the reply, which has a successful status.
    pub async fn post(&self, body: &str) -> Result<Vec<u8>, Error> {
        let answered = tokio::time::timeout(self.deadline, self.exchange(body)).await;
        answered.unwrap_or(Err(Error::Deadline(self.deadline)))
    }

    async fn exchange(&self, body: &str) -> Result<Vec<u8>, Error> {
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
        if status.is_success() {
            Ok(bytes)
        } else {
            Err(Error::Status { status, text: self.shown(&String::from_utf8_lossy(&bytes)), retry_after })
        }
    }

    /// Replaces the key in a text.
    pub fn hide(&self, text: &str) -> String {
        self.secret.hide(text)
    }

    /// Returns the beginning of a text for an error: see [`beginning`]. The key is hidden.
    pub fn shown(&self, text: &str) -> String {
        beginning(&self.hide(text))
    }
}

/// Returns the beginning of a text on one line, without control characters.
pub fn beginning(text: &str) -> String {
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
    fn retry_after_is_milliseconds_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let read = |text: &'static str| {
            let value = HeaderValue::from_static(text);
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
        let both = both.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        assert_eq!(retry_after(&HeaderMap::from_iter(both), now), Some(Duration::from_micros(250_500)));
    }

    #[test]
    fn addresses_with_passwords_are_rejected() {
        let new = |address: &str, path: &str| {
            Endpoint::new(address, path, Secret::default(), Duration::from_secs(1), "test")
        };
        assert!(matches!(new("https://me:secret@host/v1", ""), Err(SetupError::Credentials)));
        for address in ["", "api.openai.com", "file:///etc/passwd", "ftp://host"] {
            assert!(matches!(new(address, ""), Err(SetupError::Address(_))), "{address}");
        }
        let refused = new("localhost:8000?key=hidden", "").unwrap_err().to_string();
        assert!(refused.contains("localhost:8000\"") && !refused.contains("hidden"), "{refused}");
        let endpoint = new("http://localhost:8000/v1/?api-version=1", "/chat/completions").unwrap();
        assert_eq!(endpoint.address.path(), "/v1/chat/completions");
        assert_eq!(endpoint.address.query(), Some("api-version=1"));
        assert_eq!(new("http://localhost:8000/judge/", "").unwrap().address.path(), "/judge/");
    }
}
