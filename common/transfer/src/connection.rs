//! A connection to the coordinator that survives the coordinator's restarts.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use podium_proto::v1::{
    learner_client::LearnerClient, policy_client::PolicyClient, rollout_client::RolloutClient,
    status_client::StatusClient,
};
use podium_service::advertise;
use podium_service::logs::describe;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::credentials::{AuthenticatedChannel, Credentials};
use crate::location::CoordinatorLocation;
use crate::progress::Progress;

mod error;

pub use error::{Error, Kind};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Interval at which a wait for the coordinator's disk is logged again.
const NAME_AGAIN: Duration = Duration::from_secs(60);

/// Timeouts and limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum duration of one call, and of a pause in a transfer.
    pub request_timeout: Duration,
    /// Time to retry while the coordinator is unreachable.
    pub reconnect_for: Duration,
    /// Largest message, both ways.
    pub max_message_bytes: usize,
}

impl Limits {
    /// The limits of a run file.
    pub fn of(network: &podium_config::Network) -> Self {
        Self {
            request_timeout: Duration::from_millis(network.request_timeout_ms),
            reconnect_for: Duration::from_millis(network.reconnect_for_ms),
            max_message_bytes: network.max_message_bytes as usize,
        }
    }
}

/// A client of the coordinator. Cheap to clone; connects on first use and again after every failure.
#[derive(Debug, Clone)]
pub struct Coordinator {
    location: Arc<CoordinatorLocation>,
    /// Shared by all clones: if one discovers that the coordinator has moved, all use the new address.
    line: Arc<Mutex<Line>>,
    credentials: Credentials,
    limits: Limits,
    stop: CancellationToken,
}

/// A connection with its address.
#[derive(Debug, Clone)]
struct Line {
    /// host:port; empty until it is known.
    address: String,
    channel: Channel,
}

impl Line {
    fn to(address: &str) -> Result<Self, Error> {
        let broken = || Error::Address { address: address.to_owned() };
        let split = advertise::split(address);
        if !split.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
            return Err(broken());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| broken())?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_nodelay(true)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .connect_lazy();
        Ok(Self { address: address.to_owned(), channel })
    }

    /// A placeholder without an address; no call uses it.
    fn nowhere() -> Self {
        Self {
            address: String::new(),
            channel: Endpoint::from_static("http://unknown.invalid:1").connect_lazy(),
        }
    }
}

impl Coordinator {
    /// Creates a client for `address` (host:port). Its calls end when `stop` is cancelled.
    ///
    /// Connects lazily: the first call waits for a coordinator that has not started yet.
    pub fn new(address: &str, limits: Limits, stop: CancellationToken) -> Result<Self, Error> {
        Self::at(CoordinatorLocation::Named(address.to_owned()), limits, stop)
    }

    /// Creates a client for a coordinator that may announce itself later, and may move.
    pub fn at(location: CoordinatorLocation, limits: Limits, stop: CancellationToken) -> Result<Self, Error> {
        let line = match &location {
            CoordinatorLocation::Named(address) => Line::to(address)?,
            CoordinatorLocation::Announced(_) => Line::nowhere(),
        };
        let (location, line) = (Arc::new(location), Arc::new(Mutex::new(line)));
        Ok(Self { location, line, credentials: Credentials::default(), limits, stop })
    }

    /// Returns the same connection for calls that carry the run's secret. A coordinator refuses calls without it.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// host:port; empty until the coordinator announces itself.
    pub fn address(&self) -> String {
        self.line().address.clone()
    }

