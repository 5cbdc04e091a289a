//! Admits calls that carry the run's secret, and refuses all others before their body is read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use podium_transfer::secret::{self, Secret};
use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::transport::server::TcpConnectInfo;
use tower::{Layer, Service};

use crate::metrics;

/// The only method that requires no secret: supervisors check whether the process serves.
const OPEN: &str = "/grpc.health.v1.Health/Check";

/// Interval at which refused calls are logged.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The error of a call without a secret.
const MISSING: &str = "the call carries no secret of the run: expected the metadata authorization with the secret in \
                       run.secret of the coordinator's run folder; set PODIUM_SECRET_FILE or network.secret_file to a copy of \
                       that file";

/// The error of a call with another secret.
const WRONG: &str = "the call carries another secret than that of the run: copy run.secret from the coordinator's run folder \
                     again, and check PODIUM_SECRET_FILE and network.secret_file";

/// The layer around all services.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    secret: Arc<Secret>,
    refusals: Arc<Refusals>,
}

impl Admission {
    pub(super) fn new(secret: Secret) -> Self {
        Self { secret: Arc::new(secret), refusals: Arc::default() }
    }

    /// Checks the method and the metadata of a call.
    fn check(&self, path: &str, metadata: &HeaderMap) -> Result<(), Status> {
        if path == OPEN {
            return Ok(());
        }
        let mut given = metadata.get_all(secret::METADATA).iter();
        match (given.next(), given.next()) {
            (None, _) => Err(Status::unauthenticated(MISSING)),
            (Some(value), None) if self.secret.accepts(value.as_bytes()) => Ok(()),
            _ => Err(Status::unauthenticated(WRONG)),
        }
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;

    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted { inner, admission: self.clone() }
    }
}

/// Services behind the layer.
#[derive(Debug, Clone)]
pub(super) struct Admitted<S> {
    inner: S,
    admission: Admission,
}

impl<S, Body, Reply> Service<Request<Body>> for Admitted<S>
where
    S: Service<Request<Body>, Response = Response<Reply>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    Reply: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.admission.check(request.uri().path(), request.headers()) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(status) => {
                self.admission.refusals.record(&status, &request);
                let answer = status.into_http();
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

/// Counts refused calls, and logs them together.
#[derive(Debug, Default)]
struct Refusals(Mutex<Unlogged>);

#[derive(Debug, Default)]
struct Unlogged {
    calls: u64,
    logged: Option<Instant>,
}

impl Refusals {
    fn record<Body>(&self, status: &Status, request: &Request<Body>) {
        metrics::refused(status.code());
        let mut unlogged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.calls += 1;
        if unlogged.logged.is_some_and(|logged| logged.elapsed() < LOG_EVERY) {
            return;
        }
        let peer = request.extensions().get::<TcpConnectInfo>().and_then(TcpConnectInfo::remote_addr);
        let peer = peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
        tracing::warn!("refused {} calls, the last one from {peer}: {}", unlogged.calls, status.message());
        *unlogged = Unlogged { calls: 0, logged: Some(Instant::now()) };
    }
}
