//! Handing a policy version to the coordinator.

use std::path::Path;

use podium_grpo::PolicyVersion;
use podium_proto::v1::{self, publish_request::Part};
use podium_runtime::durable;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::{self, Coordinator};
use crate::manifest::Manifest;
use crate::receive;

/// Chunks that are read ahead of the network.
const READ_AHEAD: usize = 4;

/// Hands the version in `folder` to the coordinator; `true` if it had the same version already.
///
/// Can be repeated without harm. A version that the coordinator has with other content is refused.
pub async fn publish(
    coordinator: &Coordinator,
    manifest: &Manifest,
    folder: &Path,
) -> Result<bool, connection::Error> {
    let answer = coordinator.call("publish a policy version", || {
        let mut client = coordinator.policy();
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let (manifest, folder) = (manifest.clone(), folder.to_owned());
        let reading = tokio::task::spawn_blocking(move || send_all(&manifest, &folder, &sender));
        async move {
            let answer = client.publish(ReceiverStream::new(receiver)).await;
            match reading.await {
                Ok(Err(error)) => Err(tonic::Status::data_loss(error.to_string())),
                _ => answer,
            }
        }
    });
    Ok(answer.await?.repeated_version)
}

/// Whether the coordinator has a version.
pub async fn is_there(coordinator: &Coordinator, version: PolicyVersion) -> Result<bool, connection::Error> {
    let request = v1::GetManifestRequest { policy_version: Some(version.0) };
    let answer = coordinator.call("ask for a policy version", || {
        let mut client = coordinator.policy();
        async move { client.get_manifest(request).await }
    });
    match answer.await {
        Ok(_) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends manifest and chunks; ends early, without an error of its own, when the other side hangs up.
fn send_all(
    manifest: &Manifest,
    folder: &Path,
    sender: &mpsc::Sender<v1::PublishRequest>,
) -> Result<(), durable::Error> {
    let send = |part| sender.blocking_send(v1::PublishRequest { part: Some(part) });
    if send(Part::Manifest(manifest.into())).is_err() {
        return Ok(());
    }
    for file in &manifest.files {
        let path = folder.join(&file.name);
        for chunk in receive::chunks(&path, 0)? {
            let chunk = chunk.map_err(|source| durable::Error::Read { path: path.clone(), source })?;
            if send(Part::Chunk(v1::FileChunk { name: file.name.clone(), chunk: Some(chunk) })).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
