//! The gRPC services. They check messages, call the actor, and convert its replies. The rules of the run are
//! elsewhere.

mod admission;
mod codes;
mod context;
mod incoming;
mod learner;
mod policy;
mod rollout;
mod status;
mod submissions;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use podium_proto::v1::learner_server::LearnerServer;
use podium_proto::v1::policy_server::PolicyServer;
use podium_proto::v1::rollout_server::RolloutServer;
use podium_proto::v1::status_server::StatusServer;
use podium_transfer::Secret;
use tokio::net::TcpListener;
use tonic::transport::Server;

use admission::Admission;

pub use context::Context;
pub use submissions::Submissions;
pub use uploads::Uploads;

/// Time limit for open calls after the server stops.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// Serves calls that carry `secret` until `context.stop` is cancelled and open calls have ended.
pub async fn serve(
    listener: TcpListener,
    context: Arc<Context>,
    secret: Secret,
) -> Result<(), tonic::transport::Error> {
    let bytes = context.network.max_message_bytes as usize;
    macro_rules! limited {
        ($server:ident, $service:expr) => {
            $server::new($service).max_decoding_message_size(bytes).max_encoding_message_size(bytes)
        };
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<RolloutServer<rollout::Service>>().await;
    health.set_serving::<LearnerServer<learner::Service>>().await;
    health.set_serving::<PolicyServer<policy::Service>>().await;
    health.set_serving::<StatusServer<status::Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(podium_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were made by the build");
    let stop = context.stop.clone();
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .layer(Admission::new(secret))
        .add_service(limited!(RolloutServer, rollout::Service(context.clone())))
        .add_service(limited!(LearnerServer, learner::Service(context.clone())))
        .add_service(limited!(PolicyServer, policy::Service(context.clone())))
        .add_service(limited!(StatusServer, status::Service(context.clone())))
        .add_service(health_service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming::connections(listener), stop.clone().cancelled_owned());
    tokio::select! {
        result = served => result,
        () = async { stop.cancelled().await; tokio::time::sleep(LAST_CALLS).await } => {
            tracing::warn!("calls are still open after {} s: shutting down without them", LAST_CALLS.as_secs());
            Ok(())
        }
    }
}