    /// The address in messages.
    fn known_address(&self) -> String {
        let address = self.address();
        if address.is_empty() { "an address still to be announced".to_owned() } else { address }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A panic cannot leave the value inconsistent: it is only read or replaced.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> AuthenticatedChannel {
        self.credentials.authenticate(self.line().channel.clone())
    }

    /// Makes later calls use a new connection, because the present one may be half-open.
    fn renew(&self) {
        let mut line = self.line();
        if let Ok(fresh) = Line::to(&line.address) {
            *line = fresh;
        }
    }

    /// Updates the address of an announced coordinator.
    async fn follow(&self) -> Result<(), Status> {
        if matches!(*self.location, CoordinatorLocation::Named(_)) {
            return Ok(());
        }
        let unavailable = |error: &(dyn std::error::Error + 'static)| Status::unavailable(describe(error));
        let address = self.location.look().await.map_err(|error| unavailable(&error))?;
        if self.address() != address {
            tracing::info!("the coordinator is at {address}");
            let line = Line::to(&address).map_err(|error| unavailable(&error))?;
            *self.line() = line;
        }
        Ok(())
    }

    /// Waits until this process shuts down.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// The connection's limits.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the same connection for calls that end with another token.
    #[must_use]
    pub fn until(&self, stop: CancellationToken) -> Self {
        Self { stop, ..self.clone() }
    }

    /// Client of the rollout service.
    pub fn rollout(&self) -> RolloutClient<AuthenticatedChannel> {
        let bytes = self.limits.max_message_bytes;
        RolloutClient::new(self.channel()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// Client of the learner service.
    pub fn learner(&self) -> LearnerClient<AuthenticatedChannel> {
        let bytes = self.limits.max_message_bytes;
        LearnerClient::new(self.channel()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// Client of the policy service.
    pub fn policy(&self) -> PolicyClient<AuthenticatedChannel> {
        let bytes = self.limits.max_message_bytes;
        PolicyClient::new(self.channel()).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
    }

    /// Client of the status service.
    pub fn status(&self) -> StatusClient<AuthenticatedChannel> {
        StatusClient::new(self.channel())
    }

    /// Repeats `attempt` until it succeeds, is refused permanently, or `reconnect_for` has passed without an answer.
    /// If the coordinator reports a full disk, it waits without a limit.
    ///
    /// `what` completes the sentence "could not …". One attempt takes at most `request_timeout`.
    pub async fn call<T, F>(&self, what: &'static str, attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.transfer(what, &Progress::default(), attempt).await
    }

    /// Like [`Self::call`], for an attempt of any duration: it fails if no byte moves for `request_timeout`, and is
    /// repeated until no byte has moved for `reconnect_for` in all since the last gain.
    pub async fn transfer<T, F>(
        &self,
        what: &'static str,
        progress: &Progress,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut retries = Retries::default();
        let mut lost = self.address().is_empty();
        loop {
            // A missing file may still be copied or created: the attempt reports it, and is repeated.
            self.credentials.check().map_err(|source| Error::Secret { what, source })?;
            let followed = async {
                if lost {
                    self.follow().await?;
                }
                attempt().await
            };
            let limit = self.limits.request_timeout;
            let status = tokio::select! {
                () = self.stop.cancelled() => return Err(Error::Stopped { what }),
                answer = followed => match answer {
                    Ok(response) => return Ok(response.into_inner()),
                    Err(status) => status,
                },
                () = progress.stalled(limit) => {
                    self.renew();
                    Status::deadline_exceeded(format!("no answer and no byte for {} s", limit.as_secs_f64()))
                }
            };
            lost = true;
            let (address, status) = (self.known_address(), Box::new(status));
            if status.code() == Code::Unauthenticated && self.credentials.renew() {
                continue;
            }
            if !may_be_retried(status.code()) && !is_of_the_connection(&status) {
                return Err(Error::Refused { address, what, status });
            }
            retries.failed(what, &address, &status, progress);
            if let Some(waited) = retries.exhausted(self.limits.reconnect_for, &status) {
                return Err(Error::Unreachable { address, what, waited, last: status });
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Error::Stopped { what }),
                () = tokio::time::sleep(retries.pause) => {}
            }
            retries.pause = (retries.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The failed attempts of a call.
struct Retries {
    /// Time without a moving byte since the last gain, up to `counted`.
    idle: Duration,
    counted: Instant,
    pause: Duration,
    /// Time at which a full disk was last logged.
    full_since: Option<Instant>,
}

impl Default for Retries {
    fn default() -> Self {
        Self { idle: Duration::ZERO, counted: Instant::now(), pause: FIRST_PAUSE, full_since: None }
    }
}

impl Retries {
    /// Counts a failed attempt, and logs the first one.
    fn failed(&mut self, what: &str, address: &str, status: &Status, progress: &Progress) {
        if progress.last_gain() > self.counted {
            (self.idle, self.pause) = (Duration::ZERO, FIRST_PAUSE);
        }
        self.idle += progress.last_move().max(self.counted).elapsed();
        self.counted = Instant::now();
        if has_no_room(status) {
            self.idle = Duration::ZERO;
            if self.full_since.is_none_or(|named| named.elapsed() >= NAME_AGAIN) {
                self.full_since = Some(Instant::now());
                tracing::warn!(
                    "cannot {what}: the coordinator at {address} has no free disk space ({}): waiting",
                    status.message()
                );
            }
        } else if self.pause == FIRST_PAUSE && self.full_since.is_none() {
            tracing::warn!("cannot {what} ({}): retrying", status.message());
        }
    }

    /// Returns the time without a moving byte if the retries end.
    fn exhausted(&self, limit: Duration, status: &Status) -> Option<Duration> {
        (!has_no_room(status) && self.idle + self.pause > limit).then_some(self.idle)
    }
}

/// Whether the connection failed rather than the coordinator: the coordinator's own errors have no source on this
/// side. A server that stops while a request is in transfer can end the connection that way.
fn is_of_the_connection(status: &Status) -> bool {
    status.code() == Code::Internal && std::error::Error::source(status).is_some()
}

/// Whether the coordinator itself reports a full disk. An oversized message has another code, and an exhausted
/// connection has a source on this side.
fn has_no_room(status: &Status) -> bool {
    status.code() == Code::ResourceExhausted && std::error::Error::source(status).is_none()
}

/// The status codes for which a retry may succeed. Every request of the protocol can be repeated safely.
pub const fn may_be_retried(code: Code) -> bool {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Cancelled
        | Code::Unknown => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests;
