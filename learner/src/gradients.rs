//! The gradients of a policy's trainable parameters after backward.

use podium_model::Policy;
use tch::{Kind, Tensor};

/// Returns one gradient per parameter, float32, in the parameters' order; zeros for parameters without one. Gradients
/// of float32 parameters share memory with the policy's.
pub fn of(policy: &Policy) -> Vec<Tensor> {
    let gradient = |(_, parameter): &(String, Tensor)| {
        let gradient = parameter.grad();
        if gradient.defined() {
            gradient.to_kind(Kind::Float)
        } else {
            parameter.detach().zeros_like().to_kind(Kind::Float)
        }
    };
    policy.trainable().iter().map(gradient).collect()
}
