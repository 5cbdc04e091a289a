//! Parameters of the rotary position embedding and their scaling for long contexts, as `config.json` gives them.
//!
//! Defaults follow Transformers' `modeling_rope_utils` (default, linear, llama3, yarn).

use serde_json::{Map, Value, json};

use crate::FieldError;

/// Parameters of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// How frequencies are changed for contexts longer than those trained on.
    pub scaling: Option<Scaling>,
}

/// How frequencies are changed for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are stretched, short ones kept, those between blended.
    Llama3 {
        /// Stretch of the long wavelengths.
        factor: f64,
        /// Wavelengths above `original_positions / low_freq_factor` count as long.
        low_freq_factor: f64,
        /// Wavelengths below `original_positions / high_freq_factor` count as short.
        high_freq_factor: f64,
        /// Context of the original training, in tokens.
        original_positions: i64,
    },
    /// `YaRN` (Peng et al. 2023, arXiv:2309.00071).
    Yarn {
        /// Stretch of the context.
        factor: f64,
        /// Rotations over the original context above which a dimension is kept.
        beta_fast: f64,
        /// Rotations below which it is fully interpolated.
        beta_slow: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Context of the original training, in tokens.
        original_positions: i64,
    },
}

impl Rope {
    /// From the keys of `config.json`: `rope_theta` and `rope_scaling`, or `rope_parameters` which holds both.
    pub(crate) fn from_config(
        theta: Option<f64>,
        parameters: Option<&Map<String, Value>>,
        max_positions: i64,
    ) -> Result<Self, FieldError> {
        let inner_theta = parameters.and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        let theta = inner_theta.or(theta).unwrap_or(10_000.0);
        let scaling = match parameters {
            Some(map) => Scaling::from_map(map, max_positions)?,
            None => None,
        };
        Ok(Self { theta, scaling })
    }

    /// Checks that all numbers are usable.
    pub(crate) fn check(&self) -> Result<(), FieldError> {
        let numbers = match self.scaling {
            None => vec![("rope_theta", self.theta)],
            Some(Scaling::Linear { factor }) => vec![("rope_theta", self.theta), ("factor", factor)],
            Some(Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions }) => vec![
                ("rope_theta", self.theta),
                ("factor", factor),
                ("low_freq_factor", low_freq_factor),
                ("high_freq_factor minus low_freq_factor", high_freq_factor - low_freq_factor),
                ("original_max_position_embeddings", original_positions as f64),
            ],
            Some(Scaling::Yarn { factor, beta_fast, beta_slow, attention_factor, original_positions }) => {
                vec![
                    ("rope_theta", self.theta),
                    ("factor", factor),
                    ("beta_fast", beta_fast),
                    ("beta_slow", beta_slow),
                    ("attention_factor", attention_factor),
                    ("original_max_position_embeddings", original_positions as f64),
                ]
            }
        };
        match numbers.into_iter().find(|(_, value)| !(*value > 0.0 && value.is_finite())) {
            None => Ok(()),
            Some((what, value)) => {
                Err(FieldError::invalid(what, value, "a positive number in the rotary embedding"))
            }
        }
    }
}

impl Scaling {
    fn from_map(map: &Map<String, Value>, max_positions: i64) -> Result<Option<Self>, FieldError> {
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let required = |what: &'static str| {
            number(what).ok_or_else(|| {
                let found = map.get(what).map_or("missing".to_owned(), Value::to_string);
                FieldError::invalid(what, found, "a number in the rotary embedding's parameters")
            })
        };
        let original = map.get("original_max_position_embeddings").and_then(Value::as_i64);
        let rope_type = map.get("rope_type").or_else(|| map.get("type")).and_then(Value::as_str);
        Ok(match rope_type.unwrap_or("default") {
            "default" => None,
            "linear" => Some(Self::Linear { factor: required("factor")? }),
            "llama3" => Some(Self::Llama3 {
                factor: required("factor")?,
                low_freq_factor: required("low_freq_factor")?,
                high_freq_factor: required("high_freq_factor")?,
                original_positions: original.unwrap_or(max_positions),
            }),
            "yarn" => {
                let original_positions = original.unwrap_or(max_positions);
                let factor = number("factor").unwrap_or(max_positions as f64 / original_positions as f64);
                let magnitude = |scale: f64| if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 };
                let attention_factor = match (number("mscale"), number("mscale_all_dim")) {
                    (Some(own), Some(all)) if own != 0.0 && all != 0.0 => magnitude(own) / magnitude(all),
                    _ => magnitude(1.0),
                };
                Some(Self::Yarn {
                    factor,
                    beta_fast: number("beta_fast").unwrap_or(32.0),
                    beta_slow: number("beta_slow").unwrap_or(1.0),
                    attention_factor: number("attention_factor").unwrap_or(attention_factor),
                    original_positions,
                })
            }
            other => {
                let supported = "default, linear, llama3, yarn";
                return Err(FieldError::unsupported("rope_type", other, supported));
            }
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        match *self {
            Self::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_positions,
            }),
            Self::Yarn { factor, beta_fast, beta_slow, attention_factor, original_positions } => json!({
                "rope_type": "yarn",
                "factor": factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": attention_factor,
                "original_max_position_embeddings": original_positions,
            }),
        }
    }
}
