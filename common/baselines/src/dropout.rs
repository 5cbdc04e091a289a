//! Dropout with masks that are a function of a key.

use std::cell::Cell;

use podium_model::random::mix;
use tch::Tensor;

/// Number of random bits of an element: the share that is dropped is a multiple of 2⁻¹⁶.
const BITS: u32 = 16;

/// The masks of one training pass. Each call of [`Self::apply`] has its own mask.
#[derive(Debug)]
pub(crate) struct Dropout {
    share: f64,
    key: u64,
    calls: Cell<u64>,
}

impl Dropout {
    /// Creates the masks that drop `share` of the elements, of a pass that `key` identifies.
    pub(crate) fn new(share: f64, key: u64) -> Self {
        Self { share, key, calls: Cell::new(0) }
    }

    /// Returns `x` with dropped elements at 0 and the others scaled up, so that the mean is preserved.
    pub(crate) fn apply(&self, x: &Tensor) -> Tensor {
        let call = self.calls.replace(self.calls.get() + 1);
        let threshold = (self.share * f64::from(1_u32 << BITS)).round() as u64;
        if threshold == 0 {
            return x.shallow_clone();
        }
        let kept = (1.0 - self.share).recip() as f32;
        let stream = mix(mix(self.key) ^ call);
        let count = x.numel();
        let mut mask = Vec::with_capacity(count + 3);
        for block in 0..count.div_ceil(4) as u64 {
            let bits = mix(stream.wrapping_add(block));
            mask.extend((0..4).map(
                |lane| {
                    if bits >> (lane * BITS) & 0xffff >= threshold { kept } else { 0.0 }
                },
            ));
        }
        mask.truncate(count);
        x * Tensor::from_slice(&mask).view(x.size().as_slice())
    }
}

/// Applies dropout in training.
pub(crate) fn apply(dropout: Option<&Dropout>, x: &Tensor) -> Tensor {
    dropout.map_or_else(|| x.shallow_clone(), |dropout| dropout.apply(x))
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_share_is_dropped_and_the_mean_is_preserved() {
        let ones = Tensor::ones([300, 401], (Kind::Float, Device::Cpu));
        let dropout = Dropout::new(0.2, 7);
        let (one, other) = (dropout.apply(&ones), dropout.apply(&ones));
        let dropped = one.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((dropped - 0.2).abs() < 0.005, "{dropped}");
        assert!((one.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.01);
        assert_ne!(one, other, "each call has its own mask");
        assert_eq!(Dropout::new(0.2, 7).apply(&ones), one);
        assert_ne!(Dropout::new(0.2, 8).apply(&ones), one);
        assert_eq!(Dropout::new(0.0, 7).apply(&ones), ones);
    }
}
