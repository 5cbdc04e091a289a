//! Policy versions on a host's disk that its processes share.
//!
//! A version's folder is named after its number and content. A process that uses a version holds a lock, so that no other
//! process removes it. One process downloads a version while the others wait. The files are not synced; a stamp in the
//! folder records their verification and is valid until a file changes or the host restarts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podium_files::durable;
use podium_files::locks::{Kind, Lock, Locks};
use podium_files::stamp::Stamp;
use podium_grpo::PolicyVersion;
use serde::{Deserialize, Serialize};

use crate::connection::{self, Coordinator};
use crate::delta::LocalBase;
use crate::fetch::{self, Error, Served};
use crate::manifest::{Content, File, Manifest};
use crate::receive;

/// Name of the lock file.
const LOCKS: &str = ".locks";
/// Name of the stamp in a version's folder.
const VERIFIED: &str = ".verified.json";
/// The pauses between checks while another process downloads are a quarter of the time waited so far, within these
/// bounds: a link takes milliseconds, a download may take hours.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The wait for another process that receives nothing ends after this many times the limit of retries: it may verify or
/// copy a large version meanwhile.
const WAIT_FACTOR: u32 = 10;

/// A folder of policy versions.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    locks: Locks,
}

/// A version in use. No process removes its folder until this is dropped.
#[derive(Debug)]
pub struct Held {
    manifest: Manifest,
    folder: PathBuf,
    stamps: Vec<Stamp>,
    _used: Lock,
}

impl Held {
    /// The version.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the version as a base of deltas, unless its files have changed.
    pub fn as_base(&self) -> Option<LocalBase> {
        self.is_intact().then(|| LocalBase::new(&self.manifest, &self.folder))
    }

    /// Returns whether its files are unchanged since they were verified.
    pub fn is_intact(&self) -> bool {
        stamps(&self.manifest, &self.folder).is_some_and(|stamps| stamps == self.stamps)
    }
}

/// The record of a verification, as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verified {
    /// Identifies the host's start: a power failure can damage files without a change of their metadata.
    boot: String,
    content: String,
    files: Vec<Stamp>,
}

impl Verified {
    /// Returns the stamp that is valid for the present files; `None` if a file is missing.
    fn of(manifest: &Manifest, folder: &Path) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self { boot, content: manifest.content().to_string(), files: stamps(manifest, folder)? })
    }

    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(VERIFIED)).ok()?).ok()
    }
}

fn stamps(manifest: &Manifest, folder: &Path) -> Option<Vec<Stamp>> {
    let stamp = |file: &File| Some(Stamp::from(&file.verify_length(&folder.join(&file.name)).ok()?));
    manifest.files.iter().map(stamp).collect()
}

/// Returns the name of a version's folder.
pub fn folder_name(version: PolicyVersion, content: Content) -> String {
    format!("{}-{content}", version.0)
}

/// The locks of a version: one of its users, one of the process that downloads it.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    used: u64,
    downloaded: u64,
}

impl Numbers {
    /// Returns the locks of a folder; `None` for a folder that is not of a version.
    fn of(name: &str) -> Option<Self> {
        let (version, content) = name.split_once('-')?;
        Some(Self::new(version.parse().ok()?, u64::from_str_radix(content, 16).ok()?))
    }

    const fn new(version: u64, content: u64) -> Self {
        // 13 bits of the version and 48 of the content.
        let number = ((version & 0x1fff) << 48 | content & 0xffff_ffff_ffff) << 1;
        Self { used: number, downloaded: number | 1 }
    }
}

impl Cache {
    /// Opens `folder`, which is created if necessary, and removes the temporary files of killed processes.
    pub fn open(folder: &Path) -> Result<Self, durable::Error> {
        durable::create_folder(folder)?;
        durable::remove_leftovers(folder)?;
        Ok(Self { folder: folder.to_owned(), locks: Locks::open(&folder.join(LOCKS))? })
    }

