//! State of a learner rank on its device thread: the policy in training, its checkpoints, its connection to the rank
//! group.
//!
//! Only rank 0 writes checkpoints. At every rendezvous it broadcasts its state, so that all ranks start from the same
//! bits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use podium_config::RunFile;
use podium_files::durable::{self, Durability};
use podium_grpo::{PolicyVersion, Step};
use podium_model::{Policy, SharedDevice, device};
use tch::{Device, Tensor};

use crate::batch::Share;
use crate::checkpoint::{self, Checkpoints};
use crate::collective::{self, Collective};
use crate::load;
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
    /// The state that the ranks gathered for a checkpoint, and the step that it continues with.
    gathered: Option<(Step, Vec<(String, Tensor)>)>,
    /// Record of the sizes of micro-batches.
    micro_batches: PathBuf,
    /// Folder of policy version 0.
    start: PathBuf,
    file: RunFile,
    device: Device,
    /// The device, if a worker of this process uses it too.
    shared: Option<SharedDevice>,
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
    /// Loads policy version 0 from its folder. `state`: the folder of this rank's files, with rank 0's checkpoints.
    /// `shared`: the device, if a worker of this process uses it too.
    pub fn build(
        file: &RunFile,
        start: &Path,
        state: &Path,
        rank: u32,
        device: &str,
        shared: Option<SharedDevice>,
    ) -> Result<Self, Error> {
        let device = device::parse(device)?;
        device::set_threads(file.learner.threads as usize)?;
        let open = || Checkpoints::open(&state.join("checkpoints"), &file.hash(), file.run.seed);
        let micro_batches = state.join("micro-batches.json");
        Ok(Self {
            updater: from_start(start, file, &micro_batches, device, shared.as_ref())?,
            collective: Box::new(collective::Alone),
            checkpoints: (rank == 0).then(open).transpose()?,
            micro_batches,
            metrics: None,
            gathered: None,
            start: start.to_owned(),
            file: file.clone(),
            device,
            shared,
        })
    }

    /// The device.
    pub const fn device(&self) -> Device {
        self.device
    }

    /// The device, if a worker of this process uses it too.
    pub fn shared(&self) -> Option<SharedDevice> {
        self.shared.clone()
    }

    /// Disconnects from the rank group, so that no other rank waits for this one, and returns the step that its
    /// newest checkpoint continues with, or 0. Rank 0 first writes a checkpoint of steps since the newest one, so
    /// that none is repeated, unless other ranks hold a part of the state.
    pub fn shut_down(&mut self) -> Result<Step, Error> {
        if self.collective.world_size() == 1 {
            self.gather_checkpoint()?;
        }
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
        let (Some(checkpoints), Some(_)) = (&self.checkpoints, &self.metrics) else {
            return Ok(Remade::Impossible);
        };
        let Some(older) = checkpoints.at(Step(version.0))? else {
            let newest = checkpoints.latest()?.map_or(Step(0), |newest| newest.next_step);
            let leads_there = first_step <= newest && newest.0 < version.0;
            return Ok(if leads_there { Remade::AfterSteps } else { Remade::Impossible });
        };
        let saved = older.load(self.updater.shapes())?;
        let base_model = lora::base_model(&self.file);
        let save = |policy: &Policy| {
            save_policy::<Error>(policy, &self.start, base_model, folder, Durability::Cached)
        };
        self.updater.with_weights(&saved, save).map(|()| Remade::Saved)
    }

    /// Joins the rank group: every rank receives the state of rank 0's newest checkpoint, or of version 0.
    pub fn enter(&mut self, collective: Box<dyn Collective>) -> Result<Position, Error> {
        self.collective = collective;
        self.gathered = None;
        let mut position = Position { next_step: Step(0), metrics: None };
        let mut saved = None;
        if let Some(checkpoints) = &self.checkpoints {
            if let Some(checkpoint) = checkpoints.latest()? {
                saved = Some(checkpoint.load(self.updater.shapes())?);
                position = Position { next_step: checkpoint.next_step, metrics: Some(checkpoint.metrics) };
                self.metrics.clone_from(&position.metrics);
            } else if !self.updater.is_at_start() {
                let (start, micro_batches, shared) = (&self.start, &self.micro_batches, self.shared.as_ref());
                self.updater = from_start(start, &self.file, micro_batches, self.device, shared)?;
                self.metrics = None;
            }
        }
        if self.collective.world_size() > 1 {
            let steps = self.collective.all_gather(&[position.next_step.0 as f64])?;
            position.next_step = Step(steps[0][0] as u64);
        }
        self.updater.join(position.next_step, saved.as_ref(), self.collective.as_mut())?;
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

    /// Returns the floating point operations of the model in the last step of this rank.
    pub const fn flops(&self) -> u64 {
        self.updater.flops()
    }

    /// Writes the present policy into `folder`: its adapter, or its weights with the other files of version 0. Syncs
    /// nothing: a restarted process writes the folder again.
    pub fn save_policy(&self, folder: &Path) -> Result<(), Error> {
        let base_model = lora::base_model(&self.file);
        save_policy(self.updater.policy(), &self.start, base_model, folder, Durability::Cached)
    }

    /// Returns whether any rank is to stop, so that all ranks write a checkpoint together. Every rank must call it.
    pub fn agree_to_stop(&mut self, stop: bool) -> Result<bool, Error> {
        if !self.updater.is_sharded() {
            return Ok(stop);
        }
        let ranks = self.collective.all_gather(&[f64::from(stop)])?;
        Ok(ranks.iter().any(|rank| rank[0] > 0.0))
    }

    /// Gathers the state of a sharded optimizer for [`Self::write_checkpoint`]. Every rank must call it.
    pub fn gather_checkpoint(&mut self) -> Result<(), Error> {
        if self.updater.is_sharded() && self.updater.is_between_steps() {
            let state = self.updater.state(self.collective.as_mut())?;
            self.gathered = Some((self.updater.next_step(), state));
        }
        Ok(())
    }

    /// Writes a checkpoint if this is rank 0 and a step was applied. A step that failed before any change does not
    /// count; a step that failed midway leaves a state that cannot be saved. The state of a sharded optimizer must have
    /// been gathered.
    pub fn write_checkpoint(&mut self) -> Result<(), Error> {
        let (Some(checkpoints), Some(metrics), true) =
            (&self.checkpoints, &self.metrics, self.updater.is_between_steps())
        else {
            return Ok(());
        };
        let now = self.updater.next_step();
        match &self.gathered {
            Some((step, state)) if *step == now => checkpoints.write(now, metrics, state)?,
            _ if self.updater.is_sharded() => {}
            _ => checkpoints.write(now, metrics, &self.updater.state(&mut collective::Alone)?)?,
        }
        // Three times the size of the weights in float32.
        self.gathered = None;
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
    durability: Durability,
) -> Result<(), E>
where
    E: From<podium_model::checkpoint::Error> + From<durable::Error>,
{
    // A coordinator on this host may have linked the files, which must not be written to.
    durable::remove_folder(folder)?;
    policy.save_trained(folder, base_model, durability)?;
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
fn from_start(
    start: &Path,
    file: &RunFile,
    micro_batches: &Path,
    device: Device,
    shared: Option<&SharedDevice>,
) -> Result<Updater, Error> {
    let options = load::options(device, &file.model)?;
    let policy = match shared {
        Some(shared) => Policy::load_shared(start, options, shared)?,
        None => Policy::load(start, options)?,
    };
    let policy = lora::prepare(policy, file)?;
    if shared.is_some() && policy.adapter().is_none() {
        return Err(lora::Error::SharedWeights.into());
    }
    Ok(Updater::new(policy, file).record_micro_batches(micro_batches)?)
}

#[cfg(test)]
mod tests;
