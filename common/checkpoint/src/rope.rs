//! Parameters of the rotary position embedding and their scaling for long contexts, from `config.json`.
//!
//! Defaults follow Transformers' `modeling_rope_utils` (default, linear, llama3, yarn).

use std::f64::consts::PI;

use serde_json::{Map, Value, json};

use crate::FieldError;
use crate::fields::{Fields, is_number, is_off};

/// Default base of the wavelengths, as in Transformers.
const DEFAULT_THETA: f64 = 10_000.0;
/// Key of the fraction of a head's dimensions that is rotated.
const PARTIAL: &str = "partial_rotary_factor";
/// Keys of other scaling types or other programs, which change nothing if they are 1.
const NEUTRAL_AT_ONE: [&str; 3] = ["factor", "attn_factor", "extrapolation_factor"];

/// Parameters of the rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Scaling of the frequencies for contexts longer than those trained on.
    pub scaling: Option<Scaling>,
}

/// Scaling of the frequencies for longer contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// Positions divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths are stretched, short ones unchanged, those between blended.
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
        /// Rotations over the original context above which a dimension is unchanged.
        beta_fast: f64,
        /// Rotations below which it is fully interpolated.
        beta_slow: f64,
        /// Factor on cosines and sines.
        attention_factor: f64,
        /// Whether the bounds between which dimensions are blended are rounded outwards to whole dimensions.
        truncate: bool,
        /// Context of the original training, in tokens.
        original_positions: i64,
    },
}

impl Rope {
    /// Reads the keys of `config.json`: `rope_theta` and `rope_scaling`, or `rope_parameters` with both.
    ///
    /// A file may have both styles if they agree: Transformers 5 replaces all of `rope_parameters` by `rope_scaling`,
    /// including its `rope_theta`, which is unintended when a scaling is added to a file.
    pub(crate) fn take(fields: &mut Fields, max_positions: i64) -> Result<Self, FieldError> {
        let theta = fields.optional("rope_theta")?;
        let original = fields.optional("original_max_position_embeddings")?;
        // A model-wide fraction of each head that is rotated; each style may have its own.
        refuse_partial(fields.optional(PARTIAL)?)?;
        let mut read = |key| {
            let map: Option<Map<String, Value>> = fields.optional(key)?;
            let map = map.filter(|map| !map.is_empty());
            map.map(|map| Ok((Self::from_map(key, map.clone(), theta, original, max_positions)?, map)))
                .transpose()
        };
        let (scaling, parameters) = (read("rope_scaling")?, read("rope_parameters")?);
        match (scaling, parameters) {
            (Some((rope, map)), Some((other, parameters))) if rope != other => {
                let expected = format!(
                    "the same as rope_parameters {}: remove one of the two",
                    Value::Object(parameters)
                );
                Err(FieldError::invalid("rope_scaling", Value::Object(map), &expected))
            }
            (Some((rope, _)), _) | (None, Some((rope, _))) => Ok(rope),
            (None, None) => Ok(Self { theta: theta.unwrap_or(DEFAULT_THETA), scaling: None }),
        }
    }

    /// Reads one of the two styles. `theta` and `original` are those of the file's top level: the map's own `theta`
    /// takes precedence over the former, the latter takes precedence over the map's own, as in Transformers.
    fn from_map(
        section: &str,
        map: Map<String, Value>,
        theta: Option<f64>,
        original: Option<i64>,
        max_positions: i64,
    ) -> Result<Self, FieldError> {
        let mut fields = Fields::new(map);
        let theta = fields.optional("rope_theta")?.or(theta).unwrap_or(DEFAULT_THETA);
        refuse_partial(fields.optional(PARTIAL)?)?;
        let inner = fields.optional("original_max_position_embeddings")?;
        let original = original.or(inner).unwrap_or(max_positions);
        let scaling = Scaling::take(&mut fields, original, max_positions)?;
        let means_something = |(key, value): &(&String, &Value)| {
            let neutral = NEUTRAL_AT_ONE.contains(&key.as_str()) && is_number(value, 1.0);
            !(neutral || is_off(value) || key.as_str() == "finetuned")
        };
        match fields.rest().iter().find(means_something) {
            None => Ok(Self { theta, scaling }),
            Some((key, value)) => {
                let what = format!("{section}.{key}");
                let kind = scaling.as_ref().map_or("default", Scaling::kind);
                Err(FieldError::invalid(&what, value, &format!("no such key for the rope_type {kind}")))
            }
        }
    }

