//! Uploads of versions that break, stall or are abandoned.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;
use podium_proto::v1::publish_request::Part;
use podium_proto::{MAX_CHUNK_BYTES, v1};
use podium_transfer::{Manifest, fetch, receive};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::fakes::{Learner, call};
use crate::fixture::Fixture;

const CHUNKS: usize = 8;
const SENT: usize = 3;
const LARGE: &str = "network.max_message_bytes=2000000";

fn weights(letter: &str) -> String {
    letter.repeat(CHUNKS * MAX_CHUNK_BYTES)
}

/// An upload of which [`SENT`] chunks of the weights were sent, and whose stream stays open.
struct HalfOpen {
    answer: JoinHandle<Result<(), Status>>,
    _sender: mpsc::Sender<v1::PublishRequest>,
}

impl HalfOpen {
    async fn start(learner: &Learner, manifest: &Manifest, folder: &Path) -> Self {
        let (sender, receiver) = mpsc::channel(64);
        let mut parts = vec![Part::Manifest(manifest.into())];
        for file in &manifest.files {
            let chunks = receive::chunks(&folder.join(&file.name), 0, None).unwrap().map(Result::unwrap);
            let chunk = |chunk| Part::Chunk(v1::FileChunk { name: file.name.clone(), chunk: Some(chunk) });
            parts.extend(chunks.take(SENT).map(chunk));
            if file.name == "model.safetensors" {
                break;
            }
        }
        for part in parts {
            let learner_id = learner.id.to_string();
            sender.send(v1::PublishRequest { learner_id, part: Some(part), base: None }).await.unwrap();
        }
        let mut client = learner.coordinator.policy();
        let answer =
            tokio::spawn(async move { client.publish(ReceiverStream::new(receiver)).await.map(drop) });
        Self { answer, _sender: sender }
    }

