//! The GRPO objective in `f64`: the reference that the learner's libtorch loss is tested against.
//!
//! Per token, with `r = exp(logp − old)`, or one such ratio for the tokens that [`crate::options::Level`] says:
//! `loss = c·policy_loss(r, A) + beta·k3`, where `k3 = exp(ref − logp) − (ref − logp) − 1` estimates the KL divergence
//! from the reference policy (arXiv 2402.03300, equations 3 and 4), is multiplied by `r` where its bias is corrected
//! (arXiv 2512.02556), and `c` corrects for an older policy version. [`crate::options::LossType`] says what
//! `policy_loss` is and how tokens are summed.

mod ratio;
mod surrogate;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::figures::Figures;
use crate::options::{Level, LossType, Options};
use crate::plan::Plan;
pub use ratio::LARGEST_LOG_RATIO;
use surrogate::Loss;

/// Log-probabilities of a plan's tokens in nats, and entropies.
#[derive(Debug, Clone, Copy)]
pub struct Logprobs<'a> {
    /// Under the policy being trained.
    pub policy: &'a [f64],
    /// Under the policy version that sampled, if that is known.
    pub behaviour: Option<&'a [f64]>,
    /// Under the policy at the step's start, where ratios are taken to that and it is not the policy being trained.
    pub old: Option<&'a [f64]>,
    /// Under the reference; read only where `beta` is not 0.
    pub reference: Option<&'a [f64]>,
    /// Entropy of the policy's distributions.
    pub entropy: &'a [f64],
}

impl<'a> Logprobs<'a> {
    /// What ratios are taken to: behaviour's, or those at the step's start where behaviour's are not known or corrected
    /// for. In the first pass the latter are the policy's own, held fixed.
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
    /// Loss and figures.
    pub figures: Figures,
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
    let mut figures = Figures::default();
    let (mut direct, mut by_log_ratio) = (Vec::new(), Vec::new());
    for token in 0..plan.len() {
        let (logp, advantage) = (logprobs.policy[token], plan.advantages[token]);
        let ratio = logs[token].min(LARGEST_LOG_RATIO).exp();
        let mut loss = surrogate::loss(ratio, logp, advantage, options).scaled(corrections[token]);
        if let Some(reference) = logprobs.reference.filter(|_| options.beta != 0.0) {
            let kl = kl(reference[token] - logp, ratio, options);
            figures.kl += plan.shares[token] * kl.value;
            loss.value += options.beta * kl.value;
            loss.by_log_ratio += options.beta * kl.by_log_ratio;
            loss.by_logprob += options.beta * kl.by_logprob;
        }
        // Beyond the cap the ratio stays.
        let slope = if logs[token] <= LARGEST_LOG_RATIO { loss.by_log_ratio } else { 0.0 };
        figures.loss += plan.weights[token] * loss.value;
        figures.entropy += plan.shares[token] * logprobs.entropy[token];
        direct.push(plan.weights[token] * loss.by_logprob);
        by_log_ratio.push(plan.weights[token] * slope);
    }
    figures.loss -= options.entropy_coef * figures.entropy;
    clip_figures(&mut figures, plan, &logs, options);
    if let Some(behaviour) = logprobs.behaviour {
        gap_figures(&mut figures, plan, logprobs.policy, behaviour);
        if options.renews_old() {
            correction_figures(&mut figures, plan, &corrections, options);
        }
    }
    let carried = ratio::carry_back(plan, by_log_ratio);
    Objective {
        figures,
        gradient: direct.iter().zip(carried).map(|(direct, carried)| direct + carried).collect(),
        entropy_gradient: plan.shares.iter().map(|share| -options.entropy_coef * share).collect(),
    }
}

/// k3 for a token whose reference log-probability is `gap` above the policy's.
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

/// Whether a token's ratio is clipped: from below, and from above.
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

fn clip_figures(figures: &mut Figures, plan: &Plan, logs: &[f64], options: &Options) {
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
            figures.clipped_low += plan.ratio_shares[token] * clipped.0;
            figures.clipped_high += plan.ratio_shares[token] * clipped.1;
        }
        // A masked completion has no token to look at, but where each completion has one ratio it has one, too.
        if of_sequences || is_active(plan, tokens) {
            let length = tokens.len().max(1) as f64;
            figures.least_clipped_low = figures.least_clipped_low.min(low / length);
            figures.most_clipped_high = figures.most_clipped_high.max(high / length);
        }
    }
}

fn gap_figures(figures: &mut Figures, plan: &Plan, policy: &[f64], behaviour: &[f64]) {
    for token in (0..plan.len()).filter(|token| plan.is_active(*token)) {
        let gap = (policy[token] - behaviour[token]).abs();
        figures.gap += plan.shares[token] * gap;
        figures.largest_gap = figures.largest_gap.max(gap);
    }
}

/// Over tokens, or over completions where each has one weight; that of a masked or empty one is 1.
fn correction_figures(figures: &mut Figures, plan: &Plan, corrections: &[f64], options: &Options) {
    let mut count = |weight: f64, share: f64| {
        figures.correction += share * weight;
        figures.least_correction = figures.least_correction.min(weight);
        figures.most_correction = figures.most_correction.max(weight);
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