    /// The folder of all versions.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns a version's folder. Downloads it if necessary, as deltas against `base` where that is shorter, or waits for
    /// the process that does.
    pub async fn hold(
        &self,
        coordinator: &Coordinator,
        served: &Served,
        base: Option<&Held>,
    ) -> Result<Held, Error> {
        let manifest = served.manifest();
        let name = folder_name(manifest.version, manifest.content());
        let folder = self.folder.join(&name);
        let numbers = Numbers::new(manifest.version.0, manifest.content().prefix());
        let mut wait = Wait::new(coordinator);
        loop {
            if let Some(used) = self.locks.try_lock(numbers.used, Kind::Shared)? {
                let held =
                    |stamps| Held { manifest: manifest.clone(), folder: folder.clone(), stamps, _used: used };
                let verified = Verified::of(manifest, &folder)
                    .filter(|now| Verified::read(&folder).as_ref() == Some(now));
                if let Some(verified) = verified {
                    return Ok(held(verified.files));
                }
                if let Some(_downloaded) = self.locks.try_lock(numbers.downloaded, Kind::Exclusive)? {
                    let base = base.and_then(Held::as_base);
                    fetch::ensure(coordinator, served, &folder, base.as_ref()).await?;
                    write_stamp(manifest, &folder);
                    if let Some(stamps) = stamps(manifest, &folder) {
                        return Ok(held(stamps));
                    }
                }
            }
            wait.pause(manifest, &folder).await?;
        }
    }

    /// Removes all versions except `retained` and those that another process uses.
    pub fn prune(&self, retained: &[&Held]) -> Result<(), durable::Error> {
        let failed = |source| durable::Error::Read { path: self.folder.clone(), source };
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let version = receive::partial_target(&name).unwrap_or(&name);
            let is_retained = |held: &&Held| held.folder.file_name().is_some_and(|own| own == version);
            let Some(numbers) = Numbers::of(version).filter(|_| !retained.iter().any(is_retained)) else {
                continue;
            };
            if let Some(_unused) = self.locks.try_lock(numbers.used, Kind::Exclusive)? {
                durable::remove_folder(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// Records that a version is verified. Without the stamp it is verified again.
fn write_stamp(manifest: &Manifest, folder: &Path) {
    let written = Verified::of(manifest, folder).map_or(Ok(()), |verified| {
        let text = serde_json::to_vec(&verified).map_err(io::Error::other)?;
        // Readers ignore an unfinished stamp.
        fs::write(folder.join(VERIFIED), text)
    });
    if let Err(error) = written {
        tracing::debug!("{} has no stamp: {error}", folder.display());
    }
}

/// A wait for another process that downloads a version.
struct Wait<'a> {
    coordinator: &'a Coordinator,
    began: Instant,
    /// Time of the last received byte.
    since: Instant,
    bytes: Option<u64>,
    reported: bool,
    warned: bool,
}

impl<'a> Wait<'a> {
    fn new(coordinator: &'a Coordinator) -> Self {
        let now = Instant::now();
        Self { coordinator, began: now, since: now, bytes: None, reported: false, warned: false }
    }

    /// Pauses between two checks. Fails if the other process has not received a byte for [`WAIT_FACTOR`] times the limit
    /// of retries.
    async fn pause(&mut self, manifest: &Manifest, folder: &Path) -> Result<(), Error> {
        let received = receive::received_before(manifest, folder).unwrap_or_default();
        let bytes = received.into_iter().map(|(_, bytes)| bytes).sum();
        let pause = (self.began.elapsed() / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        if pause == LONGEST_PAUSE && !std::mem::replace(&mut self.reported, true) {
            tracing::info!("another process downloads {} into {}", manifest.version, folder.display());
        }
        if self.bytes.replace(bytes) != Some(bytes) {
            self.since = Instant::now();
        }
        let (waited, limit) = (self.since.elapsed(), self.coordinator.limits().reconnect_for);
        if waited > WAIT_FACTOR * limit {
            return Err(Error::Waited { version: manifest.version, folder: folder.to_owned(), waited });
        }
        if waited > limit && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                "another process has received nothing of {} in {} for {} s: waiting",
                manifest.version,
                folder.display(),
                waited.as_secs()
            );
        }
        tokio::select! {
            () = self.coordinator.stopped() => {
                Err(connection::Error::Stopped { what: "wait for a policy version" }.into())
            }
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
