//! Training on recorded groups (`podium-learner replay`), to inspect steps of a run or to compare them with another
//! trainer.
//!
//! Replay neither samples nor scores; a step is the same as in a run. Files are read and checked before any
//! computation.

mod groups;
mod settings;
mod summary;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use podium_files::durable::{self, Durability};
use podium_model::{Policy, checkpoint, device};
use podium_service::progress::Progress;
use tch::Device;

use crate::collective::Alone;
use crate::load;
use crate::lora;
use crate::rank;
use crate::update::{self, Metrics, Updater};
use groups::Recording;
pub use settings::Settings;

/// The reasons why groups cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is unavailable.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The groups cannot be trained on.
    #[error(transparent)]
    Groups(#[from] groups::Error),
    /// The policy or its adapter cannot be read or written.
    #[error(transparent)]
    Policy(#[from] checkpoint::Error),
    /// The adapter of the settings cannot be created.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A step was not applied.
    #[error(transparent)]
    Update(#[from] update::Error),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] durable::Error),
}

/// Options of a replay.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of the model.
    pub model: PathBuf,
    /// Folder of a PEFT adapter to continue with.
    pub adapter: Option<PathBuf>,
    /// Rows of groups, see [`podium_grpo::recorded`].
    pub groups: PathBuf,
    /// Number of groups per step, in the file's order.
    pub groups_per_step: usize,
    /// Folder for `metrics.jsonl` and the final policy.
    pub out: PathBuf,
    /// The settings, of [`Settings::load`].
    pub settings: Settings,
    /// The device.
    pub device: Device,
    /// Number of libtorch threads; default: `learner.threads` of the settings.
    pub threads: Option<usize>,
}

/// Trains on all groups; returns the metrics of the last pass and the policy's folder.
pub fn run(options: &Options) -> Result<(Metrics, PathBuf), Error> {
    let Settings { mut file, group_size, own_lengths } = options.settings.clone();
    device::set_threads(options.threads.unwrap_or(file.learner.threads as usize))?;
    let shape = groups::Shape { per_step: options.groups_per_step, group_size };
    let recording = Recording::read(&options.groups, shape, &options.model, &file.grpo)?;
    file.run.steps = recording.steps();
    // Recorded groups cannot be sampled again.
    file.learner.max_logprob_gap_nats = 0.0;
    file.model.path = Some(options.model.clone());
    if file.grpo.max_completion_length.is_none() && !own_lengths {
        file.grpo.max_completion_length = Some(recording.longest());
    }
    let load = load::options(options.device, &file.model)?;
    let mut policy = Policy::load(&options.model, load)?;
    policy = match &options.adapter {
        Some(adapter) => policy.with_adapter(adapter)?,
        None => lora::prepare(policy, &file)?,
    };
    recording.check(policy.config())?;
    let mut updater = Updater::new(policy, &file);

    durable::create_folder(&options.out)?;
    let path = options.out.join("metrics.jsonl");
    let failed = |source| durable::Error::Write { path: path.clone(), source };
    let mut rows = File::create(&path).map_err(failed)?;
    let mut progress = Progress::new("replay", recording.steps());
    let (mut tokens, mut pass, mut last) = (0, 0, Metrics::new());
    for step in 0..recording.steps() {
        let share = recording.share(step);
        let summary = summary::of(&share, &mut tokens);
        if summary.get("reward").is_some_and(|reward| reward.is_nan()) {
            tracing::warn!("no completion of step {} has a reward: the step has no gradient", step + 1);
        }
        for metrics in updater.update(&share, &mut Alone)? {
            pass += 1;
            last = summary::row(&summary, metrics);
            rows.write_all(summary::line(pass, &last).as_bytes()).map_err(failed)?;
        }
        progress.show(step + 1, || format!("loss {:.4}", last.get("loss").copied().unwrap_or_default()));
    }
    progress.finish();
    rows.sync_all().map_err(failed)?;
    Ok((last, save(updater.policy(), options)?))
}

/// Writes the policy: an adapter, or a whole model with its other files.
fn save(policy: &Policy, options: &Options) -> Result<PathBuf, Error> {
    let name = if policy.adapter().is_some() { "adapter" } else { "model" };
    let folder = options.out.join(name);
    rank::save_policy::<Error>(
        policy,
        &options.model,
        Some(options.model.display().to_string()),
        &folder,
        Durability::Durable,
    )?;
    Ok(folder)
}

#[cfg(test)]
mod tests;
