//! Keys of `config.json` that would change the computation of a model and that the model code does not support.
//!
//! Each must have its default, be off, or is refused by name. Keys that none of the three architectures reads in
//! Transformers and that are harmless elsewhere are not checked here: they are written back unchanged.

use serde_json::Value;

use super::family::Family;
use crate::FieldError;
use crate::fields::{Fields, is_number, is_off};

/// Names of the activation `x · sigmoid(x)`.
const SILU: [&str; 2] = ["silu", "swish"];

/// The default first layer of a sliding window, as in Transformers.
const DEFAULT_MAX_WINDOW_LAYERS: i64 = 28;

/// Values of an unread key that change nothing, besides being off.
enum Neutral {
    /// No other value.
    Off,
    /// This number.
    Number(f64),
    /// A list of ones.
    Ones,
}

/// Keys that change the arithmetic of one of the three architectures in Transformers, or of models derived from one,
/// with the supported values.
const UNREAD: [(&str, Neutral, &str); 20] = [
    ("quantization_config", Neutral::Off, "float32, bfloat16 and float16 weights"),
    // For single layers: other numbers of heads, other windows.
    ("per_layer_config", Neutral::Off, "one shape for all layers"),
    // The name of another file of weights.
    ("transformers_weights", Neutral::Off, "model.safetensors or its index"),
    ("attention_chunk_size", Neutral::Off, "full attention"),
    ("attn_temperature_tuning", Neutral::Off, "off"),
    // Affects training only, but the model is loaded for training.
    ("attention_dropout", Neutral::Number(0.0), "0; set it to 0 to train without dropout in the attention"),
    ("hidden_dropout", Neutral::Number(0.0), "0"),
    ("resid_pdrop", Neutral::Number(0.0), "0"),
    ("embd_pdrop", Neutral::Number(0.0), "0"),
    ("clip_qkv", Neutral::Off, "off"),
    ("query_pre_attn_scalar", Neutral::Off, "off"),
    ("attn_logit_softcapping", Neutral::Off, "off"),
    ("final_logit_softcapping", Neutral::Off, "off"),
    ("logit_scale", Neutral::Number(1.0), "1"),
    ("logits_scaling", Neutral::Number(1.0), "1"),
    ("attention_multiplier", Neutral::Off, "off"),
    ("embedding_multiplier", Neutral::Number(1.0), "1"),
    ("residual_multiplier", Neutral::Number(1.0), "1"),
    ("no_rope_layers", Neutral::Ones, "a list of ones: rotary embedding in every layer"),
    ("no_rope_layer_interval", Neutral::Number(0.0), "0: rotary embedding in every layer"),
];

impl Neutral {
    fn holds(&self, value: &Value) -> bool {
        is_off(value)
            || match self {
                Self::Off => false,
                Self::Number(number) => is_number(value, *number),
                Self::Ones => value.as_array().is_some_and(|list| list.iter().all(|one| is_number(one, 1.0))),
            }
    }
}

/// Refuses settings for which the model code would compute other results than Transformers.
pub(super) fn refuse_unsupported(fields: &mut Fields, family: Family, layers: i64) -> Result<(), FieldError> {
    for (key, neutral, supported) in &UNREAD {
        if let Some(value) = fields.get(key).filter(|value| !neutral.holds(value)) {
            return Err(FieldError::unsupported(key, value, supported));
        }
    }
    for key in ["use_qk_norm", "qk_layernorm"] {
        if let Some(value) = fields.get(key).filter(|value| family != Family::Qwen3 && !is_off(value)) {
            return Err(FieldError::unsupported(key, value, "off, or an architecture with norms: qwen3"));
        }
    }
    if fields.get("is_causal").is_some_and(|value| *value == Value::Bool(false)) {
        return Err(FieldError::unsupported("is_causal", false, "true"));
    }
    // Quantisation does not apply to saved files.
    fields.forget("quantization_config");
    let activation: Option<String> = fields.optional("hidden_act")?;
    if let Some(other) = activation.filter(|name| !SILU.contains(&name.as_str())) {
        return Err(FieldError::unsupported("hidden_act", other, "silu"));
    }
    refuse_windows(fields, layers)
}

fn refuse_windows(fields: &mut Fields, layers: i64) -> Result<(), FieldError> {
    let layer_types: Option<Vec<String>> = fields.optional("layer_types")?;
    let used = fields.optional("use_sliding_window")?.unwrap_or(false);
    let first = fields.optional("max_window_layers")?.unwrap_or(DEFAULT_MAX_WINDOW_LAYERS);
    match layer_types {
        Some(layer_types) => {
            match layer_types.into_iter().find(|layer_type| layer_type != "full_attention") {
                Some(other) => Err(FieldError::unsupported("layer_types", other, "full_attention")),
                None => Ok(()),
            }
        }
        // Without a list, Transformers applies a window to the layers from max_window_layers on.
        None if used && first < layers => {
            Err(FieldError::unsupported("use_sliding_window", true, "full attention"))
        }
        None => Ok(()),
    }
}
