use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::connection::Limits;
use crate::manifest::{describe, tests::folder};

/// A client of a coordinator that does not exist: versions come from their origin.
fn nobody() -> Coordinator {
    let limits = Limits {
        request_timeout: Duration::from_millis(50),
        reconnect_for: Duration::from_millis(300),
        max_message_bytes: 1 << 20,
    };
    Coordinator::new("127.0.0.1:1", limits, CancellationToken::new()).unwrap()
}

/// A version of this host, and its folder.
fn version(number: u64) -> (Served, TempDir) {
    let origin = folder(number.to_string().as_bytes());
    let manifest = describe(origin.path(), PolicyVersion(number), "cafe", "f00d").unwrap();
    (Served::new(manifest, Some(origin.path().to_owned())), origin)
}

fn weights(held: &Held) -> String {
    fs::read_to_string(held.folder().join("model.safetensors")).unwrap()
}

#[tokio::test]
async fn a_verified_version_is_not_read_again_until_it_changes() {
    let (shared, (served, origin)) = (tempfile::tempdir().unwrap(), version(1));
    let coordinator = nobody();
    let (one, other) = (Cache::open(shared.path()).unwrap(), Cache::open(shared.path()).unwrap());
    let first = one.hold(&coordinator, &served, None).await.unwrap();
    assert_eq!(weights(&first), "1");
    // A second link to the files is no change.
    fs::hard_link(first.folder().join("model.safetensors"), shared.path().join("link")).unwrap();
    assert!(first.is_intact());
    let away = Served::new(served.manifest().clone(), None);
    let second = other.hold(&coordinator, &away, None).await.unwrap();
    assert_eq!(second.folder(), first.folder());

    let path = first.folder().join("model.safetensors");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "2").unwrap();
    assert!(!first.is_intact() && !second.is_intact());
    drop(second);
    other.hold(&coordinator, &away, None).await.unwrap_err();
    assert_eq!(weights(&other.hold(&coordinator, &served, None).await.unwrap()), "1");
    drop(origin);
}

#[tokio::test]
async fn a_stamp_of_an_earlier_start_of_the_host_or_half_a_stamp_is_ignored() {
    let (shared, (served, _origin)) = (tempfile::tempdir().unwrap(), version(1));
    let cache = Cache::open(shared.path()).unwrap();
    let held = cache.hold(&nobody(), &served, None).await.unwrap();
    let stamp = held.folder().join(VERIFIED);
    let written = fs::read_to_string(&stamp).unwrap();
    let verified = Verified::read(held.folder()).unwrap();
    let earlier = Verified { boot: "earlier".into(), ..verified };
    let away = Served::new(served.manifest().clone(), None);
    for text in [serde_json::to_string(&earlier).unwrap(), written[..20].to_owned(), String::new()] {
        fs::write(&stamp, text).unwrap();
        cache.hold(&nobody(), &away, None).await.unwrap();
        assert_eq!(fs::read_to_string(&stamp).unwrap(), written, "it is verified and stamped again");
    }
}

#[tokio::test]
async fn a_version_in_use_by_another_process_is_not_removed() {
    let shared = tempfile::tempdir().unwrap();
    let coordinator = nobody();
    let (one, other) = (Cache::open(shared.path()).unwrap(), Cache::open(shared.path()).unwrap());
    let versions = [version(1), version(2)];
    let first = one.hold(&coordinator, &versions[0].0, None).await.unwrap();
    let second = other.hold(&coordinator, &versions[1].0, None).await.unwrap();
    let partial = receive::partial_folder(first.manifest(), first.folder());
    fs::create_dir(&partial).unwrap();
    other.prune(&[&second]).unwrap();
    assert!(first.folder().is_dir() && second.folder().is_dir() && partial.is_dir());
    let folder = first.folder().to_owned();
    drop(first);
    other.prune(&[&second]).unwrap();
    assert!(!folder.is_dir() && !partial.is_dir() && second.folder().is_dir());
}

#[tokio::test]
async fn a_process_waits_for_the_one_that_downloads_and_names_it_if_it_stalls() {
    let (shared, (served, _origin)) = (tempfile::tempdir().unwrap(), version(1));
    let cache = Cache::open(shared.path()).unwrap();
    let name = folder_name(PolicyVersion(1), served.manifest().content());
    let downloaded = Numbers::of(&name).unwrap().downloaded;
    let elsewhere = Locks::open(&shared.path().join(LOCKS)).unwrap();
    let downloading = elsewhere.try_lock(downloaded, Kind::Exclusive).unwrap().unwrap();
    let error = cache.hold(&nobody(), &served, None).await.unwrap_err().to_string();
    assert!(error.contains("another process downloads policy version 1") && error.contains(&name), "{error}");

    let coordinator = nobody();
    let later = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        drop(downloading);
    };
    let (held, ()) = tokio::join!(cache.hold(&coordinator, &served, None), later);
    assert_eq!(weights(&held.unwrap()), "1");
}

#[test]
fn locks_are_numbered_by_version_and_content() {
    let number = |name| Numbers::of(name).map(|numbers| numbers.used);
    assert_ne!(number("1-0123456789ab"), number("2-0123456789ab"));
    assert_ne!(number("1-0123456789ab"), number("1-0123456789ac"));
    assert!(number("18446744073709551615-ffffffffffff").unwrap() < podium_files::locks::LAST);
    for other in ["1", "link", ".locks", "x-0123456789ab", "1-xyz"] {
        assert_eq!(number(other), None, "{other}");
    }
}
