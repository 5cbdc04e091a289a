//! Probability ratios of tokens, completions and items, and importance weights for an older policy version.

use crate::options::{Correction, Options};
use crate::plan::Plan;

/// Cap of the logarithm of a ratio. Below it the square of the exponential is finite; an infinite ratio times an
/// advantage of 0 would be NaN.
pub const LARGEST_LOG_RATIO: f64 = 300.0;

/// Returns the logarithm of each token's ratio: the mean over the tokens that share the ratio.
pub(super) fn log_ratios(plan: &Plan, policy: &[f64], old: &[f64]) -> Vec<f64> {
    let mut logs: Vec<f64> = policy.iter().zip(old).map(|(policy, old)| policy - old).collect();
    for tokens in plan.ratios.iter().flatten() {
        let mean = logs[tokens.clone()].iter().sum::<f64>() / tokens.len() as f64;
        logs[tokens.clone()].fill(mean);
    }
    logs
}

/// Converts derivatives by the logarithms of ratios into derivatives by the log-probabilities of tokens.
pub(super) fn carry_back(plan: &Plan, mut slopes: Vec<f64>) -> Vec<f64> {
    for tokens in plan.ratios.iter().flatten() {
        let mean = slopes[tokens.clone()].iter().sum::<f64>() / tokens.len() as f64;
        slopes[tokens.clone()].fill(mean);
    }
    slopes
}

/// Returns the importance weight of each token, from `behaviour` to `old`.
pub(super) fn corrections(plan: &Plan, old: &[f64], behaviour: &[f64], options: &Options) -> Vec<f64> {
    let kind = options.importance_sampling_correction;
    let mut logs: Vec<f64> = old.iter().zip(behaviour).map(|(old, behaviour)| old - behaviour).collect();
    if kind == Correction::None {
        return vec![1.0; logs.len()];
    }
    if kind.is_of_sequences() {
        for tokens in &plan.completions {
            let sum = logs[tokens.clone()].iter().sum::<f64>();
            logs[tokens.clone()].fill(sum);
        }
    }
    let cap = options.importance_sampling_cap;
    let weight = |log: &f64| match log.min(LARGEST_LOG_RATIO).exp() {
        weight if weight > cap && kind.masks() => 0.0,
        weight => weight.min(cap),
    };
    logs.iter().map(weight).collect()
}
