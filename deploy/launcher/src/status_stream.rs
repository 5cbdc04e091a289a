//! A run's status as its coordinator tells it, through restarts of the coordinator.

use std::time::{Duration, Instant};

use podium_proto::v1::status_client::StatusClient;
use podium_proto::v1::{RunStatus, StatusRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Shortest time between two statuses.
const INTERVAL: Duration = Duration::from_millis(100);
/// Pause before the coordinator is tried again.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a connection or a question may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{address:?} is no address of a coordinator: {source}")]
    Address { address: String, source: tonic::transport::Error },
    #[error("no coordinator answers at {address}: {source}")]
    Unreachable { address: String, source: tonic::transport::Error },
    #[error("the coordinator at {address} does not tell its status: {source}")]
    Refused { address: String, source: Box<tonic::Status> },
}

/// Asks once.
pub(crate) async fn get(address: &str) -> Result<RunStatus, Error> {
    let unreachable = |source| Error::Unreachable { address: address.to_owned(), source };
    let channel = endpoint(address)?.timeout(PATIENCE).connect().await.map_err(unreachable)?;
    let answer = StatusClient::new(channel).get(StatusRequest {}).await;
    let refused = |source| Error::Refused { address: address.to_owned(), source: Box::new(source) };
    Ok(answer.map_err(refused)?.into_inner())
}

/// What a stream brings.
#[derive(Debug)]
pub(crate) enum Update {
    Status(Box<RunStatus>),
    /// The coordinator has been out of reach for so long.
    Away(Duration),
}

/// Statuses as they come. Ends when it is dropped, not when the coordinator does.
#[derive(Debug)]
pub(crate) struct StatusStream {
    updates: mpsc::Receiver<Update>,
    task: JoinHandle<()>,
}

impl StatusStream {
    pub(crate) fn open(address: &str) -> Result<Self, Error> {
        let channel = endpoint(address)?.connect_lazy();
        let (sender, updates) = mpsc::channel(8);
        Ok(Self { updates, task: tokio::spawn(forward(channel, sender)) })
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

async fn forward(channel: Channel, updates: mpsc::Sender<Update>) {
    let mut client = StatusClient::new(channel);
    let mut last_heard = Instant::now();
    loop {
        let request = WatchRequest { interval_ms: INTERVAL.as_millis() as u64 };
        // An error means that the coordinator is away for the moment; whoever runs it knows whether it comes back.
        if let Ok(answer) = client.watch(request).await {
            let mut stream = answer.into_inner();
            while let Ok(Some(status)) = stream.message().await {
                if updates.send(Update::Status(Box::new(status))).await.is_err() {
                    return;
                }
            }
            last_heard = Instant::now();
        }
        if updates.send(Update::Away(last_heard.elapsed())).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|source| Error::Address { address: address.to_owned(), source })?;
    Ok(endpoint.connect_timeout(PATIENCE))
}

#[cfg(test)]
mod tests {
    use podium_proto::v1::status_server::{Status, StatusServer};
    use podium_proto::v1::{DrainRequest, DrainResponse};
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response};

    use super::*;

    /// A coordinator that tells one status and then ends the stream.
    struct Brief;

    #[tonic::async_trait]
    impl Status for Brief {
        type WatchStream = tokio_stream::Once<Result<RunStatus, tonic::Status>>;

        async fn get(&self, _: Request<StatusRequest>) -> Result<Response<RunStatus>, tonic::Status> {
            Ok(Response::new(RunStatus { step: 3, ..RunStatus::default() }))
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

    async fn brief() -> (String, JoinHandle<()>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tonic::transport::Server::builder().add_service(StatusServer::new(Brief));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        (address, tokio::spawn(async { serving.await.unwrap() }))
    }

    #[tokio::test]
    async fn a_stream_that_ends_is_opened_again() {
        let (address, _server) = brief().await;
        assert_eq!(get(&address).await.unwrap().step, 3);
        let mut stream = StatusStream::open(&address).unwrap();
        for _ in 0..2 {
            assert!(matches!(stream.next().await, Update::Status(status) if status.step == 4));
            assert!(matches!(stream.next().await, Update::Away(_)));
        }
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_is_named() {
        let (address, server) = brief().await;
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        assert!(
            get(&address)
                .await
                .unwrap_err()
                .to_string()
                .contains(&format!("no coordinator answers at {address}"))
        );
        assert!(matches!(get("no address").await, Err(Error::Address { .. })));
    }
}
