//! One external term: its program, and the retries of requests.

use std::path::Path;
use std::time::{Duration, Instant};

use podium_endpoint::{Endpoint, Secret, wait_ms};
use podium_grpo::GroupId;
use podium_recsys::reward::{External, Program, Request, read_answer};
use podium_service::logs::describe;
use tokio::sync::Semaphore;

use super::error::{Failure, SetupError};
use super::health::Health;
use super::program::Programs;
use crate::metrics::rewards;

/// Longest wait that a server's Retry-After may cause.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A term with its program.
#[derive(Debug)]
pub(super) struct Term {
    options: External,
    transport: Transport,
    /// A permit for each attempt that may be in progress at once.
    permits: Semaphore,
    health: Health,
}

#[derive(Debug)]
enum Transport {
    Server(Endpoint),
    Programs(Programs),
}

impl Term {
    /// Opens a term; `base`: working directory of its program if it has none of its own.
    pub(super) fn open(options: &External, base: &Path) -> Result<Self, SetupError> {
        let term = || options.name.clone();
        let timeout = Duration::from_millis(options.timeout_ms);
        let transport = match options.program() {
            Program::Url(url) => {
                let secret = match (&options.token_file, &options.token_variable) {
                    (Some(file), _) => Secret::read(file),
                    (None, Some(variable)) => Secret::required_in(variable),
                    (None, None) => Ok(Secret::default()),
                };
                let secret = secret.map_err(|source| SetupError::Token { term: term(), source })?;
                let agent = concat!("podium-coordinator/", env!("CARGO_PKG_VERSION"));
                let endpoint = Endpoint::new(url, "", secret, timeout, agent);
                Transport::Server(endpoint.map_err(|source| SetupError::Endpoint { term: term(), source })?)
            }
            Program::Command(command) => {
                let directory = options.directory.as_deref().unwrap_or(base);
                let programs = Programs::start(&options.name, command, directory, timeout);
                Transport::Programs(programs.map_err(|source| SetupError::Program { term: term(), source })?)
            }
        };
        let permits = Semaphore::new(options.concurrency as usize);
        Ok(Self { options: options.clone(), transport, permits, health: Health::default() })
    }

    pub(super) const fn options(&self) -> &External {
        &self.options
    }

    pub(super) const fn health(&self) -> &Health {
        &self.health
    }

    /// Returns the values of a request's completions. Repeats the request until it succeeds.
    pub(super) async fn values(&self, group: GroupId, request: &Request) -> Vec<f64> {
        let name = &self.options.name;
        let body = request.to_json();
        let jitter = u64::from_str_radix(request.id.get(..16).unwrap_or_default(), 16).unwrap_or_default();
        let open = self.health.begin(name, &request.id);
        let mut failures = 0;
        loop {
            let attempt = {
                // The semaphore is never closed.
                let _permit = self.permits.acquire().await;
                let began = Instant::now();
                let attempt = self.attempt(&body, request).await;
                let outcome = attempt.as_ref().map_or_else(Failure::kind, |_| "answered");
                rewards::attempt(name, outcome, began.elapsed());
                attempt
            };
            let failure = match attempt {
                Ok(values) => return values,
                Err(failure) => failure,
            };
            let what = format!("{}: {}", self.described(group, request), describe(&failure));
            if failures < self.options.retries {
                tracing::warn!("reward term `{name}`: {what}; retrying");
                open.failed(None);
            } else {
                let retries = self.options.retries;
                open.failed(Some(format!(
                    "the run waits for the reward term `{name}` after {retries} retries: {what}; the request is repeated \
                     until it succeeds"
                )));
            }
            let wait = Duration::from_millis(wait_ms(self.options.backoff_ms, failures, jitter));
            let requested = failure.retry_after().unwrap_or_default().min(LONGEST_WAIT);
            tokio::time::sleep(wait.max(requested)).await;
            failures = failures.saturating_add(1);
        }
    }

    async fn attempt(&self, body: &str, request: &Request) -> Result<Vec<f64>, Failure> {
        match &self.transport {
            Transport::Server(endpoint) => {
                let answer = endpoint.post(body).await?;
                // The server may quote the token.
                read_answer(&answer, request, |text| endpoint.hide(text))
                    .map_err(|error| Failure::Answer(error.to_string()))
            }
            Transport::Programs(programs) => {
                let read = |answer: &[u8]| {
                    read_answer(answer, request, str::to_owned)
                        .map_err(|error| Failure::Answer(error.to_string()))
                };
                programs.ask(body, read).await
            }
        }
    }

    /// Describes a request for messages.
    fn described(&self, group: GroupId, request: &Request) -> String {
        let indices: Vec<String> = request.completions.iter().map(|one| one.index.to_string()).collect();
        let program = self.options.shown_program();
        format!("request {} to {program} for {group}, completions {}", request.id, indices.join(", "))
    }
}
