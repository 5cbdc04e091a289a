//! The optimizer: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), gradients clipped by their
//! global norm.
//!
//! With gradient `g`, step size `a` and step number `t` from 1:
//! `m = b1·m + (1 − b1)·g`, `v = b2·v + (1 − b2)·g²`,
//! `w = w − a·(decay·w + (m / (1 − b1^t)) / (√(v / (1 − b2^t)) + epsilon))`.
//!
//! All arithmetic is float32. For a policy in a smaller type the optimizer holds float32 copies of the weights and
//! writes rounded values to the policy.

use podium_config::Learner;
use tch::{Kind, Tensor, no_grad};

/// Maximum number of numbers that a step computes at once.
pub(crate) const SLICE: i64 = podium_memory::SLICE as i64;

/// Added to the norm before dividing by it, as `PyTorch`'s `clip_grad_norm_` does.
const NORM_EPSILON: f64 = 1e-6;

/// Hyperparameters of the optimizer, constant over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled decay of matrices; vectors (norms and biases) do not decay.
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm over all parameters.
    pub max_grad_norm: f64,
}

impl From<&Learner> for Options {
    fn from(learner: &Learner) -> Self {
        Self {
            beta1: learner.adam_beta1,
            beta2: learner.adam_beta2,
            epsilon: learner.adam_epsilon,
            weight_decay: learner.weight_decay,
            max_grad_norm: learner.max_grad_norm,
        }
    }
}

/// The reasons why a step is not applied.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Error {
    /// The gradient's norm is infinite or not a number.
    #[error("the norm of the gradient is {norm}: expected a finite number; the weights are unchanged")]
    NotFinite {
        /// The norm.
        norm: f64,
    },
}

/// State of the optimizer for one parameter.
#[derive(Debug)]
struct Slot {
    name: String,
    /// The policy's parameter.
    parameter: Tensor,
    /// Float32; shares the parameter's memory if that is float32 too.
    weight: Tensor,
    first_moment: Tensor,
    second_moment: Tensor,
    decays: bool,
}

/// The optimizer of a policy's trainable parameters.
#[derive(Debug)]
pub struct AdamW {
    options: Options,
    steps: u64,
    slots: Vec<Slot>,
}

impl AdamW {
    /// Creates an optimizer at step 0. The parameters share memory with the policy.
    pub fn new(parameters: &[(String, Tensor)], options: Options) -> Self {
        let parameters = parameters.iter();
        Self::with_decay(parameters.map(|(name, tensor)| (name.clone(), tensor, tensor.dim() > 1)), options)
    }

    /// Creates an optimizer at step 0 of parameters with their names and whether they decay.
    pub(crate) fn with_decay<'a>(
        parameters: impl Iterator<Item = (String, &'a Tensor, bool)>,
        options: Options,
    ) -> Self {
        let slot = |(name, parameter, decays): (String, &Tensor, bool)| {
            let parameter = parameter.detach();
            let weight = parameter.to_kind(Kind::Float);
            Slot {
                name,
                first_moment: weight.zeros_like(),
                second_moment: weight.zeros_like(),
                decays,
                parameter,
                weight,
            }
        };
        Self { options, steps: 0, slots: parameters.map(slot).collect() }
    }

    /// Applies one step along `gradients` and returns their norm before clipping. `gradients`: one per parameter,
    /// float32, in the parameters' order; clipping scales them in place.
    pub fn step(&mut self, gradients: &mut [Tensor], learning_rate: f64) -> Result<f64, Error> {
        let norm = no_grad(|| global_norm(gradients));
        self.step_with_norm(gradients, norm, learning_rate)
    }

    /// Applies one step along `gradients`, which are a part of gradients with this norm.
    pub(crate) fn step_with_norm(
        &mut self,
        gradients: &mut [Tensor],
        norm: f64,
        learning_rate: f64,
    ) -> Result<f64, Error> {
        if !norm.is_finite() {
            return Err(Error::NotFinite { norm });
        }
        no_grad(|| {
            let scale = self.options.max_grad_norm / (norm + NORM_EPSILON);
            self.steps += 1;
            for (slot, gradient) in self.slots.iter_mut().zip(gradients) {
                if scale < 1.0 {
                    let _ = gradient.g_mul_scalar_(scale);
                }
                slot.step(gradient, learning_rate, self.steps, &self.options);
            }
            Ok(norm)
        })
    }

    /// Number of applied steps.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The weights in the parameters' order, float32; they share memory with the optimizer's.
    pub fn weights(&self) -> impl Iterator<Item = &Tensor> {
        self.slots.iter().map(|slot| &slot.weight)
    }

