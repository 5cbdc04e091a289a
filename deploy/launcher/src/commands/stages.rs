//! The stages before GRPO: fine-tuning, and merging the adapter that it trained. What is done is not done again.
//!
//! A stage's folder appears when the stage is over, whole; what an interrupted one left is thrown away.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_config::{RunFile, Stage};
use podium_runtime::durable;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Error, start};
use crate::processes;
use crate::run_folder::RunFolder;
use crate::services::Programs;

/// What a stage was made from, beside the run file: in its folder.
const RECORD_FILE: &str = "stage.json";

/// What the run hash does not tell of a stage's ingredients.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the training file, if there is one.
    rows: Option<String>,
}

/// Does what is left of the stages before GRPO in the run's folder.
pub(super) struct Stages<'a> {
    pub(super) programs: &'a Programs,
    pub(super) folder: &'a RunFolder,
    pub(super) stop: &'a CancellationToken,
}

impl Stages<'_> {
    /// Leaves in `run` what GRPO starts from. `false`: a signal came in between.
    pub(super) async fn perform(&self, run: &mut RunFile) -> Result<bool, Error> {
        let stages = run.run.stages.clone();
        if stages.contains(&Stage::Sft) {
            let out = self.folder.stage("sft");
            if !self.fine_tuned(run, &out)? && !self.fine_tune(run, &out).await? {
                return Ok(false);
            }
            if run.lora.is_used() {
                run.lora.adapter = Some(absolute(out)?);
            } else {
                run.model.path = Some(absolute(out)?);
            }
        }
        if stages.contains(&Stage::Merge) {
            let out = self.folder.stage("merged");
            if out.exists() {
                said_done("merge", &out);
            } else if !self.merge(run, &out).await? {
                return Ok(false);
            }
            run.model.path = Some(absolute(out)?);
            run.lora.adapter = None;
        }
        Ok(true)
    }

    /// Whether the policy was fine-tuned before, from the same rows.
    fn fine_tuned(&self, run: &RunFile, out: &Path) -> Result<bool, Error> {
        let path = out.join(RECORD_FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(Error::Read { what: "what a stage was made from", path, source }),
        };
        let recorded = serde_json::from_slice::<Record>(&text).ok();
        if recorded != Some(record(run)?) {
            return Err(Error::OtherRows { stage: out.to_owned() });
        }
        said_done("sft", out);
        Ok(true)
    }

    async fn fine_tune(&self, run: &RunFile, out: &Path) -> Result<bool, Error> {
        let record = record(run)?;
        let mut arguments: Vec<OsString> = vec!["sft".into()];
        if run.model.path.is_none() {
            arguments.extend(start::random_embedded(run, self.folder)?);
        }
        self.folder.store(run)?;
        eprintln!("sft: {} steps of supervised fine-tuning", run.sft.steps);
        let made = self.make("sft", arguments, run, out, |folder| {
            let text = serde_json::to_string(&record).expect("a record is plain data");
            durable::write(&folder.join(RECORD_FILE), text.as_bytes())
        });
        made.await
    }

    async fn merge(&self, run: &RunFile, out: &Path) -> Result<bool, Error> {
        let (Some(model), Some(adapter)) = (&run.model.path, &run.lora.adapter) else {
            return Err(Error::NoStart);
        };
        let arguments = ["merge".into(), "--model".into(), model.into(), "--adapter".into(), adapter.into()];
        eprintln!("merge: working the adapter into {}", model.display());
        self.make("merge", arguments.into(), run, out, |_| Ok(())).await
    }

    /// Runs the learner, which writes into a folder that becomes `out` when all of it is there.
    pub(super) async fn make(
        &self,
        name: &str,
        mut arguments: Vec<OsString>,
        run: &RunFile,
        out: &Path,
        complete: impl FnOnce(&Path) -> Result<(), durable::Error>,
    ) -> Result<bool, Error> {
        let partial = out.with_extension("partial");
        let failed = |source| durable::Error::Write { path: partial.clone(), source };
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
        if let Some(parent) = out.parent() {
            durable::create_folder(parent)?;
        }
        if name == "sft" {
            arguments.extend(["--run-file".into(), self.folder.run_file().into()]);
            arguments.extend(["--device".into(), (&run.launch.learner_device).into()]);
        }
        arguments.extend(["--out".into(), partial.clone().into()]);
        let mut child = processes::command(&self.programs.learner)
            .args(arguments)
            .spawn()
            .map_err(|source| processes::Error::Start { program: self.programs.learner.clone(), source })?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(|source| processes::Error::Wait { name: name.into(), source })?,
            () = self.stop.cancelled() => {
                processes::end(&mut child).await;
                return Ok(false);
            }
        };
        if !status.success() {
            return Err(Error::Stage { stage: name.to_owned(), how: processes::describe(status) });
        }
        complete(&partial)?;
        fs::rename(&partial, out).map_err(failed)?;
        Ok(true)
    }
}

fn said_done(stage: &str, out: &Path) {
    eprintln!("{stage}: done before, in {}", out.display());
}

fn record(run: &RunFile) -> Result<Record, Error> {
    let sum = |path: &PathBuf| Ok::<_, Error>(durable::hex(&durable::sha256(path)?));
    Ok(Record { rows: run.sft.rows.as_ref().map(sum).transpose()? })
}

pub(super) fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(|source| Error::Read { what: "the path", path, source })
}
