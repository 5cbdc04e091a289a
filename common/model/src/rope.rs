//! Rotary position embedding: its parameters, their scaling for long contexts, and the rotation itself.
//!
//! Frequencies follow Transformers' `modeling_rope_utils` (default, linear, llama3, yarn).

use std::f64::consts::PI;

use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use crate::config::Error;

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
    ) -> Result<Self, Error> {
        let inner_theta = parameters.and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        let theta = inner_theta.or(theta).unwrap_or(10_000.0);
        let scaling = match parameters {
            Some(map) => Scaling::from_map(map, max_positions)?,
            None => None,
        };
        Ok(Self { theta, scaling })
    }

    /// Checks that all numbers are usable.
    pub(crate) fn check(&self) -> Result<(), Error> {
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
            Some((what, value)) => Err(Error::Invalid {
                what,
                found: value.to_string(),
                expected: "a positive number in the rotary embedding".to_owned(),
            }),
        }
    }

    /// Angular frequency of each pair of dimensions, radians a position, and the factor on cosines and sines.
    fn frequencies(&self, head_dim: i64) -> (Vec<f32>, f64) {
        // Single precision through the same operations as Transformers: one unit in the last place of a frequency
        // grows to a visible angle at position 10,000.
        let exponents =
            Tensor::arange_start_step(0, head_dim, 2, (Kind::Float, Device::Cpu)) / head_dim as f64;
        let periods = Tensor::pow_scalar(self.theta, &exponents);
        let periods = Vec::<f32>::try_from(periods).expect("a vector of floats");
        let inverse: Vec<_> = periods.iter().map(|period| 1.0 / period).collect();
        match self.scaling {
            None => (inverse, 1.0),
            Some(Scaling::Linear { factor }) => (inverse.iter().map(|f| f / factor as f32).collect(), 1.0),
            Some(Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions }) => {
                let stretch = |frequency: &f32| {
                    let frequency = f64::from(*frequency);
                    let rotations = original_positions as f64 * frequency / (2.0 * PI);
                    let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    let kept = kept.clamp(0.0, 1.0);
                    ((1.0 - kept) * frequency / factor + kept * frequency) as f32
                };
                (inverse.iter().map(stretch).collect(), 1.0)
            }
            Some(Scaling::Yarn { factor, beta_fast, beta_slow, attention_factor, original_positions }) => {
                let dimension = |rotations: f64| {
                    head_dim as f64 * (original_positions as f64 / (rotations * 2.0 * PI)).ln()
                        / (2.0 * self.theta.ln())
                };
                let low = dimension(beta_fast).floor().max(0.0);
                let high = dimension(beta_slow).ceil().min(head_dim as f64 - 1.0);
                let width = if high > low { high - low } else { 0.001 };
                let blend = |(index, period): (usize, &f32)| {
                    let kept = 1.0 - ((index as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
                    1.0 / (factor as f32 * period) * (1.0 - kept) + 1.0 / period * kept
                };
                (periods.iter().enumerate().map(blend).collect(), attention_factor)
            }
        }
    }
}

impl Scaling {
    fn from_map(map: &Map<String, Value>, max_positions: i64) -> Result<Option<Self>, Error> {
        let number = |key: &str| map.get(key).and_then(Value::as_f64);
        let required = |what: &'static str| {
            number(what).ok_or_else(|| Error::Invalid {
                what,
                found: map.get(what).map_or("missing".to_owned(), Value::to_string),
                expected: "a number in the rotary embedding's parameters".to_owned(),
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
                return Err(Error::Unsupported {
                    what: "rope_type",
                    found: other.to_owned(),
                    supported: "default, linear, llama3, yarn",
                });
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

/// The frequencies of a policy, on its device.
#[derive(Debug)]
pub(crate) struct Frequencies {
    /// \[D / 2\], float32.
    inverse: Tensor,
    attention_factor: f64,
}

impl Frequencies {
    pub(crate) fn new(rope: &Rope, head_dim: i64, device: Device) -> Self {
        let (inverse, attention_factor) = rope.frequencies(head_dim);
        Self { inverse: Tensor::from_slice(&inverse).to_device(device), attention_factor }
    }

    /// The rotation of each row, given its position. `positions`: \[rows\], any integer kind.
    pub(crate) fn rotation(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.inverse;
        let (cos, sin) = (angles.cos() * self.attention_factor, angles.sin() * self.attention_factor);
        Rotation {
            cos: Tensor::cat(&[&cos, &cos], -1).unsqueeze(1).to_kind(kind),
            signed_sin: Tensor::cat(&[&(-&sin), &sin], -1).unsqueeze(1).to_kind(kind),
        }
    }
}

/// Cosines and sines for the rows of one forward, shared by all its layers.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// \[rows, 1, D\]
    cos: Tensor,
    /// \[rows, 1, D\]; the first half negated, so that swapping halves is all that "rotate half" needs.
    signed_sin: Tensor,
}

impl Rotation {
    /// Rotates the halves of each head against each other. `x`: \[rows, heads, D\].
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        let swapped = x.roll([x.size()[2] / 2], [2]);
        (x * &self.cos).addcmul(&swapped, &self.signed_sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frequencies(scaling: Option<Scaling>) -> (Vec<f32>, f64) {
        Rope { theta: 10_000.0, scaling }.frequencies(64)
    }

    /// The wavelength at which a frequency turns once over `positions`.
    fn rotations(frequency: f32, positions: f64) -> f64 {
        f64::from(frequency) * positions / (2.0 * PI)
    }

    #[test]
    fn scaling_keeps_short_wavelengths_and_stretches_long_ones() {
        let (plain, _) = frequencies(None);
        let original_positions = 1024;
        let llama3 =
            Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions };
        let yarn = Scaling::Yarn {
            factor: 8.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.2,
            original_positions,
        };
        for (scaling, fast, factor) in [(llama3, 4.0, 1.0), (yarn, 40.0, 1.2)] {
            let (scaled, attention_factor) = frequencies(Some(scaling));
            assert!((attention_factor - factor).abs() < 1e-12);
            for (plain, scaled) in plain.iter().zip(scaled) {
                let stretch = plain / scaled;
                match rotations(*plain, 1024.0) {
                    turns if turns > fast => assert!((stretch - 1.0).abs() < 1e-5, "{turns}: {stretch}"),
                    turns if turns < 0.7 => assert!((stretch - 8.0).abs() < 1e-4, "{turns}: {stretch}"),
                    _ => assert!((1.0..=8.001).contains(&stretch)),
                }
            }
        }
        let (linear, _) = frequencies(Some(Scaling::Linear { factor: 4.0 }));
        assert!(plain.iter().zip(linear).all(|(plain, linear)| (plain / linear - 4.0).abs() < 1e-5));
    }

    #[test]
    fn rotated_products_depend_on_distance_alone() {
        let rope = Rope { theta: 10_000.0, scaling: None };
        let frequencies = Frequencies::new(&rope, 64, Device::Cpu);
        let at = |position: i64, wave: f64| {
            let vector = (Tensor::arange(64, (Kind::Float, Device::Cpu)) * wave).sin().view([1, 1, 64]);
            frequencies.rotation(&Tensor::from_slice(&[position]), Kind::Float).apply(&vector)
        };
        let product = |q: i64, k: i64| (at(q, 0.3) * at(k, 0.7)).sum(Kind::Double).double_value(&[]);
        assert!((product(5, 2) - product(105, 102)).abs() < 1e-4);
        assert!((product(5, 2) - product(5, 3)).abs() > 1e-2);
    }
}
