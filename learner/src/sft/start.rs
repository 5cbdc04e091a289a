//! The starting point of fine-tuning: weights of a folder or of a seed, and the matching tokenizer.

use std::fs;
use std::path::{Path, PathBuf};

use podium_config::RunFile;
use podium_files::durable;
use podium_model::{Config, Policy};
use podium_recsys::synthetic;
use podium_tokenizer::word_level;
use tch::Device;

use crate::load;
use crate::lora;

/// The reasons why there is no initial policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a folder nor a configuration is given.
    #[error(
        "there is no policy to start from: expected --model DIR (or model.path in the run file), or --init-seed S with \
         --model-config FILE"
    )]
    Nothing,
    /// A configuration alone has no tokenizer, and only the embedded data set has its own.
    #[error(
        "--model-config alone provides no tokenizer for the data in {}: expected --model DIR with a tokenizer.json", data.display()
    )]
    NoTokenizer {
        /// The data set's folder.
        data: PathBuf,
    },
    /// The configuration cannot be read or used.
    #[error(transparent)]
    Config(#[from] podium_model::config::Error),
    /// The configuration is invalid.
    #[error("cannot create a policy with random weights")]
    Field(#[from] podium_model::FieldError),
    /// The device cannot compute in the number type of the run file.
    #[error(transparent)]
    Device(#[from] podium_model::device::Error),
    /// The weights cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] podium_model::checkpoint::Error),
    /// The embedded data set has no words.
    #[error(transparent)]
    World(#[from] synthetic::Error),
    /// The tokenizer's files cannot be copied.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The adapter of the run file cannot be created.
    #[error(transparent)]
    Lora(#[from] lora::Error),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The tokenizer has more tokens than the policy.
    #[error("the policy's vocabulary is {vocab_size}: expected at least the tokenizer's {tokens}")]
    Vocabulary {
        /// Vocabulary size of the configuration.
        vocab_size: i64,
        /// Number of tokens of the tokenizer.
        tokens: usize,
    },
}

/// The starting point of fine-tuning, by the command's flags.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Folder with configuration, tokenizer and, without `init_seed`, weights. Default: the run file's `model.path`.
    pub model: Option<PathBuf>,
    /// Configuration of a policy with random weights, if it is not the folder's.
    pub config: Option<PathBuf>,
    /// Seed of random weights.
    pub init_seed: Option<u64>,
}

/// Source of the weights.
#[derive(Debug)]
pub(super) enum Weights {
    Folder(PathBuf),
    Random { config: Config, seed: u64 },
}

impl Start {
    /// The policy's folder, if there is one.
    pub(super) fn folder<'a>(&'a self, file: &'a RunFile) -> Option<&'a Path> {
        self.model.as_deref().or(file.model.path.as_deref())
    }

    /// Resolves the flags and the run file.
    pub(super) fn weights(&self, file: &RunFile) -> Result<Weights, Error> {
        match (self.init_seed, &self.config, self.folder(file)) {
            (Some(seed), Some(path), _) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| durable::Error::Read { path: path.clone(), source })?;
                Ok(Weights::Random { config: Config::parse(&text, path)?, seed })
            }
            (Some(seed), None, Some(folder)) => Ok(Weights::Random { config: Config::load(folder)?, seed }),
            (None, None, Some(folder)) => Ok(Weights::Folder(folder.to_owned())),
            _ => Err(Error::Nothing),
        }
    }

    /// Copies the tokenizer's files into `out`: those of the folder, or the embedded data set's own.
    pub(super) fn write_tokenizer(&self, file: &RunFile, out: &Path) -> Result<(), Error> {
        let Some(folder) = self.folder(file) else {
            return match &file.data.dir {
                Some(data) => Err(Error::NoTokenizer { data: data.clone() }),
                None => Ok(word_level::write(word_level::tokens(synthetic::words(&file.world)?), out)?),
            };
        };
        Ok(podium_tokenizer::copy_files(folder, out)?)
    }
}

impl Weights {
    /// Loads the policy with the adapter of the run file, checked against the tokenizer's number of tokens.
    pub(super) fn policy(self, file: &RunFile, tokens: usize, device: Device) -> Result<Policy, Error> {
        let options = load::options(device, &file.model)?;
        let policy = match self {
            Self::Folder(folder) => Policy::load(&folder, options)?,
            Self::Random { config, seed } => Policy::random(&config, seed, options)?,
        };
        let vocab_size = policy.config().vocab_size;
        if (vocab_size as usize) < tokens {
            return Err(Error::Vocabulary { vocab_size, tokens });
        }
        let policy = match &file.lora.adapter {
            Some(adapter) => policy.with_adapter(adapter)?,
            None => policy,
        };
        Ok(lora::prepare(policy, file)?)
    }
}