    /// Returns the optimizer's tensors by name: weights, first and second moments, float32. They share memory with
    /// it.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let entries = |kind: &str, tensor: fn(&Slot) -> &Tensor| {
            let named = |slot: &Slot| (format!("{kind}.{}", slot.name), tensor(slot).shallow_clone());
            self.slots.iter().map(named).collect::<Vec<_>>()
        };
        let mut state = entries("weight", |slot| &slot.weight);
        state.extend(entries("first_moment", |slot| &slot.first_moment));
        state.extend(entries("second_moment", |slot| &slot.second_moment));
        state
    }

    /// Completes a restore. Call it after overwriting the tensors of [`Self::state`] with those after `steps` steps.
    pub fn restored(&mut self, steps: u64) {
        self.steps = steps;
        no_grad(|| self.slots.iter_mut().for_each(Slot::publish));
    }
}

impl Slot {
    fn step(&mut self, gradient: &Tensor, learning_rate: f64, steps: u64, options: &Options) {
        let [weight, first_moment, second_moment] =
            [&self.weight, &self.first_moment, &self.second_moment].map(|all| all.view(-1));
        let all = [weight, first_moment, second_moment, gradient.reshape([-1])];
        let numbers = all[0].size()[0];
        for start in (0..numbers).step_by(SLICE as usize) {
            let slice = all.each_ref().map(|all| all.narrow(0, start, SLICE.min(numbers - start)));
            self.step_slice(slice, learning_rate, steps, options);
        }
        self.publish();
    }

    /// Steps a part of the parameter; the tensors share memory with it.
    fn step_slice(&self, slice: [Tensor; 4], learning_rate: f64, steps: u64, options: &Options) {
        let [mut weight, mut first_moment, mut second_moment, gradient] = slice;
        let correction = |beta: f64| 1.0 - beta.powf(steps as f64);
        let _ = first_moment.lerp_(&gradient, 1.0 - options.beta1);
        let _ = second_moment.lerp_(&gradient.square(), 1.0 - options.beta2);
        // On a CPU `sqrt` is MKL's, whose last digit depends on the processor; these two are exact everywhere.
        let mut denominator = second_moment.rsqrt();
        let _ = denominator.reciprocal_();
        let _ = denominator.g_div_scalar_(correction(options.beta2).sqrt());
        let _ = denominator.g_add_scalar_(options.epsilon);
        let mut change = &first_moment / denominator;
        let _ = change.g_mul_scalar_(learning_rate / correction(options.beta1));
        if self.decays && options.weight_decay > 0.0 {
            let _ = weight.g_mul_scalar_(1.0 - learning_rate * options.weight_decay);
        }
        let _ = weight.g_sub_(&change);
    }

    /// Rounds the weight into the policy's parameter, unless both share memory.
    fn publish(&mut self) {
        if self.parameter.kind() != Kind::Float {
            self.parameter.copy_(&self.weight);
        }
    }
}

