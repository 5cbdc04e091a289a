//! The folder of a run: its layout, the run that it belongs to, and the lock for one launcher at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use podium_config::{Network, RunFile};
use podium_files::durable;
use podium_service::notice;
use podium_transfer::announcement::{self, Announcement};
use podium_transfer::{Credentials, Secret, secret};
use serde_json::Value;

/// Maximum number of differing keys in an error.
const SHOWN_DIFFERENCES: usize = 6;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    File(#[from] durable::Error),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a run file", path.display())]
    Stored { path: PathBuf, source: Box<toml::de::Error> },
    #[error(transparent)]
    Announcement(#[from] announcement::Error),
    #[error(transparent)]
    Secret(#[from] secret::Error),
    #[error("another podium works in {}: wait for it, stop it, or choose another folder with --out", out.display())]
    InUse { out: PathBuf },
    #[error(
        "{} contains another run, which differs in {}; continue that run, or choose another folder with --out",
        out.display(), differences.join(", ")
    )]
    OtherRun { out: PathBuf, differences: Vec<String> },
}

/// Paths in the folder of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunFolder {
    out: PathBuf,
}

/// Held while a launcher works in the folder; the system releases it when the process ends.
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

    /// Returns the folder for policy versions that the workers share. Not needed after the run.
    pub(crate) fn worker_cache(&self) -> PathBuf {
        self.out.join("cache")
    }

    pub(crate) fn learner_state(&self) -> PathBuf {
        self.out.join("learner")
    }

    pub(crate) fn start_policy(&self) -> PathBuf {
        self.out.join("start")
    }

    /// Returns the output folder of a stage before GRPO.
    pub(crate) fn stage(&self, name: &str) -> PathBuf {
        self.out.join("stages").join(name)
    }

    /// Returns the path of the prompt template, if it is a user's file.
    pub(crate) fn template(&self) -> PathBuf {
        self.out.join("prompt.jinja")
    }

    pub(crate) fn policy(&self, version: u64) -> PathBuf {
        self.out.join("policy").join(version.to_string())
    }

    /// Returns the coordinator's store.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.out.join("coordinator.redb")
    }

    /// Creates the secret of the run, unless it exists or another file is configured, and checks it.
    pub(crate) fn create_secret(&self, network: &Network) -> Result<(), Error> {
        Secret::of_run(&self.out, network)?;
        Ok(())
    }

    /// Returns the secret of the run, for calls to its coordinator.
    pub(crate) fn credentials(&self, network: &Network) -> Credentials {
        Credentials::from_file(secret::configured(network).unwrap_or_else(|| self.out.join(secret::FILE)))
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.out.join("report.html")
    }

    /// Returns whether a run was started here.
    pub(crate) fn is_used(&self) -> bool {
        self.run_file().exists()
    }

    /// Returns whether the run here is finished.
    pub(crate) fn is_finished(&self) -> bool {
        self.out.join("finished.json").exists()
    }

    /// Creates the folder if necessary and excludes other launchers.
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

    /// Returns the run that was started here, if any. Current environment variables are ignored.
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

    /// Refuses to continue with `run` if another run was started here.
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

    /// Returns the coordinator's last announcement, if any.
    pub(crate) fn announcement(&self) -> Result<Option<Announcement>, Error> {
        match Announcement::read(&self.out.join(announcement::FILE)) {
            Err(error) if error.is_missing() => Ok(None),
            announced => Ok(Some(announced?)),
        }
    }
}

/// Returns the first of `wanted`, `wanted-2`, `wanted-3`… that satisfies `is_free`.
pub(crate) fn first_free(wanted: &Path, is_free: impl Fn(&RunFolder) -> bool) -> RunFolder {
    let numbered = (2..).map(|number| PathBuf::from(format!("{}-{number}", wanted.display())));
    std::iter::once(wanted.to_owned())
        .chain(numbered)
        .map(RunFolder::new)
        .find(|folder| is_free(folder))
        .expect("numbers do not end")
}

/// Returns the differing keys that affect results, as "grpo.beta (0.1 there, 0 here)".
fn differences(there: &RunFile, here: &RunFile) -> Vec<String> {
    let value = |run: &RunFile| serde_json::to_value(run).expect("a run file is plain data");
    let mut found = Vec::new();
    for (section, there) in value(there).as_object().into_iter().flatten() {
        if !matches!(section.as_str(), "network" | "launch") {
            collect_differences(section, there, &value(here)[section], &mut found);
        }
    }
    found.retain(|difference| !["model.path", "data.dir"].iter().any(|key| difference.starts_with(key)));
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
    fn a_folder_accepts_its_own_run_and_refuses_others_by_name() {
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
