//! The gradients that backward left on a policy's trainable parameters.

use podium_model::Policy;
use tch::{Kind, Tensor};

/// One a parameter, float32, in the parameters' order; zeros where nothing arrived. Those of float32 parameters share
/// memory with them.
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
