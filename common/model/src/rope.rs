//! Rotary position embedding: the frequencies, scaled for long contexts, and the rotation itself.
//!
//! Frequencies follow Transformers' `modeling_rope_utils` (default, linear, llama3, yarn).

use tch::{Device, Kind, Tensor};

pub use podium_checkpoint::rope::{Rope, Scaling};
use podium_torch_shim::HeadNorms;

use crate::shim::computed;

/// Angular frequency of each pair of dimensions, in radians per position, and the factor on cosines and sines.
fn frequencies(rope: &Rope, head_dim: i64) -> (Vec<f32>, f64) {
    // Single precision through the same operations as Transformers: one unit in the last place of a frequency
    // grows to a visible angle at position 10,000.
    let exponents = Tensor::arange_start_step(0, head_dim, 2, (Kind::Float, Device::Cpu)) / head_dim as f64;
    let periods = Tensor::pow_scalar(rope.theta, &exponents);
    rope.frequencies(&Vec::<f32>::try_from(periods).expect("a vector of floats"))
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
        let (inverse, attention_factor) = frequencies(rope, head_dim);
        Self { inverse: Tensor::from_slice(&inverse).to_device(device), attention_factor }
    }

    /// Returns the rotation of each row at its position. `positions`: \[rows\], any integer kind.
    pub(crate) fn rotation(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.inverse;
        let (cos, sin) = (angles.cos() * self.attention_factor, angles.sin() * self.attention_factor);
        Rotation {
            cos: Tensor::cat(&[&cos, &cos], -1).to_kind(kind),
            signed_sin: Tensor::cat(&[&(-&sin), &sin], -1).to_kind(kind),
        }
    }
}

/// Cosines and sines for the rows of one forward, shared by all its layers.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// \[rows, D\]
    cos: Tensor,
    /// \[rows, D\]; the first half negated, so that "rotate half" only swaps halves.
    signed_sin: Tensor,
}

impl Rotation {
    /// Returns the rotation of the rows `index`.
    pub(crate) fn select(&self, index: &Tensor) -> Self {
        let part = |angles: &Tensor| angles.index_select(0, index);
        Self { cos: part(&self.cos), signed_sin: part(&self.signed_sin) }
    }

    /// Norms heads and rotates them, without gradients, on a CPU: see [`podium_torch_shim::norm_rotate`].
    pub(crate) fn apply_normed(&self, x: &Tensor, query_heads: i64, norms: Option<HeadNorms>) -> Tensor {
        computed(podium_torch_shim::norm_rotate(x, query_heads, norms, &self.cos, &self.signed_sin))
    }

    /// Rotates the halves of each head against each other. `x`: \[rows, heads, D\].
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        computed(podium_torch_shim::rotate(x, &self.cos, &self.signed_sin))
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;

    fn scaled(scaling: Option<Scaling>) -> (Vec<f32>, f64) {
        frequencies(&Rope { theta: 10_000.0, scaling }, 64)
    }

    /// The wavelength at which a frequency turns once over `positions`.
    fn rotations(frequency: f32, positions: f64) -> f64 {
        f64::from(frequency) * positions / (2.0 * PI)
    }

    #[test]
    fn scaling_keeps_short_wavelengths_and_stretches_long_ones() {
        let (plain, _) = scaled(None);
        let original_positions = 1024;
        let llama3 =
            Scaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_positions };
        let yarn = Scaling::Yarn {
            factor: 8.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.2,
            truncate: true,
            original_positions,
        };
        for (scaling, fast, factor) in [(llama3, 4.0, 1.0), (yarn, 40.0, 1.2)] {
            let (stretched, attention_factor) = scaled(Some(scaling));
            assert!((attention_factor - factor).abs() < 1e-12);
            for (plain, scaled) in plain.iter().zip(stretched) {
                let stretch = plain / scaled;
                match rotations(*plain, 1024.0) {
                    turns if turns > fast => assert!((stretch - 1.0).abs() < 1e-5, "{turns}: {stretch}"),
                    turns if turns < 0.7 => assert!((stretch - 8.0).abs() < 1e-4, "{turns}: {stretch}"),
                    _ => assert!((1.0..=8.001).contains(&stretch)),
                }
            }
        }
        let (linear, _) = scaled(Some(Scaling::Linear { factor: 4.0 }));
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
