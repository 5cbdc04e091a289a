//! `podium-curator vocabulary`: prepares a small policy with one token per item, without weights.
//!
//! `podium-learner sft --model DIR --init-seed S` creates the weights.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Context;
use clap::Args;
use podium_files::durable;
use podium_service::output_line;
use podium_tokenizer::word_level;
use serde_json::{Value, json};

use crate::source;

/// Maximum number of positions; policies trained from random weights have short prompts.
const MAX_POSITIONS: u32 = 1024;

/// Writes a tokenizer with one token per item, and the configuration of a small policy for it.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    /// Output folder; created if necessary.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Hidden size of the policy.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=8192))]
    hidden_size: u32,
    /// Number of layers.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    layers: u32,
    /// Number of attention heads per layer; each has `hidden_size / heads` dimensions.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=128))]
    heads: u32,
}

/// Returns a file of weights in `folder`, whose other files then belong to a model.
fn weights(folder: &Path) -> anyhow::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    let paths: io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let paths = paths.with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(paths.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "safetensors")))
}

impl Arguments {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let Self { hidden_size, layers, heads, .. } = *self;
        // Rotary embeddings rotate pairs of a head's dimensions.
        anyhow::ensure!(
            hidden_size % (2 * heads) == 0,
            "--hidden-size is {hidden_size}: expected a multiple of twice --heads, which is {heads}"
        );
        if let Some(weights) = weights(&self.out)? {
            anyhow::bail!(
                "{} belongs to a model: expected a folder without weights, whose tokenizer and configuration may be replaced",
                weights.display()
            );
        }
        let source = self.source.load()?;
        let items = source.dataset.catalogue.items().iter().map(|item| item.id.to_string());
        let tokens = word_level::tokens(items);
        let config = self.config(tokens.len());
        let count = tokens.len();
        word_level::write(tokens, &self.out)?;
        let text = format!("{config:#}\n");
        durable::write(&self.out.join("config.json"), text.as_bytes())?;
        output_line!("{count} tokens, {layers} layers of width {hidden_size}: {}", self.out.display());
        Ok(ExitCode::SUCCESS)
    }

    /// Returns the configuration of a Qwen3 policy in Transformers' format.
    fn config(&self, tokens: usize) -> Value {
        json!({
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "vocab_size": tokens.next_multiple_of(64),
            "hidden_size": self.hidden_size,
            "intermediate_size": 2 * self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.hidden_size / self.heads,
            "hidden_act": "silu",
            "max_position_embeddings": MAX_POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": null,
            "tie_word_embeddings": true,
            "initializer_range": 0.05,
            "torch_dtype": "float32",
            "attention_bias": false,
            "bos_token_id": null,
            "eos_token_id": word_level::END_OF_TURN,
            "pad_token_id": word_level::PADDING,
        })
    }
}