    /// Returns the angular frequency of each pair of dimensions, in radians per position, and the factor on cosines
    /// and sines.
    /// `periods`: \[D / 2\], `theta^(2i / D)`.
    pub fn frequencies(&self, periods: &[f32]) -> (Vec<f32>, f64) {
        let inverse = periods.iter().map(|period| 1.0 / period);
        match self.scaling {
            None => (inverse.collect(), 1.0),
            Some(Scaling::Linear { factor }) => (inverse.map(|f| f / factor as f32).collect(), 1.0),
            Some(Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions }) => {
                let stretch = |frequency: f32| {
                    let frequency = f64::from(frequency);
                    let rotations = original_positions as f64 * frequency / (2.0 * PI);
                    let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    let kept = kept.clamp(0.0, 1.0);
                    ((1.0 - kept) * frequency / factor + kept * frequency) as f32
                };
                (inverse.map(stretch).collect(), 1.0)
            }
            Some(Scaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
                original_positions,
            }) => {
                let head_dim = 2.0 * periods.len() as f64;
                let dimension = |rotations: f64| {
                    head_dim * (original_positions as f64 / (rotations * 2.0 * PI)).ln()
                        / (2.0 * self.theta.ln())
                };
                let (low, high) = (dimension(beta_fast), dimension(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
                let width = if (high - low).abs() > 0.0 { high - low } else { 0.001 };
                let blend = |(index, period): (usize, &f32)| {
                    let kept = 1.0 - ((index as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
                    1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
                };
                (periods.iter().enumerate().map(blend).collect(), attention_factor)
            }
        }
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
            Some(Scaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_positions,
                ..
            }) => {
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

/// Partially rotated heads are not supported.
fn refuse_partial(factor: Option<f64>) -> Result<(), FieldError> {
    match factor {
        Some(factor) if (factor - 1.0).abs() >= f64::EPSILON => {
            Err(FieldError::unsupported(PARTIAL, factor, "1.0"))
        }
        _ => Ok(()),
    }
}

impl Scaling {
    /// Reads the keys of the scaling named by `rope_type`, or by `type` in older files.
    fn take(
        fields: &mut Fields,
        original_positions: i64,
        max_positions: i64,
    ) -> Result<Option<Self>, FieldError> {
        let (rope_type, older): (Option<String>, Option<String>) =
            (fields.optional("rope_type")?, fields.optional("type")?);
        Ok(match rope_type.or(older).as_deref().unwrap_or("default") {
            "default" => None,
            "linear" => Some(Self::Linear { factor: fields.required("factor")? }),
            "llama3" => Some(Self::Llama3 {
                factor: fields.required("factor")?,
                low_freq_factor: fields.required("low_freq_factor")?,
                high_freq_factor: fields.required("high_freq_factor")?,
                original_positions,
            }),
            "yarn" => {
                let factor: Option<f64> = fields.optional("factor")?;
                let factor = factor.unwrap_or(max_positions as f64 / original_positions as f64);
                let magnitude = |scale: f64| if factor > 1.0 { 0.1 * scale * factor.ln() + 1.0 } else { 1.0 };
                let (own, all): (Option<f64>, Option<f64>) =
                    (fields.optional("mscale")?, fields.optional("mscale_all_dim")?);
                let attention_factor = match (own, all) {
                    (Some(own), Some(all)) if own != 0.0 && all != 0.0 => magnitude(own) / magnitude(all),
                    _ => magnitude(1.0),
                };
                Some(Self::Yarn {
                    factor,
                    beta_fast: fields.optional("beta_fast")?.unwrap_or(32.0),
                    beta_slow: fields.optional("beta_slow")?.unwrap_or(1.0),
                    attention_factor: fields.optional("attention_factor")?.unwrap_or(attention_factor),
                    truncate: fields.optional("truncate")?.unwrap_or(true),
                    original_positions,
                })
            }
            other => {
                let supported = "default, linear, llama3, yarn";
                return Err(FieldError::unsupported("rope_type", other, supported));
            }
        })
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Linear { .. } => "linear",
            Self::Llama3 { .. } => "llama3",
            Self::Yarn { .. } => "yarn",
        }
    }

    /// The `rope_scaling` of a written configuration.
    pub(crate) fn to_json(&self) -> Value {
        let kind = self.kind();
        match *self {
            Self::Linear { factor } => json!({ "rope_type": kind, "factor": factor }),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => json!({
                "rope_type": kind,
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_positions,
            }),
            Self::Yarn { factor, beta_fast, beta_slow, attention_factor, truncate, original_positions } => {
                let mut json = json!({
                    "rope_type": kind,
                    "factor": factor,
                    "beta_fast": beta_fast,
                    "beta_slow": beta_slow,
                    "attention_factor": attention_factor,
                    "original_max_position_embeddings": original_positions,
                });
                // The default is omitted, for readers that do not know the key.
                if !truncate {
                    json["truncate"] = false.into();
                }
                json
            }
        }
    }
}