    /// Waits until all that was sent is on the coordinator's disk.
    async fn arrived(&self, fixture: &Fixture, manifest: &Manifest) {
        let target = fixture.path("out").join(format!("policy/{}", manifest.version.0));
        let (path, start) =
            (receive::partial_folder(manifest, &target).join("model.safetensors"), Instant::now());
        while fs::metadata(&path).map_or(0, |file| file.len()) < (SENT * MAX_CHUNK_BYTES) as u64 {
            assert!(start.elapsed() < Duration::from_secs(20), "the chunks do not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn published(fixture: &Fixture) -> PathBuf {
    fixture.path("out").join("policy/1/model.safetensors")
}

/// Offers a version, and returns the bytes of its weights that the coordinator reports as received.
async fn received(learner: &Learner, manifest: &Manifest) -> u64 {
    let offer =
        v1::OfferRequest { learner_id: learner.id.to_string(), manifest: Some(manifest.into()), base: None };
    let answer = call!(learner.coordinator, policy.offer, offer).await.unwrap();
    assert!(answer.wanted);
    answer.received.iter().find(|file| file.name == "model.safetensors").map_or(0, |file| file.bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_upload_of_a_dead_process_does_not_block_the_next_rank_0() {
    let fixture = Fixture::new(&[LARGE]);
    let (running, _stop) = fixture.start("out").await;
    let learner = || Learner::new(fixture.file.clone(), fixture.connect(running.address()));
    let dead = learner();
    dead.join(0).await;
    let (manifest, folder) = dead.write(1, &weights("a"));
    let upload = HalfOpen::start(&dead, &manifest, &folder).await;
    upload.arrived(&fixture, &manifest).await;

    let next = learner();
    next.join(0).await;
    let other = weights("b");
    let publishing = tokio::time::timeout(Duration::from_secs(10), next.upload(1, &other));
    assert!(!publishing.await.expect("it does not wait for the dead process").unwrap());
    assert!(fs::read(published(&fixture)).unwrap().iter().all(|byte| *byte == b'b'), "contents are mixed");
    assert_eq!(upload.answer.await.unwrap().unwrap_err().code(), Code::Aborted);
    let late = dead.upload(1, &weights("a")).await.unwrap_err();
    assert!(late.to_string().contains("refused to publish a policy version"), "{late}");
    let left = fs::read_dir(fixture.path("out").join("policy")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("partial")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_upload_continues_also_in_another_process_and_after_a_restart() {
    let fixture = Fixture::new(&[LARGE]);
    let (running, stop) = fixture.start("out").await;
    let dead = Learner::new(fixture.file.clone(), fixture.connect(running.address()));
    dead.join(0).await;
    let (manifest, folder) = dead.write(1, &weights("a"));
    let upload = HalfOpen::start(&dead, &manifest, &folder).await;
    upload.arrived(&fixture, &manifest).await;
    let sent = (SENT * MAX_CHUNK_BYTES) as u64;
    assert_eq!(received(&dead, &manifest).await, sent, "it ends the upload");
    assert_eq!(upload.answer.await.unwrap().unwrap_err().code(), Code::Aborted);
    stop.cancel();
    running.finished().await.unwrap();

    let (running, _stop) = fixture.start("out").await;
    let next = Learner::new(fixture.file.clone(), fixture.connect(running.address()));
    next.join(0).await;
    let (changed, _) = next.write(1, &weights("b"));
    assert_eq!(received(&next, &changed).await, 0, "another content starts from the beginning");
    let (manifest, _) = next.write(1, &weights("a"));
    assert_eq!(received(&next, &manifest).await, sent);
    assert!(!next.upload(1, &weights("a")).await.unwrap());
    assert_eq!(fs::read_to_string(published(&fixture)).unwrap(), weights("a"));
    assert!(next.upload(1, &weights("a")).await.unwrap(), "it is published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_upload_ends_by_name_and_continues() {
    let fixture = Fixture::new(&[LARGE, "network.request_timeout_ms=500"]);
    let (running, _stop) = fixture.start("out").await;
    let learner = Learner::new(fixture.file.clone(), fixture.connect(running.address()));
    learner.join(0).await;
    let (manifest, folder) = learner.write(1, &weights("a"));
    let upload = HalfOpen::start(&learner, &manifest, &folder).await;
    let status = upload.answer.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("no byte of policy version 1 arrived for 0.5 s"), "{status}");
    assert_eq!(received(&learner, &manifest).await, (SENT * MAX_CHUNK_BYTES) as u64);
    assert!(!learner.upload(1, &weights("a")).await.unwrap());
    assert_eq!(fs::read_to_string(published(&fixture)).unwrap(), weights("a"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_linked_on_one_host_and_sent_where_that_fails() {
    let fixture = Fixture::new(&[LARGE]);
    let (running, _stop) = fixture.start("out").await;
    let learner = Learner::new(fixture.file.clone(), fixture.connect(running.address()));
    learner.join(0).await;
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert!(!learner.publish(1, "first").await.unwrap());
    let source = learner.folder.path().join("1/model.safetensors");
    assert_eq!(inode(&published(&fixture)), inode(&source));
    let cache = fixture.path("cache");
    let (_, folder) = fetch(&learner.coordinator, Some(PolicyVersion(1)), &cache).await.unwrap();
    assert_eq!(inode(&folder.join("model.safetensors")), inode(&source));
    assert!(learner.publish(1, "first").await.unwrap(), "it is published");

    // The folder of this host has another content than the offered one.
    let (manifest, folder) = learner.write(1, "second");
    fs::write(folder.join("model.safetensors"), "third").unwrap();
    let offer = v1::PolicyManifest { folder: folder.to_str().unwrap().into(), ..(&manifest).into() };
    let offer = v1::OfferRequest { learner_id: learner.id.to_string(), manifest: Some(offer), base: None };
    let answer = call!(learner.coordinator, policy.offer, offer).await.unwrap();
    assert!(answer.wanted && !answer.linked);
    assert_eq!(fs::read_to_string(published(&fixture)).unwrap(), "first");
    assert!(!learner.upload(1, "second").await.unwrap());
    assert_eq!(fs::read_to_string(published(&fixture)).unwrap(), "second");
}
