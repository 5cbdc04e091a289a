//! The policy that the KL term holds on to: that of version 0, or one that follows the policy at a distance.
//!
//! Every `ref_model_sync_steps` passes of the optimizer it becomes `alpha·policy + (1 − alpha)·reference`, weight by
//! weight (TR-DPO, arXiv 2404.09656); of an adapter, A by A and B by B. It is then part of what a checkpoint holds.

use podium_grpo::Options;
use podium_model::Policy;
use tch::{Kind, Tensor, no_grad};

/// The reference of a policy in training. It shares what is not trained.
#[derive(Debug)]
pub struct Reference {
    policy: Policy,
    /// What moves; nothing in a reference that stays.
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    /// Float32; shares the parameter's memory where that is float32 too.
    weight: Tensor,
}

impl Reference {
    /// The reference that these options ask for, of the policy at the start of a run.
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

    /// Moves it towards weights, which are those of the policy in training in its parameters' order.
    pub fn follow<'a>(&mut self, weights: impl Iterator<Item = &'a Tensor>, alpha: f64) {
        no_grad(|| {
            for (slot, weight) in self.slots.iter_mut().zip(weights) {
                let _ = slot.weight.g_mul_scalar_(1.0 - alpha);
                let _ = slot.weight.g_add_(&(weight * alpha));
                slot.publish();
            }
        });
    }

    /// All that moves, by name, float32; the tensors share memory with the reference's.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let named = |slot: &Slot| (format!("reference.{}", slot.name), slot.weight.shallow_clone());
        self.slots.iter().map(named).collect()
    }

    /// To be called when the tensors of [`Self::state`] have been overwritten.
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
