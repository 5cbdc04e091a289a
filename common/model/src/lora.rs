//! Low-rank adapters (`LoRA`, Hu et al. 2021, arXiv:2106.09685): the term added to a linear map.

use podium_torch_shim::LowRank;
use tch::{Device, Kind, Tensor};

use crate::random::mix;

/// The adapter of one linear map.
#[derive(Debug)]
pub(crate) struct Lora {
    /// \[rank, inputs\]
    pub(crate) a: Tensor,
    /// \[outputs, rank\]
    pub(crate) b: Tensor,
    /// The type of the activations, if that of `a` and `b` differs.
    pub(crate) cast: Option<Kind>,
    pub(crate) scale: f64,
    /// Distinguishes the masks of a policy's linear maps.
    pub(crate) stream: u64,
}

impl Lora {
    /// Returns the adapter as a part of a product whose outputs from `first` are those of this map.
    pub(crate) fn part(&self, first: i64) -> LowRank<'_> {
        LowRank { a: &self.a, b: &self.b, scale: self.scale, first }
    }

    /// Returns `outputs` + scale · dropout(`x`) Aᵀ Bᵀ in the memory of `outputs`, for `x` \[rows, inputs\] and `outputs`
    /// \[rows, outputs\].
    pub(crate) fn add(&self, mut outputs: Tensor, x: &Tensor, dropout: Option<&Dropout>) -> Tensor {
        let dropped = dropout.map(|dropout| dropout.apply(x, self.stream));
        let cast = self.cast.map(|kind| (self.a.to_kind(kind), self.b.to_kind(kind)));
        let (a, b) = cast.as_ref().map_or((&self.a, &self.b), |(a, b)| (a, b));
        let low = dropped.as_ref().unwrap_or(x).linear(a, None::<&Tensor>);
        outputs.addmm_(&(low * self.scale), &b.tr())
    }
}

/// Number of bits of the random numbers that select dropped inputs.
const BITS: i64 = 24;

/// The inputs that the adapters drop in one training pass.
///
/// Whether an input is dropped is a function of the pass's seed, the token it belongs to, the linear map and the
/// feature. It is the same on every device, for every cut of a step into micro-batches, and in recomputed layers.
///
/// Prompts are computed once for all their completions, so that these share the masks of the prompt's tokens.
#[derive(Debug)]
pub(crate) struct Dropout {
    /// A number for each row, \[rows, 1\], int64.
    rows: Tensor,
    share: f64,
}

impl Dropout {
    /// `rows`: a random number for each row of the forward; `share` of the inputs is dropped.
    pub(crate) fn new(rows: &[i64], share: f64, device: Device) -> Self {
        Self { rows: Tensor::from_slice(rows).to_device(device).unsqueeze(-1), share }
    }

    /// Returns the inputs that are dropped in the rows `index`.
    pub(crate) fn select(&self, index: &Tensor) -> Self {
        Self { rows: self.rows.index_select(0, index), share: self.share }
    }

    /// Returns `x` with the dropped inputs at 0 and the others scaled up, so that the mean is preserved.
    fn apply(&self, x: &Tensor, stream: u64) -> Tensor {
        let features = x.size()[1] as u64;
        let key = mix(stream);
        let columns: Vec<_> = (0..features).map(|feature| mix(key.wrapping_add(feature)) as i64).collect();
        let columns = Tensor::from_slice(&columns).to_device(x.device());
        let bits = scramble(&(&self.rows + columns));
        let threshold = (self.share * (1_i64 << BITS) as f64).round() as i64;
        let kept = bits.ge(threshold).to_kind(x.kind()) * (1.0 - self.share).recip();
        x * kept
    }
}

/// Returns the lowest [`BITS`] of a mixture of all bits. Products wrap around.
fn scramble(numbers: &Tensor) -> Tensor {
    let shift = |x: &Tensor, by: i64| x.bitwise_right_shift_tensor_scalar(by);
    let mut x = numbers.bitwise_xor_tensor(&shift(numbers, 30)) * 0xbf58_476d_1ce4_e5b9_u64 as i64;
    x = x.bitwise_xor_tensor(&shift(&x, 27)) * 0x94d0_49bb_1331_11eb_u64 as i64;
    x.bitwise_xor_tensor(&shift(&x, 31)).bitwise_and((1_i64 << BITS) - 1)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn masked(rows: &[i64], share: f64, stream: u64) -> Tensor {
        let ones = Tensor::ones([rows.len() as i64, 400], (Kind::Float, Device::Cpu));
        Dropout::new(rows, share, Device::Cpu).apply(&ones, stream)
    }

    #[test]
    fn the_configured_share_is_dropped_and_the_mean_is_preserved() {
        let rows: Vec<i64> = (0..500).map(|row| mix(row) as i64).collect();
        for share in [0.05, 0.5] {
            let masked = masked(&rows, share, 3);
            let dropped = masked.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
            assert!((dropped - share).abs() < 0.005, "{dropped}");
            assert!((masked.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.01);
            // Columns and rows are dropped equally often.
            for dimension in [0_i64, 1] {
                let shares = masked.eq(0.0).to_kind(Kind::Double).mean_dim(dimension, false, Kind::Double);
                let deviation = shares.std(true).double_value(&[]);
                let expected = (share * (1.0 - share) / masked.size()[dimension as usize] as f64).sqrt();
                assert!((deviation / expected - 1.0).abs() < 0.2, "{deviation} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_row_keeps_its_mask_wherever_it_is() {
        let (one, other) = (masked(&[7, 8, 9], 0.3, 3), masked(&[9, 7], 0.3, 3));
        assert_eq!(one.get(0), other.get(1));
        assert_eq!(one.get(2), other.get(0));
        assert_ne!(one.get(0), one.get(1));
        assert_ne!(one, masked(&[7, 8, 9], 0.3, 4));
    }
}
