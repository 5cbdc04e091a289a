//! The stages before GRPO: fine-tuning, and merging of the trained adapter. Finished stages are not
//! repeated.
//!
//! A stage's folder appears only when the stage is complete; an interrupted stage is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_config::{RunFile, Stage};
use podium_evaluation::checksums::{self, Checksums};
use podium_files::durable;
use podium_service::notice;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::devices::{Placement, Table};
use crate::embedded;
use crate::processes;
use crate::run_folder::RunFolder;
use crate::services::Programs;

/// File with the inputs of a stage, in its folder.
const RECORD_FILE: &str = "made-from";

/// Input files of a stage, by role and name, with their checksums. Other inputs are part of the run hash.
pub(super) type Ingredients = BTreeMap<String, String>;

/// Runs the remaining stages before GRPO in the run's folder.
pub(super) struct Stages<'a> {
    pub(super) programs: &'a Programs,
    pub(super) folder: &'a RunFolder,
    pub(super) stop: &'a CancellationToken,
}

impl Stages<'_> {
    /// Sets the inputs of GRPO in `run`. Returns `false` if a signal arrived.
    pub(super) async fn perform(&self, run: &mut RunFile) -> Result<bool, Error> {
        let stages = run.run.stages.clone();
        if stages.contains(&Stage::Sft) {
            let out = self.folder.stage("sft");
            let ingredients = self.of_fine_tuning(run)?;
            if !is_made("sft", &out, &ingredients)? && !self.fine_tune(run, &out, &ingredients).await? {
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
            let (Some(model), Some(adapter)) = (&run.model.path, &run.lora.adapter) else {
                return Err(Error::NoStart);
            };
            let mut ingredients = named("model", checksums::policy(model)?);
            ingredients.extend(named("adapter", checksums::policy(adapter)?));
            if !is_made("merge", &out, &ingredients)?
                && !self.merge(run, (model, adapter), &out, &ingredients).await?
            {
                return Ok(false);
            }
            run.model.path = Some(absolute(out)?);
            run.lora.adapter = None;
        }
        Ok(true)
    }

    /// Returns the input files of fine-tuning.
    fn of_fine_tuning(&self, run: &RunFile) -> Result<Ingredients, Error> {
        let mut found = Ingredients::new();
        for (what, folder) in [("model", &run.model.path), ("adapter", &run.lora.adapter)] {
            if let Some(folder) = folder {
                found.extend(named(what, checksums::policy(folder)?));
            }
        }
        match (&run.sft.rows, &run.data.dir) {
            (Some(rows), _) => {
                found.insert("sft.rows".to_owned(), checksums::file(rows)?);
            }
            (None, Some(dir)) => {
                let own = || dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let name = run.data.name.clone().unwrap_or_else(own);
                found.extend(named("data", checksums::demonstrations(dir, &name)?));
            }
            // The embedded data set is generated from [world].
            (None, None) => {}
        }
        let template = run.prompt.template_file().map(|_| checksums::file(&self.folder.template()));
        found.extend(template.transpose()?.map(|sum| ("prompt.template".to_owned(), sum)));
        Ok(found)
    }

    async fn fine_tune(&self, run: &RunFile, out: &Path, ingredients: &Ingredients) -> Result<bool, Error> {
        let device = Table::of_stage(run)?.rank(0);
        let mut arguments: Vec<OsString> = vec!["sft".into()];
        if run.model.path.is_none() {
            arguments.extend(random_embedded(run, self.folder)?);
        }
        self.folder.store(run)?;
        notice!("sft: {} steps of supervised fine-tuning", run.sft.steps);
        arguments.extend(self.of_run(&device));
        self.make("sft", arguments, device.environment, out, ingredients).await
    }

    async fn merge(
        &self,
        run: &RunFile,
        (model, adapter): (&Path, &Path),
        out: &Path,
        ingredients: &Ingredients,
    ) -> Result<bool, Error> {
        self.folder.store(run)?;
        let arguments = ["merge".into(), "--model".into(), model.into(), "--adapter".into(), adapter.into()];
        notice!("merge: merging the adapter into {}", model.display());
        self.make("merge", arguments.into(), Vec::new(), out, ingredients).await
    }

    /// Returns the flags of a command that reads the run file.
    pub(super) fn of_run(&self, placement: &Placement) -> [OsString; 4] {
        ["--run-file".into(), self.folder.run_file().into(), "--device".into(), placement.device.into()]
    }

    /// Runs the learner, whose output folder is renamed to `out` when it is complete.
    pub(super) async fn make(
        &self,
        name: &str,
        mut arguments: Vec<OsString>,
        environment: Vec<(&'static str, String)>,
        out: &Path,
        ingredients: &Ingredients,
    ) -> Result<bool, Error> {
        let partial = out.with_extension("partial");
        durable::remove_folder(&partial)?;
        if let Some(parent) = out.parent() {
            durable::create_folder(parent)?;
        }
        arguments.extend(["--out".into(), partial.clone().into()]);
        let learner = &self.programs.learner;
        let ended = processes::foreground(name, learner, arguments, environment, self.stop).await?;
        let Some(status) = ended else { return Ok(false) };
        if !status.success() {
            return Err(Error::Stage { stage: name.to_owned(), how: processes::describe(status) });
        }
        let text = serde_json::to_string(ingredients).expect("checksums are plain data");
        durable::write(&partial.join(RECORD_FILE), text.as_bytes())?;
        durable::publish_folder(&partial, out)?;
        Ok(true)
    }
}

/// Returns whether a stage is done with the same input files.
fn is_made(stage: &str, out: &Path, ingredients: &Ingredients) -> Result<bool, Error> {
    let path = out.join(RECORD_FILE);
    let recorded = match fs::read(&path) {
        Ok(text) => serde_json::from_slice::<Ingredients>(&text).unwrap_or_default(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !out.exists() => return Ok(false),
        Err(source) => return Err(Error::Read { what: "the inputs of a stage", path, source }),
    };
    let names: BTreeSet<&String> = recorded.keys().chain(ingredients.keys()).collect();
    let differing: Vec<String> =
        names.into_iter().filter(|name| recorded.get(*name) != ingredients.get(*name)).cloned().collect();
    if !differing.is_empty() {
        return Err(Error::OtherFiles { stage: out.to_owned(), differing });
    }
    notice!("{stage}: already done, in {}", out.display());
    Ok(true)
}

fn named(what: &str, files: Checksums) -> Ingredients {
    files.into_iter().map(|(name, sum)| (format!("{what} {name}"), sum)).collect()
}

/// Converts a path for the run file, which services read from another folder.
pub(super) fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    let path = std::path::absolute(&path).map_err(|source| Error::Read { what: "the path", path, source })?;
    podium_config::require_text(&path)?;
    Ok(path)
}

/// Returns the arguments that make the learner start from random weights in the shape of the
/// embedded policy.
pub(super) fn random_embedded(run: &RunFile, folder: &RunFolder) -> Result<Vec<OsString>, Error> {
    if run.data.dir.is_some() {
        return Err(Error::NoStart);
    }
    let config = folder.path().join("start-config.json");
    durable::write(&config, embedded::POLICY_CONFIG.as_bytes())?;
    let seed = run.sft.init_seed.unwrap_or(run.run.seed);
    Ok(vec!["--model-config".into(), config.into(), "--init-seed".into(), seed.to_string().into()])
}
