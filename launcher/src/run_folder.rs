//! The folder of a run: where things lie, whose run it is, and that one launcher at a time works in it.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use podium_config::RunFile;
use podium_files::durable;
use podium_service::{advertise, notice};
use serde::Deserialize;
use serde_json::Value;

/// Differing keys that a refusal names.
const SHOWN_DIFFERENCES: usize = 6;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no run file: {source}", path.display())]
    Stored { path: PathBuf, source: Box<toml::de::Error> },
    #[error(
        "{} announces no coordinator ({source}): a running coordinator writes it anew within a second; otherwise start the run again",
        path.display()
    )]
    Announcement { path: PathBuf, source: serde_json::Error },
    #[error("another podium works in {}: wait for it, stop it, or choose another folder with --out", out.display())]
    InUse { out: PathBuf },
    #[error(
        "{} holds another run, which differs in {}; continue that one, or choose another folder with --out",
        out.display(), differences.join(", ")
    )]
    OtherRun { out: PathBuf, differences: Vec<String> },
}

/// Paths in the folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    out: PathBuf,
}

/// What the coordinator says of itself once it serves.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Announcement {
    /// How other hosts reach it.
    pub(crate) address: String,
    /// What it is bound to on its own host.
    pub(crate) listen: String,
    pub(crate) pid: u32,
    /// Its host's name.
    #[serde(default)]
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) run_id: String,
    /// Why it ended, where it could say so.
    #[serde(default)]
    pub(crate) ended: Option<String>,
}

impl Announcement {
    /// Whether the process is known to have ended: it says so, or it was on this host and is there no more.
    pub(crate) fn is_over(&self) -> bool {
        let gone = || !Path::new("/proc").join(self.pid.to_string()).exists();
        self.ended.is_some() || (self.is_here() && gone())
    }

    /// An address that can be connected to from this host.
    pub(crate) fn reachable(&self) -> String {
        if self.is_here() { self.reachable_here() } else { self.address.clone() }
    }

    fn is_here(&self) -> bool {
        !self.host.is_empty() && self.host == advertise::host_name()
    }

    /// An address that can be connected to from its own host: on all interfaces means on the loopback one, too.
    pub(crate) fn reachable_here(&self) -> String {
        match self.listen.parse::<std::net::SocketAddr>() {
            Ok(socket) if socket.ip().is_unspecified() => {
                let host = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
                format!("{host}:{}", socket.port())
            }
            _ => self.listen.clone(),
        }
    }
}

