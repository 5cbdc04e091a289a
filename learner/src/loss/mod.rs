//! The GRPO objective on libtorch: [`podium_grpo::objective`] in tensors, from the same plan.
//!
//! Computed in float64: a ratio that overflows float32 stays finite, and an advantage of 0 stays 0. The numbers are
//! few, so that the cost is small.

mod spans;
mod step_metrics;
mod tokens;

use podium_grpo::Options;
use podium_grpo::objective::LARGEST_LOG_RATIO;
use podium_grpo::options::LossType;
use tch::{Kind, Tensor, no_grad};

use step_metrics::Measured;
pub use step_metrics::OnDevice;
pub use tokens::Tokens;

/// The objective of a micro-batch.
#[derive(Debug)]
pub struct Objective {
    /// The micro-batch's part of the step's loss; a scalar with a gradient.
    pub loss: Tensor,
    /// Metrics of its tokens; they stay on the device until the end of the step.
    pub metrics: OnDevice,
    /// Distance of each token's log-probability from the behaviour policy's, in nats, \[tokens\]; 0 in masked
    /// completions. `None` if the behaviour log-probabilities are unknown.
    pub gap: Option<Tensor>,
}

/// Computes the objective of one micro-batch.
///
/// `logprobs`: \[tokens\] under the policy in training, float32, with a gradient. `entropy`: \[tokens\], with a
/// gradient if `entropy_coef` is not 0. The first call of a step stores in `tokens` the values that later passes use.
pub fn objective(
    logprobs: &Tensor,
    entropy: Option<&Tensor>,
    tokens: &mut Tokens,
    options: &Options,
) -> Objective {
    let logprobs = logprobs.to_kind(Kind::Double);
    tokens.begin(&logprobs, options);
    let tokens = &*tokens;
    let ratio = ratio(&logprobs, tokens);
    let mut losses = policy_losses(&logprobs, &ratio, tokens, options);
    if let Some(corrections) = &tokens.corrections {
        losses *= corrections;
    }
    let kl = tokens.reference.as_ref().filter(|_| options.beta != 0.0).map(|reference| {
        let gap = (reference - &logprobs).clamp_max(LARGEST_LOG_RATIO);
        let k3 = gap.exp() - gap - 1.0;
        if options.use_bias_correction_kl { k3 * &ratio } else { k3 }
    });
    if let Some(kl) = &kl {
        losses += kl * options.beta;
    }
    let mut loss = (losses * &tokens.weights).sum(Kind::Double);
    if let Some(entropy) = entropy.filter(|_| options.entropy_coef != 0.0) {
        let mean = (entropy.to_kind(Kind::Double) * &tokens.shares).sum(Kind::Double);
        loss -= mean * options.entropy_coef;
    }
    let gap = no_grad(|| tokens.gap(&logprobs));
    let measured = Measured { loss: &loss, gap: gap.as_ref(), ratio: &ratio, kl: kl.as_ref(), entropy };
    let metrics = no_grad(|| OnDevice::new(&measured, tokens, options));
    let gap = gap.map(|gap| gap.masked_fill(&tokens.active.logical_not(), 0.0));
    Objective { loss, metrics, gap }
}

/// Returns the ratio of each token, or of the sequence or item that it belongs to.
fn ratio(logprobs: &Tensor, tokens: &Tokens) -> Tensor {
    let logs = tokens.old().map_or_else(|| logprobs.zeros_like(), |old| logprobs - old);
    let logs = match &tokens.ratios {
        Some(ratios) => ratios.spread(&ratios.means(&logs)),
        None => logs,
    };
    logs.clamp_max(LARGEST_LOG_RATIO).exp()
}

/// Returns each token's loss without the KL term.
fn policy_losses(logprobs: &Tensor, ratio: &Tensor, tokens: &Tokens, options: &Options) -> Tensor {
    let advantages = &tokens.advantages;
    match options.loss_type {
        LossType::Grpo | LossType::Bnpo | LossType::DrGrpo | LossType::Dapo | LossType::Luspo => {
            let (low, high) = options.ratio_bounds();
            let clipped = ratio.clamp(low, high) * advantages;
            let free = match options.delta {
                Some(delta) => ratio.clamp_max(delta) * advantages,
                None => ratio * advantages,
            };
            -free.minimum(&clipped)
        }
        LossType::Cispo => -(ratio.clamp_max(options.ratio_cap()).detach() * advantages * logprobs),
        LossType::Sapo => {
            let (positive, other) = (options.sapo_temperature_pos, options.sapo_temperature_neg);
            let temperatures = advantages.gt(0.0).to_kind(Kind::Double) * (positive - other) + other;
            let gate = ((ratio - 1.0) * &temperatures).sigmoid() * 4.0 / temperatures;
            -(gate * advantages)
        }
    }
}

#[cfg(test)]
mod tests;
