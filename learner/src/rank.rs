//! State of a learner rank on its device thread: the policy in training, its checkpoints, its connection to the rank
//! group.
//!
//! Only rank 0 writes checkpoints. At every rendezvous it broadcasts its state, so that all ranks start from the same
//! bits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::{PolicyVersion, Step};
use podium_model::{LoadOptions, Policy, device};
use tch::Device;

use crate::batch::Share;
use crate::checkpoint::{self, Checkpoints};
use crate::collective::{self, Collective};
use crate::lora;
use crate::update::{self, Metrics, Unusable, Updater};

/// The failures of a rank.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is unavailable.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The policy cannot be read or written.
    #[error(transparent)]
    Policy(#[from] podium_model::checkpoint::Error),
    /// The adapter of the run file cannot be created.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A checkpoint cannot be written or used.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The rank group is broken.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// A step was not applied.
    #[error(transparent)]
    Update(update::Error),
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
}

impl Error {
    /// Whether a new rendezvous resolves the error.
    pub const fn is_collective(&self) -> bool {
        matches!(self, Self::Collective(_))
    }
}

impl From<update::Error> for Error {
    fn from(error: update::Error) -> Self {
        match error {
            update::Error::Collective(error) => Self::Collective(error),
            error => Self::Update(error),
        }
    }
}

/// A rank's state. It stays on the thread that built it.
pub struct Rank {
    updater: Updater,
    collective: Box<dyn Collective>,
    /// On rank 0.
    checkpoints: Option<Checkpoints>,
    /// Metrics of the previous step, if there was one.
    metrics: Option<Metrics>,
    /// Folder of policy version 0.
    start: PathBuf,
    file: RunFile,
    device: Device,
}

/// Result of recomputing a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remade {
    /// The version is saved.
    Saved,
    /// The steps since the newest checkpoint must be repeated.
    AfterSteps,
    /// No checkpoint with stored groups leads to the version.
    Impossible,
}

/// Position at which training continues.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The next step.
    pub next_step: Step,
    /// Metrics of the previous step; on rank 0, and if there was one.
    pub metrics: Option<Metrics>,
}

impl Rank {
    /// Loads policy version 0 from its folder. `checkpoints`: rank 0's folder for checkpoints.
    pub fn build(
        file: &RunFile,
        start: &Path,
        checkpoints: Option<&Path>,
        device: &str,
    ) -> Result<Self, Error> {
        let device = device::parse(device)?;
        device::set_threads(file.learner.threads as usize)?;
        let open = |folder| Checkpoints::open(folder, &file.hash(), file.run.seed);
        Ok(Self {
            updater: from_start(start, file, device)?,
            collective: Box::new(collective::Alone),
            checkpoints: checkpoints.map(open).transpose()?,
            metrics: None,
            start: start.to_owned(),
            file: file.clone(),
            device,
        })
    }

    /// The device.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// Disconnects from the rank group, so that no other rank waits for this one, and returns the step that its
    /// newest checkpoint continues with, or 0. Rank 0 first writes a checkpoint of steps since the newest one, so
    /// that none is repeated.
    pub fn shut_down(&mut self) -> Result<Step, Error> {
        self.collective = Box::new(collective::Alone);
        self.write_checkpoint()?;
        let newest = self.checkpoints.as_ref().map(Checkpoints::latest).transpose()?.flatten();
        Ok(newest.map_or(Step(0), |checkpoint| checkpoint.next_step))
    }

    /// Disconnects from the rank group without a checkpoint, so that the steps since the newest one are repeated.
    pub fn roll_back(&mut self) -> Result<Step, Error> {
        self.metrics = None;
        self.shut_down()
    }

    /// Removes the checkpoints that build upon a dropped policy version.
    pub fn forget(&mut self, dropped: Vec<u64>) -> Result<(), Error> {
        Ok(self.checkpoints.as_mut().map_or(Ok(()), |checkpoints| checkpoints.forget(dropped))?)
    }

    /// Writes an earlier version into `folder`, if it is available without repeating steps. The groups of
    /// `first_step` and later steps are stored, so that those steps can be repeated.
    pub fn save_version(
        &mut self,
        version: PolicyVersion,
        first_step: Step,
        folder: &Path,
    ) -> Result<Remade, Error> {
        let now = self.updater.next_step();
        if version.0 == now.0 {
            self.save_policy(folder)?;
            return Ok(Remade::Saved);
        }
        let (Some(checkpoints), Some(metrics)) = (&self.checkpoints, &self.metrics) else {
            return Ok(Remade::Impossible);
        };
        let Some(older) = checkpoints.at(Step(version.0))? else {
            let newest = checkpoints.latest()?.map_or(Step(0), |newest| newest.next_step);
            let leads_there = first_step <= newest && newest.0 < version.0;
            return Ok(if leads_there { Remade::AfterSteps } else { Remade::Impossible });
        };
        // The present state is restored afterwards.
        checkpoints.keep(now, metrics, &self.updater.state())?;
        let present = checkpoints.at(now)?.ok_or(checkpoint::Error::Unreadable { step: now.0 })?;
        older.restore(self.updater.state())?;
        self.updater.restored(older.next_step);
        let saved = self.save_policy(folder);
        present.restore(self.updater.state())?;
        self.updater.restored(now);
        checkpoints.prune()?;
        saved.map(|()| Remade::Saved)
    }

