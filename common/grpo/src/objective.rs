//! The GRPO objective in `f64`: the reference that the learner's libtorch loss is tested against.
//!
//! Per token, with `r = exp(logp − old)`:
//! `loss = −min(r·A, clip(r, 1 − epsilon, 1 + epsilon_high)·A) + beta·k3`, where
//! `k3 = exp(ref − logp) − (ref − logp) − 1` estimates the KL divergence from the reference policy
//! (arXiv 2402.03300, equations 3 and 4). [`crate::options::LossType`] says how tokens are summed.

use crate::options::{LossType, Options};

/// One completion's numbers, one entry a token; log-probabilities in nats.
#[derive(Debug, Clone, Copy)]
pub struct Tokens<'a> {
    /// Under the policy being trained.
    pub logprobs: &'a [f64],
    /// Under the policy version that sampled.
    pub old_logprobs: &'a [f64],
    /// Under the reference; read only where `beta` is not 0.
    pub reference_logprobs: &'a [f64],
    /// The completion's advantage.
    pub advantage: f64,
}

/// The objective of a step and its derivative.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// The loss to minimise.
    pub loss: f64,
    /// d loss / d logprob for every token of every completion.
    pub gradient: Vec<Vec<f64>>,
    /// Mean k3 over all tokens; 0 where `beta` is 0.
    pub kl: f64,
    /// Share of tokens whose ratio was clipped from below, with a negative advantage.
    pub clip_ratio_low: f64,
    /// Share of tokens whose ratio was clipped from above, with a positive advantage.
    pub clip_ratio_high: f64,
}

/// Computes the objective over all completions of a step.
pub fn objective(completions: &[Tokens<'_>], options: &Options) -> Objective {
    let total_tokens: usize = completions.iter().map(|c| c.logprobs.len()).sum();
    let (low, high) = options.ratio_bounds();
    let mut result =
        Objective { loss: 0.0, gradient: Vec::new(), kl: 0.0, clip_ratio_low: 0.0, clip_ratio_high: 0.0 };
    for completion in completions {
        let weight =
            token_weight(options.loss_type, completion.logprobs.len(), completions.len(), total_tokens);
        let mut gradient = Vec::with_capacity(completion.logprobs.len());
        for token in 0..completion.logprobs.len() {
            let logp = completion.logprobs[token];
            let advantage = completion.advantage;
            let ratio = (logp - completion.old_logprobs[token]).exp();
            let free = ratio * advantage;
            let clipped = ratio.clamp(low, high) * advantage;
            let mut loss = -free.min(clipped);
            let mut slope = if free <= clipped { -free } else { 0.0 };
            result.clip_ratio_low += f64::from(u8::from(ratio < low && advantage < 0.0));
            result.clip_ratio_high += f64::from(u8::from(ratio > high && advantage > 0.0));
            if options.beta != 0.0 {
                let gap = completion.reference_logprobs[token] - logp;
                let k3 = gap.exp() - gap - 1.0;
                loss += options.beta * k3;
                slope += options.beta * (1.0 - gap.exp());
                result.kl += k3;
            }
            result.loss += weight * loss;
            gradient.push(weight * slope);
        }
        result.gradient.push(gradient);
    }
    let tokens = total_tokens.max(1) as f64;
    result.kl /= tokens;
    result.clip_ratio_low /= tokens;
    result.clip_ratio_high /= tokens;
    result
}

/// What a token of a completion of `length` tokens counts for in a step of `completions` completions with
/// `total_tokens` tokens, over all ranks and micro-batches.
pub fn token_weight(loss_type: LossType, length: usize, completions: usize, total_tokens: usize) -> f64 {
    match loss_type {
        LossType::Grpo => 1.0 / (completions.max(1) as f64 * length.max(1) as f64),
        LossType::Dapo => 1.0 / total_tokens.max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "a clipped token's slope and its count are exact")]
    fn clipping_stops_the_gradient_on_the_side_it_guards() {
        let options = Options::default();
        let one = |logp: f64, advantage| {
            let tokens =
                Tokens { logprobs: &[logp], old_logprobs: &[0.0], reference_logprobs: &[], advantage };
            objective(&[tokens], &options)
        };
        assert_eq!(one(0.5, 1.0).gradient[0][0], 0.0);
        assert_eq!(one(0.5, 1.0).clip_ratio_high, 1.0);
        assert_eq!(one(-0.5, -1.0).gradient[0][0], 0.0);
        assert_eq!(one(-0.5, -1.0).clip_ratio_low, 1.0);
        assert!((one(0.5, -1.0).gradient[0][0] - 0.5_f64.exp()).abs() < 1e-12);
        assert!((one(0.0, 1.0).loss + 1.0).abs() < 1e-12);
    }

    #[test]
    fn sums_over_tokens() {
        let long =
            Tokens { logprobs: &[0.0; 3], old_logprobs: &[0.0; 3], reference_logprobs: &[], advantage: 1.0 };
        let short =
            Tokens { logprobs: &[0.0], old_logprobs: &[0.0], reference_logprobs: &[], advantage: -1.0 };
        let empty = Tokens { logprobs: &[], old_logprobs: &[], reference_logprobs: &[], advantage: 1.0 };
        let loss =
            |loss_type| objective(&[long, short, empty], &Options { loss_type, ..Options::default() }).loss;
        assert!((loss(LossType::Dapo) - (-3.0 + 1.0) / 4.0).abs() < 1e-12);
        assert!((loss(LossType::Grpo) - (-1.0 + 1.0 + 0.0) / 3.0).abs() < 1e-12);
    }

    fn arbitrary_completion() -> impl Strategy<Value = (Vec<(f64, f64, f64)>, f64)> {
        (prop::collection::vec((-3.0..0.0_f64, -3.0..0.0_f64, -3.0..0.0_f64), 0..6), -2.0..2.0_f64)
    }

    proptest! {
        #[test]
        fn the_gradient_is_the_slope_of_the_loss(
            step in prop::collection::vec(arbitrary_completion(), 1..4), beta in prop::sample::select(vec![0.0, 0.1])
        ) {
            let options = Options { beta, ..Options::default() };
            let columns: Vec<[Vec<f64>; 3]> = step.iter()
                .map(|(tokens, _)| [0, 1, 2].map(|column| tokens.iter().map(|t| [t.0, t.1, t.2][column]).collect()))
                .collect();
            let loss = |columns: &[[Vec<f64>; 3]]| {
                let tokens: Vec<Tokens<'_>> = columns.iter().zip(&step).map(|(c, (_, advantage))| Tokens {
                    logprobs: &c[0], old_logprobs: &c[1], reference_logprobs: &c[2], advantage: *advantage,
                }).collect();
                objective(&tokens, &options)
            };
            let here = loss(&columns);
            for (row, (tokens, _)) in step.iter().enumerate() {
                for (token, &(logp, old, _)) in tokens.iter().enumerate() {
                    let ratio = (logp - old).exp();
                    let (low, high) = options.ratio_bounds();
                    // The loss has a corner at the clipping bounds, where no slope is defined.
                    prop_assume!((ratio - low).abs() > 1e-4 && (ratio - high).abs() > 1e-4);
                    let shifted = |by: f64| { let mut c = columns.clone(); c[row][0][token] += by; loss(&c).loss };
                    let slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
                    prop_assert!((slope - here.gradient[row][token]).abs() < 1e-5);
                }
            }
        }
    }
}
