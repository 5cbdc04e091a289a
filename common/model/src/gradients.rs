//! The gradients of a policy's trainable parameters, summed in float32.
//!
//! libtorch adds a gradient to a parameter in the parameter's type. The gradients of float32 parameters stay there; those of
//! bfloat16 parameters are moved into float32 sums after each part of a backward, so that the sum over micro-batches and
//! chunks of the head does not lose bits, and the bfloat16 gradient's memory is free for the next part.

use std::cell::RefCell;

use podium_torch_shim::take_gradient;
use tch::{Kind, Tensor, no_grad};

/// Float32 sums for the parameters of other types, by position.
#[derive(Debug, Default)]
pub(crate) struct Sums(RefCell<Vec<Option<Tensor>>>);

impl Sums {
    /// Moves the gradients of parameters that are not float32 into the sums.
    pub(crate) fn collect(&self, parameters: &[(String, Tensor)]) {
        if parameters.first().is_none_or(|(_, parameter)| parameter.kind() == Kind::Float) {
            return;
        }
        let mut sums = self.0.borrow_mut();
        sums.resize_with(parameters.len(), || None);
        for (sum, (_, parameter)) in sums.iter_mut().zip(parameters) {
            let Some(gradient) = take(parameter) else { continue };
            match sum {
                Some(sum) => no_grad(|| _ = sum.g_add_(&gradient)),
                None => *sum = Some(gradient.to_kind(Kind::Float)),
            }
        }
    }

    /// Returns one gradient per parameter, float32; zeros for parameters without one. Removes the gradients.
    pub(crate) fn take(&self, parameters: &[(String, Tensor)]) -> Vec<Tensor> {
        self.collect(parameters);
        let mut sums = self.0.take().into_iter();
        let gradient = |(_, parameter): &(String, Tensor)| {
            let sum = sums.next().flatten().or_else(|| take(parameter));
            sum.unwrap_or_else(|| parameter.detach().zeros_like().to_kind(Kind::Float))
        };
        parameters.iter().map(gradient).collect()
    }

    /// Removes all gradients.
    pub(crate) fn clear(&self, parameters: &[(String, Tensor)]) {
        self.0.take();
        for (_, parameter) in parameters {
            let _ = take(parameter);
        }
    }
}

fn take(parameter: &Tensor) -> Option<Tensor> {
    take_gradient(parameter).expect("a leaf's gradient can be moved")
}
