//! Every method except the health check requires the run's secret.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use podium_coordinator::run;
use podium_proto::{FILE_DESCRIPTOR_SET, v1};
use podium_transfer::{Coordinator, Limits, Secret, secret};
use prost_types::FileDescriptorSet;
use tokio_util::sync::CancellationToken;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;

use crate::fakes::call;
use crate::fixture::Fixture;

/// Longer than any reply of these tests takes.
const LONG: Duration = Duration::from_secs(20);

/// The paths of all methods of the protocol, and of the services of gRPC itself.
fn methods() -> Vec<String> {
    let descriptors: FileDescriptorSet = prost::Message::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = Vec::new();
    for file in &descriptors.file {
        for service in &file.service {
            let name = |method: &prost_types::MethodDescriptorProto| {
                format!("/{}.{}/{}", file.package(), service.name(), method.name())
            };
            paths.extend(service.method.iter().map(name));
        }
    }
    assert!(paths.len() >= 18 && paths.contains(&"/podium.v1.Policy/Publish".to_owned()), "{paths:?}");
    paths.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".into());
    paths.push("/grpc.health.v1.Health/Watch".into());
    paths.push("/podium.v1.Policy/NoSuchMethod".into());
    paths
}

async fn open(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// Calls a method with these values of the metadata. The stream of the request never ends, so that a reply shows that
/// the coordinator does not read it.
async fn reply(channel: &Channel, path: &str, secrets: &[MetadataValue<Ascii>]) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(tokio_stream::pending::<()>());
    for secret in secrets {
        request.metadata_mut().append(secret::METADATA, secret.clone());
    }
    let path: PathAndQuery = path.parse().unwrap();
    let answer = client.streaming(request, path, ProstCodec::<(), ()>::default());
    let answer = tokio::time::timeout(LONG, answer).await;
    let mut stream = answer.map_err(|_| Status::deadline_exceeded("the coordinator reads the request"))??;
    stream.get_mut().message().await.map(|_| ())
}

fn value(path: &std::path::Path) -> MetadataValue<Ascii> {
    format!("Bearer {}", fs::read_to_string(path).unwrap().trim_end()).parse().unwrap()
}

#[tokio::test]
async fn every_method_refuses_calls_without_the_secret_of_the_run() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let channel = open(running.address()).await;
    let own = value(&fixture.path(secret::FILE));
    let other = tempfile::tempdir().unwrap();
    Secret::of_run(other.path(), &podium_config::Network::default()).unwrap();
    let other = value(&other.path().join(secret::FILE));
    let plain: MetadataValue<Ascii> = own.to_str().unwrap().replace("Bearer ", "").parse().unwrap();
    let cases: [(&[MetadataValue<Ascii>], &str); 5] = [
        (&[], "carries no secret"),
        (std::slice::from_ref(&other), "carries another secret"),
        (&[plain], "carries another secret"),
        (&["Bearer".parse().unwrap()], "carries another secret"),
        (&[own.clone(), other.clone()], "carries another secret"),
    ];
    for path in methods() {
        for (secrets, expected) in &cases {
            let status = reply(&channel, &path, secrets).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{path}: {status}");
            assert!(status.message().contains(expected), "{path}: {status}");
            for remedy in ["run.secret", "PODIUM_SECRET_FILE", "network.secret_file"] {
                assert!(status.message().contains(remedy), "{path}: {status}");
            }
            let told = format!("{} {:?}", status.message(), MetadataMap::clone(status.metadata()));
            let out = fixture.path("out");
            for revealed in [fixture.file.hash().as_str(), "tiny", out.to_str().unwrap()] {
                assert!(!told.contains(revealed), "{path} reveals {revealed}: {told}");
            }
        }
    }
    let refused = reply(&channel, "/podium.v1.Status/NoSuchMethod", &[own]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "the secret admits a call: {refused}");
    let mut health = HealthClient::new(channel);
    health.check(HealthCheckRequest { service: "podium.v1.Rollout".into() }).await.unwrap();
    stop.cancel();
    running.finished().await.unwrap();
}

#[tokio::test]
async fn a_coordinator_creates_the_secret_of_its_run_and_accepts_a_replaced_one_after_a_restart() {
    let fixture = Fixture::new(&[]);
    let start = || {
        let (mut options, stop) = (fixture.options("out"), CancellationToken::new());
        options.file.network.secret_file = None;
        async move { (run::start(options, stop.clone()).await.unwrap(), stop) }
    };
    let (running, stop) = start().await;
    let path = fixture.path("out").join(secret::FILE);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let connect = |address: SocketAddr| {
        let limits = Limits::of(&fixture.file.network);
        let coordinator = Coordinator::new(&address.to_string(), limits, CancellationToken::new()).unwrap();
        coordinator.with_credentials(podium_transfer::Credentials::from_file(&path))
    };
    let coordinator = connect(running.address());
    call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
    let error =
        call!(fixture.connect(running.address()), status.get, v1::StatusRequest {}).await.unwrap_err();
    assert!(error.to_string().contains("carries another secret"), "{error}");
    stop.cancel();
    running.finished().await.unwrap();

    let before = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let (running, stop) = start().await;
    assert_ne!(fs::read(&path).unwrap(), before);
    // The client reads the file again; the port is that of before.
    call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
    stop.cancel();
    running.finished().await.unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let mut options = fixture.options("out");
    options.file.network.secret_file = None;
    let error = run::start(options, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("run.secret has mode 0644: expected 0600"), "{error}");
}
