//! The reference policy of the KL term: version 0, or a slowly updated copy of the policy.
//!
//! Every `ref_model_sync_steps` passes of the optimizer it becomes `alpha·policy + (1 − alpha)·reference`, weight by
//! weight (TR-DPO, arXiv 2404.09656); for an adapter separately for A and B. The checkpoint then contains it.

use podium_grpo::Options;
use podium_model::Policy;
use tch::{Kind, Tensor, no_grad};

/// The reference of a policy in training. It shares the frozen weights.
#[derive(Debug)]
pub struct Reference {
    policy: Policy,
    /// The updated weights; empty for a fixed reference.
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    /// Float32; shares the parameter's memory if that is float32 too.
    weight: Tensor,
}

impl Reference {
    /// Creates the reference that these options require, from the policy at the start of a run.
    pub fn of(policy: &Policy, options: &Options) -> Option<Self> {
        if options.beta == 0.0 {
            return None;
        }
        if !options.sync_ref_model {
            return Some(Self { policy: policy.reference(), slots: Vec::new() });
        }
        let policy = policy.copy_of_trained();
        let slot = |(name, parameter): &(String, Tensor)| Slot {
            name: name.clone(),
            parameter: parameter.shallow_clone(),
            weight: parameter.to_kind(Kind::Float),
        };
        Some(Self { slots: policy.trainable().iter().map(slot).collect(), policy })
    }

    /// The policy.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Moves the reference towards `weights`, those of the policy in training in its parameters' order.
    pub fn follow<'a>(&mut self, weights: impl Iterator<Item = &'a Tensor>, alpha: f64) {
        no_grad(|| {
            for (slot, weight) in self.slots.iter_mut().zip(weights) {
                let _ = slot.weight.g_mul_scalar_(1.0 - alpha);
                let _ = slot.weight.g_add_(&(weight * alpha));
                slot.publish();
            }
        });
    }

    /// Returns the updated weights by name, float32; the tensors share memory with the reference's.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| (format!("reference.{}", slot.name), slot.weight.shallow_clone());
        self.slots.iter().map(named).collect()
    }

    /// Completes a restore. Call it after overwriting the tensors of [`Self::state`].
    pub fn restored(&mut self) {
        no_grad(|| self.slots.iter_mut().for_each(Slot::publish));
    }
}

impl Slot {
    fn publish(&mut self) {
        if self.parameter.kind() != Kind::Float {
            self.parameter.copy_(&self.weight);
        }
    }
}
