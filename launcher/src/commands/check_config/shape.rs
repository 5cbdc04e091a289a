//! The model's shape and the lengths of a run, which memory and time are computed from.

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_checkpoint::{Config, FieldError, config};
use podium_config::RunFile;
use podium_memory::Number;

use crate::embedded;

/// The reasons why memory and time cannot be computed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the model's shape is unknown: expected config.json in the folder of model.path")]
    Model(#[source] config::Error),
    #[error(
        "the shape of the adapter is unknown: expected adapter_config.json in the folder of lora.adapter"
    )]
    Adapter(#[source] config::Error),
    #[error("the adapter does not fit the model")]
    Fit(#[from] FieldError),
    #[error(
        "the length of prompts is unknown: set prompt.max_tokens in the run file, or pass --prompt-tokens N"
    )]
    Prompt,
    #[error(
        "prompts of {prompt} tokens and completions of {completion} (rollout.max_new_tokens) are longer than the model's \
         {limit} positions (max_position_embeddings)"
    )]
    Length { prompt: u64, completion: u64, limit: i64 },
}

/// The model's shape, the adapter that is trained, and the length of prompts.
pub(super) struct Shape {
    pub(super) config: Config,
    pub(super) adapter: Option<AdapterConfig>,
    pub(super) prompt_tokens: u64,
}

impl Shape {
    /// Reads the shape of a run's model. `prompt_tokens` and `completion_tokens`: lengths instead of the run file's.
    pub(super) fn of(
        run: &RunFile,
        prompt_tokens: Option<u64>,
        completion_tokens: Option<u64>,
    ) -> Result<Self, Error> {
        let of_file = run.prompt.max_tokens.map(|tokens| tokens as u64);
        let prompt_tokens = prompt_tokens.or(of_file).ok_or(Error::Prompt)?;
        let config = match &run.model.path {
            Some(folder) => Config::load(folder).map_err(Error::Model)?,
            None => Config::parse(embedded::POLICY_CONFIG, "the embedded config.json".as_ref())
                .map_err(Error::Model)?,
        };
        let completion = completion_tokens.unwrap_or(u64::from(run.rollout.max_new_tokens));
        let limit = config.max_position_embeddings;
        if prompt_tokens.saturating_add(completion) > limit as u64 {
            return Err(Error::Length { prompt: prompt_tokens, completion, limit });
        }
        Ok(Self { config, adapter: adapter(run)?, prompt_tokens })
    }
}

/// Type of weights on the devices `device`, by the run file's names of devices.
pub(super) fn number(run: &RunFile, device: &str) -> Number {
    if run.model.dtype.bfloat16().unwrap_or(device != "cpu") { Number::Bfloat16 } else { Number::Float32 }
}

fn adapter(run: &RunFile) -> Result<Option<AdapterConfig>, Error> {
    let lora = &run.lora;
    if let Some(folder) = &lora.adapter {
        let config = AdapterConfig::load(folder).map_err(Error::Adapter)?;
        return Ok(Some(AdapterConfig { dropout: lora.dropout, ..config }));
    }
    Ok((lora.rank > 0).then(|| AdapterConfig {
        rank: i64::from(lora.rank),
        alpha: lora.alpha,
        dropout: lora.dropout,
        rslora: lora.rslora,
        targets: Targets::names(&lora.targets),
        base_model: None,
    }))
}