/// The 2-norm over all gradients together; 0 for an empty list.
pub(crate) fn global_norm(gradients: &[Tensor]) -> f64 {
    let norms: Vec<Tensor> = gradients.iter().map(Tensor::norm).collect();
    if norms.is_empty() {
        0.0
    } else {
        Tensor::stack(&norms, 0).to_kind(Kind::Double).norm().double_value(&[])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tch::Device;

    use super::*;

    const OPTIONS: Options =
        Options { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weight_decay: 0.1, max_grad_norm: 1.0 };

    /// The module's equations on scalars.
    struct Reference {
        weights: Vec<f64>,
        moments: Vec<(f64, f64)>,
        steps: i32,
    }

    impl Reference {
        fn step(&mut self, gradients: &[f64], learning_rate: f64, decays: &[bool]) -> f64 {
            let norm = gradients.iter().map(|g| g * g).sum::<f64>().sqrt();
            let scale = (OPTIONS.max_grad_norm / (norm + NORM_EPSILON)).min(1.0);
            self.steps += 1;
            for (index, (weight, (m, v))) in self.weights.iter_mut().zip(&mut self.moments).enumerate() {
                let gradient = gradients[index] * scale;
                *m = OPTIONS.beta1 * *m + (1.0 - OPTIONS.beta1) * gradient;
                *v = OPTIONS.beta2 * *v + (1.0 - OPTIONS.beta2) * gradient * gradient;
                let m = *m / (1.0 - OPTIONS.beta1.powi(self.steps));
                let v = *v / (1.0 - OPTIONS.beta2.powi(self.steps));
                let decay = if decays[index] { OPTIONS.weight_decay * *weight } else { 0.0 };
                *weight -= learning_rate * (decay + m / (v.sqrt() + OPTIONS.epsilon));
            }
            norm
        }
    }

    /// A matrix of four and a vector of two.
    fn parameters(weights: &[f64], kind: Kind) -> Vec<(String, Tensor)> {
        let tensor = |range: std::ops::Range<usize>, shape: &[i64]| {
            Tensor::from_slice(&weights[range]).to_kind(kind).view(shape)
        };
        vec![("matrix".into(), tensor(0..4, &[2, 2])), ("norm".into(), tensor(4..6, &[2]))]
    }

    fn numbers(tensors: &[(String, Tensor)]) -> Vec<f64> {
        let flat = |(_, tensor): &(String, Tensor)| {
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double).view(-1)).unwrap()
        };
        tensors.iter().flat_map(flat).collect()
    }

    fn gradients(numbers: &[f64]) -> Vec<Tensor> {
        parameters(numbers, Kind::Float).into_iter().map(|(_, tensor)| tensor).collect()
    }

    proptest! {
        #[test]
        fn follows_the_equations(
            weights in prop::collection::vec(-2.0..2.0_f64, 6),
            steps in prop::collection::vec(prop::collection::vec(-3.0..3.0_f64, 6), 1..6),
        ) {
            let policy = parameters(&weights, Kind::Float);
            let mut optimizer = AdamW::new(&policy, OPTIONS);
            let mut reference = Reference { weights, moments: vec![(0.0, 0.0); 6], steps: 0 };
            for (number, gradient) in steps.iter().enumerate() {
                let learning_rate = 0.01 * (number + 1) as f64;
                let norm = optimizer.step(&mut gradients(gradient), learning_rate).unwrap();
                let expected = reference.step(gradient, learning_rate, &[true, true, true, true, false, false]);
                prop_assert!((norm - expected).abs() < 1e-5 * expected);
            }
            for (found, expected) in numbers(&policy).iter().zip(&reference.weights) {
                prop_assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        let policy = parameters(&[1.0; 6], Kind::Float);
        let mut optimizer = AdamW::new(&policy, OPTIONS);
        let error = optimizer.step(&mut gradients(&[0.0, f64::NAN, 0.0, 0.0, 0.0, 0.0]), 0.1).unwrap_err();
        assert!(error.to_string().contains("NaN"));
        assert_eq!(numbers(&policy), [1.0; 6]);
        assert_eq!(optimizer.steps(), 0);
    }

    #[test]
    fn small_types_train_through_float32_weights() {
        let policy = parameters(&[1.0; 6], Kind::BFloat16);
        let mut optimizer = AdamW::new(&policy, Options { weight_decay: 0.0, ..OPTIONS });
        for _ in 0..100 {
            // A single step is smaller than bfloat16's resolution.
            optimizer.step(&mut gradients(&[1.0; 6]), 1e-4).unwrap();
        }
        let weight = numbers(&policy)[0];
        assert!((weight - 0.99).abs() < 0.004, "{weight}");
        assert_eq!(policy[0].1.device(), Device::Cpu);
    }

    #[test]
    fn a_large_parameter_is_stepped_in_slices() {
        let rows = SLICE / 8 + 3;
        let policy = vec![("matrix".to_owned(), Tensor::ones([rows, 8], (Kind::Float, Device::Cpu)))];
        let mut optimizer = AdamW::new(&policy, OPTIONS);
        let mut gradients = [Tensor::ones([rows, 8], (Kind::Float, Device::Cpu))];
        let ((), tracked) =
            podium_torch_shim::track(|| _ = optimizer.step(&mut gradients, 0.1).unwrap()).unwrap();
        assert!(tracked.peak <= 2 * 4 * SLICE + (1 << 20), "{tracked:?}");
        let weights = &policy[0].1;
        assert_eq!(weights.max(), weights.min(), "every number has the same step");
        assert!(weights.max().double_value(&[]) < 0.95);
    }

    #[test]
    fn state_round_trips() {
        let (one, other) = (parameters(&[1.0; 6], Kind::BFloat16), parameters(&[3.0; 6], Kind::BFloat16));
        let (mut source, mut target) = (AdamW::new(&one, OPTIONS), AdamW::new(&other, OPTIONS));
        source.step(&mut gradients(&[0.3; 6]), 0.1).unwrap();
        for ((name, from), (same_name, mut to)) in source.state().into_iter().zip(target.state()) {
            assert_eq!(name, same_name);
            to.copy_(&from);
        }
        target.restored(source.steps());
        assert_eq!(numbers(&one), numbers(&other));
        source.step(&mut gradients(&[0.5; 6]), 0.1).unwrap();
        target.step(&mut gradients(&[0.5; 6]), 0.1).unwrap();
        assert_eq!(numbers(&source.state()), numbers(&target.state()));
    }
}
