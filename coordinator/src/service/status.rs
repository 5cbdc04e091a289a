//! The status service, for users and the launcher.

use std::sync::Arc;
use std::time::Duration;

use podium_proto::v1;
use podium_proto::v1::status_server;
use podium_service::plain_text;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::codes::OrRefuse;
use super::context::Context;

/// The shortest interval between two status updates.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
/// The longest interval between two status updates.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum size of a drain reason in bytes; the rest is cut off.
const MAX_REASON: usize = 200;

pub(super) struct Service(pub(super) Arc<Context>);

#[tonic::async_trait]
impl status_server::Status for Service {
    type WatchStream = ReceiverStream<Result<v1::RunStatus, Status>>;

    async fn get(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::RunStatus>, Status> {
        Ok(Response::new(self.0.handle.status().await.or_refuse()?))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let interval = Duration::from_millis(request.into_inner().interval_ms);
        let interval = interval.clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL);
        let (sender, receiver) = mpsc::channel(1);
        let context = self.0.clone();
        tokio::spawn(async move {
            let mut last = None;
            loop {
                let status = context.handle.status().await.or_refuse();
                let failed = status.is_err();
                if last.as_ref() != status.as_ref().ok().map(timeless).as_ref() {
                    last = status.as_ref().ok().map(timeless);
                    if sender.send(status).await.is_err() || failed {
                        return;
                    }
                } else if failed {
                    drop(sender.send(status).await);
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(interval) => {}
                    () = sender.closed() => return,
                    () = context.stop.cancelled() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn drain(&self, request: Request<v1::DrainRequest>) -> Result<Response<v1::DrainResponse>, Status> {
        let peer = request
            .remote_addr()
            .map_or_else(|| "an unknown address".to_owned(), |peer| peer.ip().to_string());
        let reason = plain_text::limited(&request.into_inner().reason, MAX_REASON);
        let reason = if reason.trim().is_empty() { "no reason given" } else { reason.trim() };
        let reason = format!("drained at the request of a client at {peer}: {reason}");
        self.0.handle.drain(reason).await.or_refuse()?;
        Ok(Response::new(v1::DrainResponse {}))
    }
}

/// Returns a status without the values that change with time alone.
fn timeless(status: &v1::RunStatus) -> v1::RunStatus {
    let mut status = status.clone();
    status.workers.iter_mut().for_each(|worker| worker.last_seen_ms = 0);
    status.ranks.iter_mut().for_each(|rank| rank.last_heard_ms = 0);
    status.oldest_lease.iter_mut().for_each(|lease| lease.age_ms = 0);
    status
}
