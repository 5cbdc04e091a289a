//! Selects the trainable parameters of a policy: all weights, an existing adapter, or a new one.

use podium_checkpoint::FieldError;
use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_config::{Lora, RunFile};
use podium_model::{AdapterDropout, Policy};

/// The reasons why the run file's adapter cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The adapter does not fit the model.
    #[error("cannot create the adapter that [lora] of the run file describes")]
    Adapter(#[from] FieldError),
    /// The model's folder has an adapter that the run file does not name.
    #[error(
        "the model's folder holds an adapter as well: expected lora.adapter to name it, or a model that it is merged into \
         (podium-learner merge)"
    )]
    Unexpected,
    /// All weights would be trained, which a worker of the process uses.
    #[error(
        "all weights would be trained, but launch.colocate = \"process\" shares them with the worker: train an adapter \
         (lora.rank), or set launch.colocate = \"share\""
    )]
    SharedWeights,
}

/// Adds the adapter of the run file's `[lora]` to the policy. A policy that continues with an adapter already has
/// one.
pub fn prepare(policy: Policy, file: &RunFile) -> Result<Policy, Error> {
    let Lora { rank, alpha, dropout, rslora, targets, adapter } = &file.lora;
    match (policy.adapter(), adapter) {
        (Some(_), Some(_)) => Ok(policy),
        (Some(_), None) => Err(Error::Unexpected),
        (None, _) if *rank == 0 => Ok(policy),
        (None, _) => {
            let config = AdapterConfig {
                rank: i64::from(*rank),
                alpha: *alpha,
                dropout: *dropout,
                rslora: *rslora,
                targets: Targets::names(targets),
                base_model: None,
            };
            Ok(policy.with_new_adapter(config, file.run.seed)?)
        }
    }
}

/// The adapter's dropout in the optimizer's step `step`.
pub const fn dropout(file: &RunFile, step: u64) -> AdapterDropout {
    AdapterDropout { share: file.lora.dropout, seed: file.run.seed.rotate_left(32) ^ step }
}

/// The base model that an adapter's configuration names: the run file's `model.path`.
pub fn base_model(file: &RunFile) -> Option<String> {
    file.model.path.as_ref().map(|path| path.display().to_string())
}
