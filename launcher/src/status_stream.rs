//! A run's status, streamed from its coordinator, across restarts of the coordinator.

use std::error::Error as StdError;
use std::io;
use std::time::{Duration, Instant};

use podium_proto::DEFAULT_MAX_MESSAGE_BYTES;
use podium_proto::v1::status_client::StatusClient;
use podium_proto::v1::{RunStatus, StatusRequest, WatchRequest};
use podium_service::plain_text;
use podium_transfer::Credentials;
use podium_transfer::credentials::AuthenticatedChannel;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::run_folder::RunFolder;

/// Minimum interval between two statuses.
const INTERVAL: Duration = Duration::from_millis(100);
/// Interval between retries.
const PAUSE: Duration = Duration::from_millis(250);
/// Timeout of a connection or a query.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the coordinator's address is {address:?}: expected host:port")]
    Address { address: String, source: tonic::transport::Error },
    #[error("no coordinator answers at {address}")]
    Unreachable { address: String, source: tonic::transport::Error },
    #[error("no answer from {address} within {} s", PATIENCE.as_secs())]
    Late { address: String },
    #[error("the process at {address} does not report its status: {message}")]
    Refused { address: String, code: Code, message: String },
}

impl Error {
    /// Whether this process has no usable secret, or another one than the process at the address.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Refused { code: Code::Unauthenticated, .. })
    }

    /// Whether no process listens at the address, as opposed to one that does not answer.
    pub(crate) fn is_nobody(&self) -> bool {
        let Self::Unreachable { source, .. } = self else { return false };
        let first: &(dyn StdError + 'static) = source;
        std::iter::successors(Some(first), |error| (*error).source()).any(|cause| {
            cause
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        })
    }
}

/// Queries the status once.
pub(crate) async fn get(address: &str, credentials: &Credentials) -> Result<RunStatus, Error> {
    let late = || Error::Late { address: address.to_owned() };
    let unreachable = |source| Error::Unreachable { address: address.to_owned(), source };
    let refused = |status: tonic::Status| Error::Refused {
        address: address.to_owned(),
        code: status.code(),
        message: plain_text::escaped(status.message()).into_owned(),
    };
    let endpoint = endpoint(address)?;
    let ask = async {
        let channel = endpoint.connect().await.map_err(unreachable)?;
        client(credentials, channel).get(StatusRequest {}).await.map_err(refused)
    };
    Ok(shown(timeout(PATIENCE, ask).await.map_err(|_| late())??.into_inner()))
}

/// An item of the stream.
#[derive(Debug)]
pub(crate) enum Update {
    Status(Box<RunStatus>),
    /// The coordinator has not answered for this time.
    Away(Duration),
}

/// A stream of statuses. It ends when dropped, not with the coordinator.
#[derive(Debug)]
pub(crate) struct StatusStream {
    updates: mpsc::Receiver<Update>,
    task: JoinHandle<()>,
}

impl StatusStream {
    /// Opens a stream from the coordinator at `address`, or later from the address that it announces in the folder
    /// `follow`.
    pub(crate) fn open(
        address: &str,
        credentials: Credentials,
        follow: Option<RunFolder>,
    ) -> Result<Self, Error> {
        let channel = endpoint(address)?.connect_lazy();
        let (sender, updates) = mpsc::channel(8);
        let source = Source { address: address.to_owned(), channel, credentials, follow };
        Ok(Self { updates, task: tokio::spawn(source.forward(sender)) })
    }

    pub(crate) async fn next(&mut self) -> Update {
        match self.updates.recv().await {
            Some(update) => update,
            None => std::future::pending().await,
        }
    }
}

impl Drop for StatusStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The source of statuses.
struct Source {
    address: String,
    channel: Channel,
    credentials: Credentials,
    follow: Option<RunFolder>,
}

impl Source {
    async fn forward(mut self, updates: mpsc::Sender<Update>) {
        let mut last_heard = Instant::now();
        loop {
            let request = WatchRequest { interval_ms: INTERVAL.as_millis() as u64 };
            // An error means that the coordinator is unreachable now; the caller decides whether to wait.
            let mut client = client(&self.credentials, self.channel.clone());
            if let Ok(Ok(answer)) = timeout(PATIENCE, client.watch(request)).await {
                let mut stream = answer.into_inner();
                while let Ok(Some(status)) = stream.message().await {
                    last_heard = Instant::now();
                    if updates.send(Update::Status(Box::new(shown(status)))).await.is_err() {
                        return;
                    }
                }
            }
            if updates.send(Update::Away(last_heard.elapsed())).await.is_err() {
                return;
            }
            tokio::time::sleep(PAUSE).await;
            self.look();
        }
    }

    /// Follows a coordinator that restarted at another address.
    fn look(&mut self) {
        let announced = self.follow.as_ref().and_then(|folder| folder.announcement().ok().flatten());
        let Some(address) = announced.map(|announced| announced.reachable_here()) else { return };
        if address != self.address
            && let Ok(endpoint) = endpoint(&address)
        {
            (self.address, self.channel) = (address, endpoint.connect_lazy());
        }
    }
}

