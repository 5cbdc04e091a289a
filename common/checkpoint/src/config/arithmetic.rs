//! Keys of `config.json` that would change what a model computes and that the model code does not follow.
//!
//! Each is equal to its default, off, or refused by name. Keys that no one of the three architectures reads in
//! Transformers and that change nothing elsewhere are not checked here: they are written back unchanged.

use serde_json::Value;

use super::Family;
use crate::FieldError;
use crate::fields::{Fields, is_number, is_off};

/// Names of the activation `x · sigmoid(x)`.
const SILU: [&str; 2] = ["silu", "swish"];

/// Where a sliding window begins in a file that does not say so, as in Transformers.
const DEFAULT_MAX_WINDOW_LAYERS: i64 = 28;

/// When a key that the model code does not read changes nothing, besides where it is off.
enum Neutral {
    /// Never.
    Off,
    /// Where it is this number.
    Number(f64),
    /// Where it is a list of ones.
    Ones,
}

/// Keys that change the arithmetic of one of the three architectures in Transformers, or in models that are made of one,
/// with what is supported.
const UNREAD: [(&str, Neutral, &str); 20] = [
    ("quantization_config", Neutral::Off, "float32, bfloat16 and float16 weights"),
    // Of single layers: other numbers of heads, other windows.
    ("per_layer_config", Neutral::Off, "one shape for all layers"),
    // The name of another file of weights.
    ("transformers_weights", Neutral::Off, "model.safetensors or its index"),
    ("attention_chunk_size", Neutral::Off, "full attention"),
    ("attn_temperature_tuning", Neutral::Off, "off"),
    // In training alone, but training is what the model is loaded for.
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

/// Refuses what the model code would compute otherwise than Transformers.
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
    // Quantisation is no property of what is written.
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
        // Without a list, Transformers gives the layers from max_window_layers on a window.
        None if used && first < layers => {
            Err(FieldError::unsupported("use_sliding_window", true, "full attention"))
        }
        None => Ok(()),
    }
}