    /// Joins the rank group: every rank receives the state of rank 0's newest checkpoint, or of version 0.
    pub fn enter(&mut self, collective: Box<dyn Collective>) -> Result<Position, Error> {
        self.collective = collective;
        let mut position = Position { next_step: Step(0), metrics: None };
        if let Some(checkpoints) = &self.checkpoints {
            if let Some(checkpoint) = checkpoints.latest()? {
                checkpoint.restore(self.updater.state())?;
                self.updater.restored(checkpoint.next_step);
                position = Position { next_step: checkpoint.next_step, metrics: Some(checkpoint.metrics) };
                self.metrics.clone_from(&position.metrics);
            } else if !self.updater.is_at_start() {
                self.updater = from_start(&self.start, &self.file, self.device)?;
                self.metrics = None;
            }
        }
        if self.collective.world_size() > 1 {
            let steps = self.collective.all_gather(&[position.next_step.0 as f64])?;
            position.next_step = Step(steps[0][0] as u64);
            for (_, tensor) in self.updater.state() {
                self.collective.broadcast(&mut tensor.view(-1))?;
            }
            self.updater.restored(position.next_step);
        }
        Ok(position)
    }

    /// Agrees with the other ranks that the step's groups can be trained on. `unusable`: groups of this rank that
    /// were removed from its share.
    pub fn check(&mut self, share: &Share, mut unusable: Vec<Unusable>) -> Result<(), Error> {
        unusable.extend(self.updater.unusable(share));
        Ok(update::agree(share.step, unusable, self.collective.as_mut())?)
    }

    /// Waits for the other ranks.
    pub fn meet(&mut self) -> Result<(), Error> {
        Ok(self.collective.barrier()?)
    }

    /// Takes a step with this rank's share of the groups.
    pub fn step(&mut self, share: &Share) -> Result<Metrics, Error> {
        let metrics = update::of_step(&self.updater.update(share, self.collective.as_mut())?);
        self.metrics = Some(metrics.clone());
        Ok(metrics)
    }

    /// Writes the present policy into `folder`: its adapter, or its weights with the other files of version 0.
    pub fn save_policy(&self, folder: &Path) -> Result<(), Error> {
        save_policy(self.updater.policy(), &self.start, lora::base_model(&self.file), folder)
    }

    /// Writes a checkpoint if this is rank 0 and a step was applied. A step that failed before any change does not
    /// count; a step that failed midway leaves a state that cannot be saved.
    pub fn write_checkpoint(&self) -> Result<(), Error> {
        if let (Some(checkpoints), Some(metrics), true) =
            (&self.checkpoints, &self.metrics, self.updater.is_between_steps())
        {
            checkpoints.write(self.updater.next_step(), metrics, &self.updater.state())?;
        }
        Ok(())
    }
}

/// Writes the trained parameters of a policy into `folder`: its adapter, which names `base_model` as the base model,
/// or its weights with the other files of `start`, the folder of the initial policy.
pub(crate) fn save_policy<E>(
    policy: &Policy,
    start: &Path,
    base_model: Option<String>,
    folder: &Path,
) -> Result<(), E>
where
    E: From<podium_model::checkpoint::Error> + From<durable::Error>,
{
    policy.save_trained(folder, base_model)?;
    if policy.adapter().is_some() {
        return Ok(());
    }
    let unread = |source| durable::Error::Read { path: start.to_owned(), source };
    let tokenizer =
        podium_tokenizer::tokenizer_files(start).map_err(|error| unread(io::Error::other(error)))?;
    for entry in fs::read_dir(start).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let weights = name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json");
        let copied = weights || tokenizer.contains(&name);
        if !copied && !name.starts_with('.') && entry.path().is_file() {
            let path = folder.join(name);
            fs::copy(entry.path(), &path).map_err(|source| durable::Error::Write { path, source })?;
        }
    }
    let copied = podium_tokenizer::copy_files(start, folder);
    copied.map_err(|error| durable::Error::Write {
        path: folder.to_owned(),
        source: io::Error::other(error),
    })?;
    Ok(())
}

/// Creates the updater of a run's first step from the folder of version 0.
fn from_start(start: &Path, file: &RunFile, device: Device) -> Result<Updater, Error> {
    let options = LoadOptions::new(device, file.model.dtype.bfloat16()).for_training();
    let policy = Policy::load(start, options)?;
    Ok(Updater::new(lora::prepare(policy, file)?, file))
}

#[cfg(test)]
mod tests;