/// Held for as long as a launcher works in the folder; the system lets go of it when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl RunFolder {
    pub(crate) fn new(out: impl Into<PathBuf>) -> Self {
        Self { out: out.into() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.out
    }

    pub(crate) fn run_file(&self) -> PathBuf {
        self.out.join("run.toml")
    }

    pub(crate) fn log(&self, service: &str) -> PathBuf {
        self.out.join("logs").join(format!("{service}.log"))
    }

    /// Where a worker keeps the policy versions it fetched. Of no use once the run is over.
    pub(crate) fn worker_cache(&self) -> PathBuf {
        self.out.join("cache")
    }

    pub(crate) fn learner_state(&self) -> PathBuf {
        self.out.join("learner")
    }

    pub(crate) fn start_policy(&self) -> PathBuf {
        self.out.join("start")
    }

    /// What a stage before GRPO made.
    pub(crate) fn stage(&self, name: &str) -> PathBuf {
        self.out.join("stages").join(name)
    }

    /// The template of prompts, where it is a file of the user's own.
    pub(crate) fn template(&self) -> PathBuf {
        self.out.join("prompt.jinja")
    }

    pub(crate) fn policy(&self, version: u64) -> PathBuf {
        self.out.join("policy").join(version.to_string())
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.out.join("report.html")
    }

    /// Whether a run was started here.
    pub(crate) fn is_used(&self) -> bool {
        self.run_file().exists()
    }

    /// Whether the run here came to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.out.join("finished.json").exists()
    }

    /// Makes the folder if need be and keeps other launchers out of it.
    pub(crate) fn lock(&self) -> Result<Lock, Error> {
        durable::create_folder(&self.out.join("logs"))?;
        let path = self.out.join(".lock");
        let failed = |source| Error::Read { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                let removed = durable::remove_leftovers(&self.out)?;
                if removed > 0 {
                    notice!(
                        "removed {removed} temporary files of killed processes from {}",
                        self.out.display()
                    );
                }
                Ok(Lock { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(Error::InUse { out: self.out.clone() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The run that was started here, if one was. Environment variables of today have no say in it.
    pub(crate) fn stored(&self) -> Result<Option<RunFile>, Error> {
        let path = self.run_file();
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map(Some)
                .map_err(|source| Error::Stored { path, source: Box::new(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Refuses to go on with `run` where another run was started.
    pub(crate) fn require_same_run(&self, run: &RunFile) -> Result<(), Error> {
        match self.stored()? {
            Some(stored) if stored.hash() != run.hash() => {
                Err(Error::OtherRun { out: self.out.clone(), differences: differences(&stored, run) })
            }
            _ => Ok(()),
        }
    }

    /// Writes the run file that all services read.
    pub(crate) fn store(&self, run: &RunFile) -> Result<(), Error> {
        Ok(durable::write(&self.run_file(), run.to_toml().as_bytes())?)
    }

    /// What the coordinator announced last, if it ever did.
    pub(crate) fn announcement(&self) -> Result<Option<Announcement>, Error> {
        let path = self.out.join("coordinator.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| Error::Announcement { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }
}

/// The first of `wanted`, `wanted-2`, `wanted-3`… that `is_free`.
pub(crate) fn first_free(wanted: &Path, is_free: impl Fn(&RunFolder) -> bool) -> RunFolder {
    let numbered = (2..).map(|number| PathBuf::from(format!("{}-{number}", wanted.display())));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .map(RunFolder::new)
        .find(|folder| is_free(folder))
        .expect("numbers do not end")
}

/// Keys that change results and differ, as "grpo.beta (0.1 there, 0 here)".
fn differences(there: &RunFile, here: &RunFile) -> Vec<String> {
    let value = |run: &RunFile| serde_json::to_value(run).expect("a run file is plain data");
    let mut found = Vec::new();
    for (section, there) in value(there).as_object().into_iter().flatten() {
        if !matches!(section.as_str(), "network" | "launch") {
            collect_differences(section, there, &value(here)[section], &mut found);
        }
    }
    found.retain(|difference| !["model.path", "data.dir"].iter().any(|place| difference.starts_with(place)));
    if found.len() > SHOWN_DIFFERENCES {
        let more = found.len() - SHOWN_DIFFERENCES;
        found.truncate(SHOWN_DIFFERENCES);
        found.push(format!("{more} more keys"));
    }
    found
}

fn collect_differences(key: &str, there: &Value, here: &Value, found: &mut Vec<String>) {
    if let (Value::Object(there), Value::Object(here)) = (there, here) {
        let only_here = here.keys().filter(|name| !there.contains_key(*name));
        for name in there.keys().chain(only_here) {
            let value =
                |side: &serde_json::Map<String, Value>| side.get(name).cloned().unwrap_or(Value::Null);
            collect_differences(&format!("{key}.{name}"), &value(there), &value(here), found);
        }
    } else if there != here {
        let shown = |value: &Value| if value.is_null() { "unset".to_owned() } else { value.to_string() };
        found.push(format!("{key} ({} there, {} here)", shown(there), shown(here)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(assignments: &[&str]) -> RunFile {
        let overrides: Vec<_> = assignments.iter().map(|text| text.parse().unwrap()).collect();
        RunFile::parse("", "test", &overrides).unwrap()
    }

    #[test]
    fn a_folder_takes_its_own_run_again_and_refuses_others_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(folder.path());
        folder.require_same_run(&run(&[])).unwrap();
        folder.store(&run(&["grpo.beta=0.5"])).unwrap();
        assert!(folder.is_used() && !folder.is_finished());
        folder
            .require_same_run(&run(&["grpo.beta=0.5", "launch.workers=7", "model.path=elsewhere"]))
            .unwrap();
        let message = folder.require_same_run(&run(&["run.seed=3"])).unwrap_err().to_string();
        assert!(
            message.contains("run.seed (0 there, 3 here)") && message.contains("grpo.beta (0.5 there"),
            "{message}"
        );
    }

    #[test]
    fn a_coordinator_announces_where_it_is_and_that_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(folder.path());
        assert!(folder.announcement().unwrap().is_none());
        let announce = |text: &str| fs::write(folder.path().join("coordinator.json"), text).unwrap();
        announce("{\"addr");
        let error = folder.announcement().unwrap_err().to_string();
        assert!(error.contains("coordinator.json announces no coordinator"), "{error}");
        let announced = |listen: &str, pid: u32, more: &str| {
            announce(&format!(
                "{{\"address\": \"trainer:1\", \"listen\": \"{listen}\", \"pid\": {pid}{more}}}"
            ));
            folder.announcement().unwrap().unwrap()
        };
        let here = format!(", \"host\": \"{}\"", advertise::host_name());
        assert!(!announced("10.0.0.7:1", std::process::id(), &here).is_over());
        assert!(announced("10.0.0.7:1", u32::MAX, &here).is_over());
        assert!(!announced("10.0.0.7:1", u32::MAX, ", \"host\": \"elsewhere.invalid\"").is_over());
        assert!(announced("10.0.0.7:1", std::process::id(), ", \"ended\": \"SIGTERM\"").is_over());
        for (listen, expected) in [
            ("0.0.0.0:4100", "127.0.0.1:4100"),
            ("[::]:4100", "[::1]:4100"),
            ("10.0.0.7:4100", "10.0.0.7:4100"),
        ] {
            assert_eq!(announced(listen, 1, "").reachable_here(), expected);
        }
    }

    #[test]
    fn one_launcher_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = RunFolder::new(folder.path().join("new"));
        let held = folder.lock().unwrap();
        assert!(matches!(folder.lock(), Err(Error::InUse { .. })));
        drop(held);
        folder.lock().unwrap();
    }

    #[test]
    fn a_number_is_added_until_the_folder_is_free() {
        let free = |wanted: &'static [&str]| {
            first_free(Path::new("runs/demo-0"), |folder| {
                !wanted.iter().any(|used| folder.path().ends_with(used))
            })
        };
        assert_eq!(free(&[]).path(), Path::new("runs/demo-0"));
        assert_eq!(free(&["demo-0", "demo-0-2"]).path(), Path::new("runs/demo-0-3"));
    }
}
