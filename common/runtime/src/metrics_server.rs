//! The HTTP endpoint of a process: `/metrics` for Prometheus, `/healthz` for whoever restarts processes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error(
        "cannot serve metrics on {address}: {source}; choose another address with --metrics-listen (port 0 lets the system choose)"
    )]
    Listen {
        /// Which address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A recorder is installed already, or a bucket list is empty.
    #[error("cannot record metrics: {0}")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}

/// Buckets of every histogram whose name ends in `_seconds`.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// A running endpoint. `/healthz` answers 503 until [`Endpoint::set_ready`] says otherwise.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Served {
    handle: PrometheusHandle,
    ready: Arc<AtomicBool>,
}

impl Endpoint {
    /// Installs the process's metrics recorder and serves it on `address` until `stop` is cancelled.
    pub async fn start(address: &str, stop: CancellationToken) -> Result<Self, Error> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        // A second recorder in one process is a mistake of the program, which the first one outlives.
        metrics::set_global_recorder(recorder).ok();
        let failed = |source| Error::Listen { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let ready = Arc::new(AtomicBool::new(false));
        let router = Router::new()
            .route("/metrics", get(|State(served): State<Served>| async move { served.handle.render() }))
            .route("/healthz", get(health))
            .with_state(Served { handle, ready: ready.clone() });
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::warn!("the metrics endpoint ended: {error}");
            }
        });
        Ok(Self { address: bound, ready })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says whether the process can do its work.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

async fn health(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
