//! Tests that a writer killed at any step leaves the old content or the new one, and no permanent
//! leftovers.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Parameters of `writer_process`: the operation, the folder, and the step at which the process dies.
const VARIABLES: [&str; 3] = ["PODIUM_TEST_WRITE", "PODIUM_TEST_FOLDER", "PODIUM_TEST_DIES_AT"];
const OLD: &[u8] = b"old content";
const NEW: &[u8] = b"new content, which is longer";

/// Steps until the process dies; only the writer process counts down to 0.
static LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Ends the process as `kill -9` does, if this is the step at which it dies.
pub(super) fn step() {
    if LEFT.fetch_sub(1, Ordering::Relaxed) == 0 {
        let own = nix::unistd::Pid::this();
        nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

/// Writes half of a file, dies if this is the step at which it dies, and writes the rest.
fn in_halves(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    step();
    file.write_all(rest)
}

fn fill(folder: &Path) -> Result<(), Error> {
    create_folder(&folder.join("below"))?;
    for name in ["a", "below/b"] {
        write_with(&folder.join(name), |file| in_halves(file, NEW))?;
    }
    Ok(())
}

/// Runs as the writer process of the tests below. It is not a test of its own.
#[test]
fn writer_process() {
    let [Some(what), Some(folder), Some(dies_at)] = VARIABLES.map(std::env::var_os) else { return };
    let target = Path::new(&folder).join("target");
    LEFT.store(dies_at.to_string_lossy().parse().unwrap(), Ordering::Relaxed);
    match what.to_string_lossy().as_ref() {
        "file" => write_with(&target, |file| in_halves(file, NEW)),
        "new folder" => new_folder(&target, fill),
        _ => {
            let staging = aside(&target).unwrap();
            fill(&staging).and_then(|()| publish_folder(&staging, &target))
        }
    }
    .unwrap();
}

/// Runs a writer for every step at which it can die, on the files that `prepare` creates. `look` returns
/// whether the target is new; it fails the test if the target is neither old nor new.
fn dies_everywhere(what: &str, prepare: impl Fn(&Path), look: impl Fn(&Path) -> bool) {
    let mut found_new = Vec::new();
    for dies_at in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        prepare(&target);
        let values = [what.to_owned(), folder.path().display().to_string(), dies_at.to_string()];
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["durable::killed::writer_process", "--exact", "--test-threads=1"])
            .envs(VARIABLES.into_iter().zip(values))
            .output()
            .unwrap();
        found_new.push(look(&target));
        remove_leftovers(folder.path()).unwrap();
        let entries = fs::read_dir(folder.path()).unwrap();
        let left: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name == "target"), "step {dies_at} of a {what} leaves {left:?}");
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stdout));
        assert!(dies_at < 100);
    }
    let first_new = found_new.iter().position(|new| *new).unwrap();
    assert!(first_new > 3, "it died before the rename, too");
    assert!(found_new.len() > first_new + 1, "it died after the rename, too");
    assert!(found_new[first_new..].iter().all(|new| *new), "the new content stays: {found_new:?}");
}

fn content(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

#[test]
fn a_killed_writer_of_a_file_leaves_the_old_one_or_the_new_one() {
    let look = |target: &Path| {
        let found = content(target).unwrap();
        assert!(found == OLD || found == NEW, "{found:?}");
        found == NEW
    };
    dies_everywhere("file", |target| fs::write(target, OLD).unwrap(), look);
}

#[test]
fn a_killed_writer_of_a_folder_leaves_no_folder_or_the_complete_one() {
    let look = |target: &Path| {
        let found = ["a", "below/b"].map(|name| content(&target.join(name)));
        let new = target.is_dir();
        assert_eq!(found.iter().flatten().filter(|found| *found == NEW).count(), if new { 2 } else { 0 });
        new
    };
    dies_everywhere("new folder", |_| {}, look);
}

#[test]
fn a_killed_publisher_leaves_the_old_folder_or_the_new_one() {
    let old = |target: &Path| {
        fs::create_dir(target).unwrap();
        fs::write(target.join("a"), OLD).unwrap();
    };
    let look = |target: &Path| {
        let found = ["a", "below/b"].map(|name| content(&target.join(name)));
        let new = found[1].is_some();
        let expected = if new { [Some(NEW), Some(NEW)] } else { [Some(OLD), None] };
        assert_eq!(found.each_ref().map(Option::as_deref), expected);
        new
    };
    dies_everywhere("folder", old, look);
}