/// Returns a status whose texts can be shown in a terminal.
fn shown(mut status: RunStatus) -> RunStatus {
    let texts = [&mut status.run_name, &mut status.best_by, &mut status.ending, &mut status.evaluated_part];
    let of_workers = status
        .workers
        .iter_mut()
        .flat_map(|worker| [&mut worker.worker_id, &mut worker.device, &mut worker.host]);
    let of_lease = status
        .oldest_lease
        .iter_mut()
        .flat_map(|lease| [&mut lease.worker_id, &mut lease.host, &mut lease.work]);
    let of_rewards = status.rewards.iter_mut().map(|reward| &mut reward.name);
    let texts = texts.into_iter().chain(&mut status.warnings).chain(of_workers).chain(of_lease);
    for text in texts.chain(of_rewards) {
        *text = plain_text::escaped(text).into_owned();
    }
    status
}

fn client(credentials: &Credentials, channel: Channel) -> StatusClient<AuthenticatedChannel> {
    StatusClient::new(credentials.authenticate(channel)).max_decoding_message_size(DEFAULT_MAX_MESSAGE_BYTES)
}

fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|source| Error::Address { address: address.to_owned(), source })?;
    // A stream of a hanging coordinator would otherwise be silent, like one without news.
    Ok(endpoint
        .connect_timeout(PATIENCE)
        .http2_keep_alive_interval(PATIENCE)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use podium_proto::v1::status_server::{Status, StatusServer};
    use podium_proto::v1::{DrainRequest, DrainResponse};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response};

    use super::*;

    /// A coordinator that reports one status and then ends the stream; its run's name has this many letters.
    struct Brief(usize);

    #[tonic::async_trait]
    impl Status for Brief {
        type WatchStream = tokio_stream::Once<Result<RunStatus, tonic::Status>>;

        async fn get(&self, _: Request<StatusRequest>) -> Result<Response<RunStatus>, tonic::Status> {
            Ok(Response::new(RunStatus { step: 3, run_name: "x".repeat(self.0), ..RunStatus::default() }))
        }

        async fn watch(
            &self,
            _: Request<WatchRequest>,
        ) -> Result<Response<Self::WatchStream>, tonic::Status> {
            Ok(Response::new(tokio_stream::once(Ok(RunStatus { step: 4, ..RunStatus::default() }))))
        }

        async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, tonic::Status> {
            Ok(Response::new(DrainResponse {}))
        }
    }

    async fn brief(letters: usize) -> (String, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(StatusServer::new(Brief(letters)));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        (address, tokio::spawn(async { serving.await.unwrap() }))
    }

    #[test]
    fn a_shown_status_cannot_control_a_terminal() {
        let hostile = || "rack7\n\u{1b}[2J".to_owned();
        let worker = podium_proto::v1::WorkerStatus { host: hostile(), ..Default::default() };
        let lease = podium_proto::v1::LeaseStatus { host: hostile(), ..Default::default() };
        let status = RunStatus {
            ending: hostile(),
            warnings: vec![hostile()],
            workers: vec![worker],
            oldest_lease: Some(lease),
            ..RunStatus::default()
        };
        let status = shown(status);
        let lease = status.oldest_lease.unwrap();
        for text in [&status.ending, &status.warnings[0], &status.workers[0].host, &lease.host] {
            assert_eq!(text, "rack7\\n\\u{1b}[2J");
        }
    }

    #[tokio::test]
    async fn an_ended_stream_is_reopened() {
        let (address, _server) = brief(0).await;
        assert_eq!(get(&address, &Credentials::default()).await.unwrap().step, 3);
        let mut stream = StatusStream::open(&address, Credentials::default(), None).unwrap();
        for _ in 0..2 {
            assert!(matches!(stream.next().await, Update::Status(status) if status.step == 4));
            assert!(matches!(stream.next().await, Update::Away(_)));
        }
    }

    #[tokio::test]
    async fn a_missing_coordinator_is_reported() {
        let (address, server) = brief(0).await;
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        let error = get(&address, &Credentials::default()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("no coordinator answers at {address}")), "{error}");
        assert!(error.is_nobody());
        assert!(matches!(get("no address", &Credentials::default()).await, Err(Error::Address { .. })));
    }

    #[tokio::test]
    async fn an_oversized_or_missing_answer_still_means_a_coordinator() {
        let (address, _server) = brief(DEFAULT_MAX_MESSAGE_BYTES).await;
        let error = get(&address, &Credentials::default()).await.unwrap_err();
        assert!(!error.is_nobody() && error.to_string().contains("message length too large"), "{error}");
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let error =
            get(&silent.local_addr().unwrap().to_string(), &Credentials::default()).await.unwrap_err();
        assert!(!error.is_nobody() && error.to_string().contains("within 5 s"), "{error}");
    }
}
