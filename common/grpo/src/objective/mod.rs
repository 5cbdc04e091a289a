//! The GRPO objective in `f64`: the reference that the learner's libtorch loss is tested against.
//!
//! Per token, with `r = exp(logp − old)`, or one such ratio shared by several tokens ([`crate::options::Level`]): `loss
//! = c·policy_loss(r, A) + beta·k3`. Here `k3 = exp(ref − logp) − (ref − logp) − 1` estimates the KL divergence from
//! the reference policy (arXiv 2402.03300, equations 3 and 4); bias correction multiplies it by `r` (arXiv 2512.02556).
//! `c` is the importance weight for an older policy version. [`crate::options::LossType`] defines `policy_loss` and the
//! sum over tokens.

mod ratio;
mod surrogate;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::options::{Level, LossType, Options};
use crate::plan::Plan;
use crate::step_metrics::StepMetrics;
pub use ratio::LARGEST_LOG_RATIO;
use surrogate::Loss;

/// Log-probabilities of a plan's tokens in nats, and entropies. All slices have one entry per token.
#[derive(Debug, Clone, Copy)]
pub struct Logprobs<'a> {
    /// Under the policy that is trained.
    pub policy: &'a [f64],
    /// Under the policy version that sampled the tokens, if known.
    pub behaviour: Option<&'a [f64]>,
    /// Under the policy at the start of the step, if ratios are relative to it and it differs from the trained policy.
    pub old: Option<&'a [f64]>,
    /// Under the reference policy; read only if `beta` is not 0.
    pub reference: Option<&'a [f64]>,
    /// Entropy of the policy's distributions.
    pub entropy: &'a [f64],
}

impl<'a> Logprobs<'a> {
    /// Returns the denominators of the ratios: the behaviour log-probabilities, or those at the start of the step if
    /// the former are unknown or corrected for. In the first pass the latter equal the policy's own, without gradient.
    fn old(&self, options: &Options) -> &'a [f64] {
        match self.behaviour {
            Some(behaviour) if !options.renews_old() => behaviour,
            _ => self.old.unwrap_or(self.policy),
        }
    }
}

/// The objective of completions and its derivatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Objective {
    /// Loss and metrics.
    pub metrics: StepMetrics,
    /// d loss / d logprob of every token.
    pub gradient: Vec<f64>,
    /// d loss / d entropy of every token.
    pub entropy_gradient: Vec<f64>,
}

/// Computes the objective of a plan's completions.
pub fn objective(plan: &Plan, logprobs: &Logprobs<'_>, options: &Options) -> Objective {
    let old = logprobs.old(options);
    let logs = ratio::log_ratios(plan, logprobs.policy, old);
    let corrections = ratio::corrections(plan, old, logprobs.behaviour.unwrap_or(old), options);
    let mut metrics = StepMetrics::default();
    let (mut direct, mut by_log_ratio) = (Vec::new(), Vec::new());
    for token in 0..plan.len() {
        let (logp, advantage) = (logprobs.policy[token], plan.advantages[token]);
        let ratio = logs[token].min(LARGEST_LOG_RATIO).exp();
        let mut loss = surrogate::loss(ratio, logp, advantage, options).scaled(corrections[token]);
        if let Some(reference) = logprobs.reference.filter(|_| options.beta != 0.0) {
            let kl = kl(reference[token] - logp, ratio, options);
            metrics.kl += plan.shares[token] * kl.value;
            loss.value += options.beta * kl.value;
            loss.by_log_ratio += options.beta * kl.by_log_ratio;
            loss.by_logprob += options.beta * kl.by_logprob;
        }
        // The ratio is constant above the cap.
        let slope = if logs[token] <= LARGEST_LOG_RATIO { loss.by_log_ratio } else { 0.0 };
        metrics.loss += plan.weights[token] * loss.value;
        metrics.entropy += plan.shares[token] * logprobs.entropy[token];
        direct.push(plan.weights[token] * loss.by_logprob);
        by_log_ratio.push(plan.weights[token] * slope);
    }
    metrics.loss -= options.entropy_coef * metrics.entropy;
    add_clipping(&mut metrics, plan, &logs, options);
    if let Some(behaviour) = logprobs.behaviour {
        add_gap(&mut metrics, plan, logprobs.policy, behaviour);
        if options.renews_old() {
            add_corrections(&mut metrics, plan, &corrections, options);
        }
    }
    let carried = ratio::carry_back(plan, by_log_ratio);
    Objective {
        metrics,
        gradient: direct.iter().zip(carried).map(|(direct, carried)| direct + carried).collect(),
        entropy_gradient: plan.shares.iter().map(|share| -options.entropy_coef * share).collect(),
    }
}

