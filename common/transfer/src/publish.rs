//! Publishes a policy version: rank 0 offers it, and sends its files if the coordinator requests them.

use std::path::Path;

use podium_files::durable;
use podium_proto::v1::{self, publish_request::Part};
use podium_service::logs::describe;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::connection::{self, Coordinator};
use crate::manifest::Manifest;
use crate::receive;

/// Number of chunks that are prefetched from the disk.
const READ_AHEAD: usize = 4;

/// Publishes the version in `folder` as the rank 0 whose process is `learner_id`. Returns `true` if no files were
/// sent, because the coordinator has the version or does not need it any more.
///
/// Can be repeated safely. Refused if a committed version of the same number has another content, and with
/// `NOT_FOUND` if `learner_id` is not rank 0 of the current rank group.
pub async fn publish(
    coordinator: &Coordinator,
    learner_id: &str,
    manifest: &Manifest,
    folder: &Path,
) -> Result<bool, connection::Error> {
    let offer = v1::OfferRequest { learner_id: learner_id.to_owned(), manifest: Some(manifest.into()) };
    let answer = coordinator.call("offer a policy version", || {
        let (mut client, offer) = (coordinator.policy(), offer.clone());
        async move { client.offer(offer).await }
    });
    if !answer.await?.wanted {
        return Ok(true);
    }
    let answer = coordinator.call("publish a policy version", || {
        let mut client = coordinator.policy();
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let (learner_id, manifest, folder) = (learner_id.to_owned(), manifest.clone(), folder.to_owned());
        let reading = tokio::task::spawn_blocking(move || send_all(learner_id, &manifest, &folder, &sender));
        async move {
            let answer = client.publish(ReceiverStream::new(receiver)).await;
            match reading.await {
                Ok(Err(error)) => Err(tonic::Status::data_loss(describe(&error))),
                _ => answer,
            }
        }
    });
    Ok(answer.await?.repeated_version)
}

/// Sends manifest and chunks; ends early, without an error of its own, when the receiver disconnects.
fn send_all(
    learner_id: String,
    manifest: &Manifest,
    folder: &Path,
    sender: &mpsc::Sender<v1::PublishRequest>,
) -> Result<(), durable::Error> {
    let send =
        |learner_id, part| sender.blocking_send(v1::PublishRequest { learner_id, part: Some(part) }).is_ok();
    if !send(learner_id, Part::Manifest(manifest.into())) {
        return Ok(());
    }
    for file in &manifest.files {
        let path = folder.join(&file.name);
        for chunk in receive::chunks(&path, 0)? {
            let chunk = chunk.map_err(|source| durable::Error::Read { path: path.clone(), source })?;
            let chunk = v1::FileChunk { name: file.name.clone(), chunk: Some(chunk) };
            if !send(String::new(), Part::Chunk(chunk)) {
                return Ok(());
            }
        }
    }
    Ok(())
}
