//! The HTTP endpoint of a process: `/metrics` for Prometheus, `/metrics/declared` with all declared metrics,
//! `/healthz` for process supervisors, and additional pages of the process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::serve::IncomingStream;
use axum::{Router, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::advertise::{self, split};
use crate::catalogue::{Catalogue, Listing};

/// The reasons why the endpoint cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is unavailable.
    #[error(
        "cannot serve metrics on {address} (choose another address with --metrics-listen; port 0 lets the system choose)"
    )]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A recorder is installed already, or a bucket list is empty.
    #[error("cannot record metrics")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
    /// `--metrics-advertise` is not an address.
    #[error("--metrics-advertise is invalid")]
    Advertise(#[from] advertise::Error),
}

/// Buckets of every histogram whose name ends in `_seconds`.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Renders a page. The argument is the address of this host to which the client is connected. The request's Host header
/// is ignored: any client can set it.
pub type Render = Arc<dyn Fn(IpAddr) -> String + Send + Sync>;

/// A JSON page, rendered for each request.
#[derive(Clone)]
pub struct Page {
    /// Its path, such as `/targets`.
    pub path: &'static str,
    /// Renders it.
    pub render: Render,
}

/// A running endpoint. `/healthz` answers 503 until [`Endpoint::set_ready`] sets it ready.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Served {
    handle: PrometheusHandle,
    /// Measures this process's use of its host.
    usage: Collector,
    ready: Arc<AtomicBool>,
}

impl Endpoint {
    /// Installs the process's metrics recorder and serves it on `address`, with `pages`, until `stop` is cancelled.
    pub async fn start(address: &str, pages: Vec<Page>, stop: CancellationToken) -> Result<Self, Error> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .build_recorder();
        let handle = recorder.handle();
        let catalogue = Catalogue::default();
        // A second recorder in one process is a bug; the first one stays active.
        metrics::set_global_recorder(Listing { inner: recorder, catalogue: catalogue.clone() }).ok();
        let usage = Collector::new("podium_");
        usage.describe();
        let failed = |source| Error::Listen { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let ready = Arc::new(AtomicBool::new(false));
        let mut router = Router::new().route("/metrics", get(scrape)).route("/healthz", get(health));
        let declared = Page { path: "/metrics/declared", render: Arc::new(move |_| catalogue.render()) };
        let pages = pages.into_iter().chain([declared]);
        for Page { path, render } in pages {
            let answer = move |ConnectInfo(Reached(address)): ConnectInfo<Reached>| async move {
                ([(CONTENT_TYPE, "application/json")], render(address))
            };
            router = router.route(path, get(answer));
        }
        let router = router.with_state(Served { handle, usage, ready: ready.clone() });
        tokio::spawn(async move {
            let service = router.into_make_service_with_connect_info::<Reached>();
            let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::warn!("the metrics endpoint ended: {error}");
            }
        });
        Ok(Self { address: bound, ready })
    }

    /// Returns the bound address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the advertised address: `advertise` (host, or host:port) if given, else the bound address. An
    /// unspecified host (`0.0.0.0`, `[::]`) in it represents the host under which the coordinator sees this
    /// process.
    pub fn announced(&self, advertise: Option<&str>) -> Result<String, Error> {
        match advertise {
            Some(advertise) => Ok(advertise::named(self.address, advertise)?),
            None => Ok(self.address.to_string()),
        }
    }

    /// Sets whether the process is ready.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

async fn scrape(State(served): State<Served>) -> String {
    served.usage.collect();
    served.handle.render()
}

async fn health(State(served): State<Served>) -> (StatusCode, &'static str) {
    if served.ready.load(Ordering::Relaxed) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

/// The address of this host to which a client is connected.
#[derive(Debug, Clone, Copy)]
struct Reached(IpAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Reached {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        // Unknown only for a connection that has ended.
        let address = stream.io().local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip());
        Self(address.to_canonical())
    }
}

/// Returns the address at which to scrape an endpoint whose process announced `announced` and is connected from `peer`:
/// always an address of that connection, with the announced port. Otherwise a process could direct the scraper anywhere.
///
/// A name is replaced by the peer's address. A peer on this host has an unspecified address, because this host has other
/// addresses for other hosts. Returns `None` if nothing was announced, or another address than that of the peer.
pub fn reachable(announced: &str, peer: Option<IpAddr>) -> Option<String> {
    let (host, port) = split(announced).filter(|(host, _)| !host.is_empty())?;
    let port = port.parse().ok().filter(|&port| port > 0)?;
    let peer = peer?.to_canonical();
    let in_brackets = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let address = in_brackets.unwrap_or(host).parse::<IpAddr>().ok().map(|address| address.to_canonical());
    let reached = match address.filter(|address| !address.is_unspecified()) {
        Some(address) if address == peer => peer,
        Some(_) => return None,
        None if peer.is_loopback() => Ipv4Addr::UNSPECIFIED.into(),
        None => peer,
    };
    Some(SocketAddr::new(reached, port).to_string())
}

/// Replaces an address's unspecified host, if any, by `host`.
pub fn at_host(address: &str, host: IpAddr) -> String {
    match address.parse::<SocketAddr>() {
        Ok(socket) if socket.ip().is_unspecified() => SocketAddr::new(host, socket.port()).to_string(),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_scraped_where_it_is_seen() {
        let at = |announced, peer: &str| reachable(announced, peer.parse().ok());
        assert_eq!(at("0.0.0.0:9", "10.0.0.2").as_deref(), Some("10.0.0.2:9"));
        assert_eq!(at("[::]:9", "::ffff:10.0.0.2").as_deref(), Some("10.0.0.2:9"));
        assert_eq!(at("[::]:9", "fd00::2").as_deref(), Some("[fd00::2]:9"));
        assert_eq!(at("10.0.0.2:9", "::ffff:10.0.0.2").as_deref(), Some("10.0.0.2:9"));
        assert_eq!(at("gpu-7:9", "10.0.0.2").as_deref(), Some("10.0.0.2:9"), "a name is not believed");
        assert_eq!(at("gpu-7:9", "127.0.0.1").as_deref(), Some("0.0.0.0:9"));
        for other in ["10.1.0.2:9", "169.254.169.254:80", "[fd00::1]:9", "[::ffff:10.1.0.2]:9"] {
            assert_eq!(at(other, "10.0.0.2"), None, "{other} is not the address of the connection");
            assert_eq!(at(other, "127.0.0.1"), None, "{other} is not the address of the connection");
        }
        assert_eq!(at("127.0.0.1:9", "10.0.0.2"), None, "no other host can reach it");
        assert_eq!(at("127.0.0.1:9", "127.0.0.1").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(at("0.0.0.0:9", "127.0.0.1").as_deref(), Some("0.0.0.0:9"));
        assert_eq!(
            (at("", "10.0.0.2"), at(":9", "10.0.0.2"), at("nonsense", "10.0.0.2")),
            (None, None, None)
        );
        assert_eq!((at("gpu-7:x", "10.0.0.2"), at("0.0.0.0:0", "10.0.0.2")), (None, None));
        assert_eq!(at_host("0.0.0.0:9", "10.0.0.7".parse().unwrap()), "10.0.0.7:9");
        assert_eq!(at_host("0.0.0.0:9", "fd00::7".parse().unwrap()), "[fd00::7]:9");
        assert_eq!(at_host("10.0.0.2:9", "10.0.0.7".parse().unwrap()), "10.0.0.2:9");
    }
}