/// Computes k3 for a token whose reference log-probability exceeds the policy's by `gap`.
fn kl(gap: f64, ratio: f64, options: &Options) -> Loss {
    let capped = gap.min(LARGEST_LOG_RATIO);
    let value = capped.exp() - capped - 1.0;
    let by_logprob = if gap <= LARGEST_LOG_RATIO { 1.0 - capped.exp() } else { 0.0 };
    if options.use_bias_correction_kl {
        Loss { value: value * ratio, by_log_ratio: value * ratio, by_logprob: by_logprob * ratio }
    } else {
        Loss { value, by_log_ratio: 0.0, by_logprob }
    }
}

/// Returns whether a token's ratio is clipped from below and from above.
fn is_clipped(ratio: f64, advantage: f64, options: &Options) -> (bool, bool) {
    let (low, high) = options.ratio_bounds();
    match options.loss_type {
        loss_type if loss_type.clips() => {
            let ratio = surrogate::bounded(ratio, options);
            (ratio < low && advantage < 0.0, ratio > high && advantage > 0.0)
        }
        LossType::Cispo => (false, ratio > options.ratio_cap() && advantage > 0.0),
        _ => (false, false),
    }
}

fn add_clipping(metrics: &mut StepMetrics, plan: &Plan, logs: &[f64], options: &Options) {
    let clipped = |token: usize| {
        let ratio = logs[token].min(LARGEST_LOG_RATIO).exp();
        let (low, high) = is_clipped(ratio, plan.advantages[token], options);
        let holds = |clipped: bool| f64::from(u8::from(clipped && plan.is_active(token)));
        (holds(low), holds(high))
    };
    let of_sequences = options.importance_sampling_level == Level::Sequence;
    for tokens in &plan.completions {
        let (mut low, mut high) = (0.0, 0.0);
        for token in tokens.clone() {
            let clipped = clipped(token);
            low += clipped.0;
            high += clipped.1;
            metrics.clipped_low += plan.ratio_shares[token] * clipped.0;
            metrics.clipped_high += plan.ratio_shares[token] * clipped.1;
        }
        // A masked completion has no active token, but with one ratio per completion it has a ratio.
        if of_sequences || is_active(plan, tokens) {
            let length = tokens.len().max(1) as f64;
            metrics.least_clipped_low = metrics.least_clipped_low.min(low / length);
            metrics.most_clipped_high = metrics.most_clipped_high.max(high / length);
        }
    }
}

fn add_gap(metrics: &mut StepMetrics, plan: &Plan, policy: &[f64], behaviour: &[f64]) {
    for token in (0..plan.len()).filter(|token| plan.is_active(*token)) {
        let gap = (policy[token] - behaviour[token]).abs();
        metrics.gap += plan.shares[token] * gap;
        metrics.largest_gap = metrics.largest_gap.max(gap);
    }
}

/// Adds the importance weights: per token, or per completion, where a masked or empty completion has weight 1.
fn add_corrections(metrics: &mut StepMetrics, plan: &Plan, corrections: &[f64], options: &Options) {
    let mut count = |weight: f64, share: f64| {
        metrics.correction += share * weight;
        metrics.least_correction = metrics.least_correction.min(weight);
        metrics.most_correction = metrics.most_correction.max(weight);
    };
    for tokens in &plan.completions {
        let active = is_active(plan, tokens);
        if options.importance_sampling_correction.is_of_sequences() {
            count(if active { corrections[tokens.start] } else { 1.0 }, plan.completion_share);
        } else if active {
            tokens.clone().for_each(|token| count(corrections[token], plan.shares[token]));
        }
    }
}

fn is_active(plan: &Plan, tokens: &Range<usize>) -> bool {
    !tokens.is_empty() && plan.is_active(tokens.start)
}
