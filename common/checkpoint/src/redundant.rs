//! Redundant tensors of some checkpoints, which follow from others or from the configuration: compared, then ignored.

use half::{bf16, f16};

use crate::config::Config;
use crate::header::Dtype;
use crate::parameters::{EMBEDDING, HEAD};
use crate::{Error, TensorView};

/// Suffix of the names of stored frequencies of the rotary embedding.
const FREQUENCIES: &str = ".rotary_emb.inv_freq";
/// Stored frequencies may have been rounded to bfloat16 or float16, in which the smallest are multiples of 6e-8.
const RELATIVE: f32 = 0.01;
const ABSOLUTE: f32 = 1e-7;

const TIED: &str = "tie_word_embeddings is true, so it must equal model.embed_tokens.weight in type and values; \
                    set tie_word_embeddings to false to use it, or remove the tensor";
const ROTARY: &str =
    "expected the frequencies of rope_theta and the rotary scaling; correct these, or remove the tensor";

/// Whether a tensor of this name is redundant in a model of this configuration.
pub(crate) fn is_redundant(config: &Config, tensor: &str) -> bool {
    (config.tie_word_embeddings && tensor == HEAD) || tensor.ends_with(FREQUENCIES)
}

/// Returns the contradiction between a redundant tensor and the configuration, if any. `parameter` reads one of the
/// model's own.
pub(crate) fn contradiction<'a>(
    config: &Config,
    tensor: &str,
    view: &TensorView<'_>,
    parameter: impl FnOnce(&str) -> Result<TensorView<'a>, Error>,
) -> Result<Option<&'static str>, Error> {
    if tensor == HEAD {
        let embedding = parameter(EMBEDDING)?;
        let same = view.shape() == embedding.shape()
            && view.dtype() == embedding.dtype()
            && view.bytes() == embedding.bytes();
        return Ok((!same).then_some(TIED));
    }
    let stored = numbers(view);
    let half = config.head_dim / 2;
    let period = |index: i64| config.rope.theta.powf(index as f64 / half as f64) as f32;
    let periods: Vec<f32> = (0..half).map(period).collect();
    let near = |frequencies: &[f32]| {
        frequencies.len() == stored.len()
            && frequencies
                .iter()
                .zip(&stored)
                .all(|(frequency, stored)| (frequency - stored).abs() <= RELATIVE * frequency + ABSOLUTE)
    };
    // Old versions of Transformers scaled positions and stored unscaled frequencies.
    let plain: Vec<f32> = periods.iter().map(|period| 1.0 / period).collect();
    Ok((!near(&config.rope.frequencies(&periods).0) && !near(&plain)).then_some(ROTARY))
}

fn numbers(view: &TensorView<'_>) -> Vec<f32> {
    let bytes = view.bytes();
    let halves = || bytes.as_chunks().0.iter().map(|number| u16::from_le_bytes(*number));
    match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|number| f32::from_le_bytes(*number)).collect(),
        Dtype::BF16 => halves().map(|bits| bf16::from_bits(bits).to_f32()).collect(),
        Dtype::F16 => halves().map(|bits| f16::from_bits(bits).to_f32()).collect(),
    }
}
