//! Uploads and downloads as deltas against a version that both sides have.

use std::fs;
use std::path::Path;

use podium_grpo::PolicyVersion;
use podium_proto::{MAX_CHUNK_BYTES, v1};
use podium_transfer::{Base, LocalBase, fetch};
use tokio_stream::StreamExt;

use crate::fakes::{Learner, call};
use crate::fixture::Fixture;

const WEIGHTS: &str = "model.safetensors";

/// Letters without a pattern, of which one in `every` is changed.
fn weights(every: usize) -> String {
    let mut state = 7_u64;
    let letter = |index: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if every > 0 && index.is_multiple_of(every) {
            '-'
        } else {
            char::from(b'a' + (state >> 59) as u8 % 26)
        }
    };
    (0..3 * MAX_CHUNK_BYTES + 5).map(letter).collect()
}

/// Replaces a file as a failing disk does: same length, one byte changed.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[MAX_CHUNK_BYTES + 1] ^= 1;
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Downloads version 0 without links.
async fn base(fixture: &Fixture, learner: &Learner) -> LocalBase {
    let served = fetch::served(&learner.coordinator, Some(PolicyVersion::START)).await.unwrap();
    let (served, folder) = (served.without_origin(), fixture.path("cache/0"));
    fetch::ensure(&learner.coordinator, &served, &folder, None).await.unwrap();
    LocalBase::new(served.manifest(), &folder)
}

/// A run whose version 0 has [`weights`] without changes, and its rank 0.
macro_rules! start {
    ($fixture:ident, $learner:ident) => {
        let $fixture = Fixture::new(&["network.max_message_bytes=2000000"]);
        fs::write($fixture.path("start").join(WEIGHTS), weights(0)).unwrap();
        let (running, _stop) = $fixture.start("out").await;
        let $learner = Learner::new($fixture.file.clone(), $fixture.connect(running.address()));
        $learner.join(0).await;
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_with_few_changes_is_transferred_as_deltas() {
    start!(fixture, learner);
    let base = base(&fixture, &learner).await;
    let (manifest, folder) = learner.write(1, &weights(1_000));
    let mut offer = v1::OfferRequest {
        learner_id: learner.id.to_string(),
        manifest: Some((&manifest).into()),
        base: Some(base.base.into()),
    };
    assert!(call!(learner.coordinator, policy.offer, offer.clone()).await.unwrap().has_base);
    for other in
        [Base { version: PolicyVersion(5), ..base.base }, Base { content: manifest.content(), ..base.base }]
    {
        offer.base = Some(other.into());
        assert!(
            !call!(learner.coordinator, policy.offer, offer.clone()).await.unwrap().has_base,
            "{other:?}"
        );
    }
    learner.upload_against(&manifest, &folder, &base).await.unwrap();
    let published = fixture.path("out").join("policy/1").join(WEIGHTS);
    assert_eq!(fs::read_to_string(published).unwrap(), weights(1_000));

    let request = v1::FetchRequest {
        policy_version: 1,
        name: WEIGHTS.into(),
        policy_content: manifest.content().to_bytes(),
        base: Some(base.base.into()),
        ..v1::FetchRequest::default()
    };
    let chunks: Vec<_> =
        learner.coordinator.policy().fetch(request).await.unwrap().into_inner().collect().await;
    let bytes: usize = chunks.iter().map(|chunk| chunk.as_ref().unwrap().data.len()).sum();
    assert!(bytes * 8 < weights(0).len(), "{bytes} bytes");
    let served = fetch::served(&learner.coordinator, Some(PolicyVersion(1))).await.unwrap().without_origin();
    let cached = fixture.path("cache/1");
    fetch::ensure(&learner.coordinator, &served, &cached, Some(&base)).await.unwrap();
    manifest.verify(&cached).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_sent_in_full_if_the_base_is_damaged() {
    start!(fixture, learner);
    let base = base(&fixture, &learner).await;
    let (manifest, folder) = learner.write(1, &weights(1_000));
    damage(&fixture.path("out").join("policy/0").join(WEIGHTS));
    learner.upload_against(&manifest, &folder, &base).await.unwrap();
    let published = fixture.path("out").join("policy/1").join(WEIGHTS);
    assert_eq!(fs::read_to_string(published).unwrap(), weights(1_000));

    let served = fetch::served(&learner.coordinator, Some(PolicyVersion(1))).await.unwrap().without_origin();
    damage(&base.folder.join(WEIGHTS));
    let cached = fixture.path("cache/1");
    fetch::ensure(&learner.coordinator, &served, &cached, Some(&base)).await.unwrap();
    manifest.verify(&cached).unwrap();
}
