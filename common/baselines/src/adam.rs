//! Adam (Kingma and Ba 2015, arXiv:1412.6980) with a state that can be stored.
//!
//! With gradient `g`, step size `a` and step number `t` from 1: `m = b1·m + (1 − b1)·g`, `v = b2·v + (1 − b2)·g²`,
//! `w = w − a·(m / (1 − b1^t)) / (√(v / (1 − b2^t)) + epsilon)`.

use tch::{Tensor, no_grad};

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimizer of some tensors.
#[derive(Debug)]
pub(crate) struct Adam {
    weights: Vec<Tensor>,
    /// First moments, in the order of the weights.
    pub(crate) first: Vec<Tensor>,
    /// Second moments.
    pub(crate) second: Vec<Tensor>,
    /// Number of applied steps.
    pub(crate) steps: u64,
    learning_rate: f64,
}

impl Adam {
    /// Creates an optimizer at step 0. The tensors share memory with the network's.
    pub(crate) fn new<'a>(weights: impl Iterator<Item = &'a Tensor>, learning_rate: f64) -> Self {
        let weights: Vec<Tensor> = weights.map(Tensor::shallow_clone).collect();
        let zeros = || weights.iter().map(|weight| weight.detach().zeros_like()).collect();
        Self { first: zeros(), second: zeros(), weights, steps: 0, learning_rate }
    }

    /// Applies one step along the accumulated gradients and clears them. A weight without a gradient is unchanged.
    pub(crate) fn step(&mut self) {
        self.steps += 1;
        let exponent = self.steps.min(i32::MAX as u64) as i32;
        let (unbias1, unbias2) = (1.0 - BETA1.powi(exponent), 1.0 - BETA2.powi(exponent));
        no_grad(|| {
            for ((weight, first), second) in
                self.weights.iter_mut().zip(&mut self.first).zip(&mut self.second)
            {
                let gradient = weight.grad();
                if !gradient.defined() {
                    continue;
                }
                *first = &*first * BETA1 + &gradient * (1.0 - BETA1);
                *second = &*second * BETA2 + gradient.square() * (1.0 - BETA2);
                let root = (&*second / unbias2).sqrt() + EPSILON;
                let change = &*first / root * (self.learning_rate / unbias1);
                let _ = weight.g_sub_(&change);
                weight.zero_grad();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_match_a_computation_by_hand() {
        let weight = Tensor::from_slice(&[1.0_f32]).set_requires_grad(true);
        let mut adam = Adam::new(std::iter::once(&weight), 0.1);
        // The gradient of w² is 2w: first 2, then 2 · 0.9.
        for expected in [
            1.0 - 0.1,
            0.9 - 0.1 * (0.09 * 2.0 + 0.1 * 1.8)
                / 0.19
                / (((0.999 * 0.001 * 4.0 + 0.001 * 3.24) / (1.0 - 0.999_f64.powi(2))).sqrt()),
        ] {
            weight.square().sum(tch::Kind::Float).backward();
            adam.step();
            assert!((weight.double_value(&[0]) - expected).abs() < 1e-6, "{weight:?}, expected {expected}");
        }
        assert_eq!(adam.steps, 2);
    }
}
