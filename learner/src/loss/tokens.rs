//! Inputs of the objective for each completion token, on the policy's device.

use podium_grpo::Options;
use podium_grpo::objective::LARGEST_LOG_RATIO;
use podium_grpo::options::{Correction, Level};
use tch::{Device, Kind, Tensor, no_grad};

use super::spans::Spans;
use crate::batch::MicroBatch;

/// A micro-batch's plan and log-probabilities: float64 \[tokens\] unless stated otherwise.
///
/// It is used by all passes of a step: the values of the first pass stay fixed.
#[derive(Debug)]
pub struct Tokens {
    pub(super) advantages: Tensor,
    pub(super) weights: Tensor,
    pub(super) shares: Tensor,
    pub(super) ratio_shares: Tensor,
    /// Whether the completion is part of the loss, boolean.
    pub(super) active: Tensor,
    /// Groups of tokens that share a ratio, unless each token has its own.
    pub(super) ratios: Option<Spans>,
    /// `None` if there is no token.
    pub(super) completions: Option<Spans>,
    pub(super) completion_share: f64,
    /// Number of completions without a token.
    pub(super) empty_completions: usize,
    /// Behaviour log-probabilities, if known.
    pub(super) behaviour: Option<Tensor>,
    /// Log-probabilities at the step's start, if ratios refer to these: fixed in the first pass.
    start: Option<Tensor>,
    pub(super) reference: Option<Tensor>,
    /// Importance weights for an older policy version: fixed in the first pass.
    pub(super) corrections: Option<Tensor>,
}

impl Tokens {
    /// Transfers a micro-batch's numbers to the device. `reference_logprobs`: \[tokens\], required if `beta` is not
    /// 0.
    pub fn new(batch: &MicroBatch<'_>, reference_logprobs: Option<&Tensor>, device: Device) -> Self {
        let plan = &batch.plan;
        let on_device = |numbers: &[f64]| Tensor::from_slice(numbers).to_device(device);
        let shares = on_device(&plan.shares);
        let behaviour = batch.behaviour_logprobs.as_deref();
        Self {
            advantages: on_device(&plan.advantages),
            weights: on_device(&plan.weights),
            ratio_shares: on_device(&plan.ratio_shares),
            active: shares.gt(0.0),
            shares,
            ratios: plan.ratios.as_deref().and_then(|ratios| Spans::new(ratios, device)),
            completions: Spans::new(&plan.completions, device),
            completion_share: plan.completion_share,
            empty_completions: plan.completions.iter().filter(|tokens| tokens.is_empty()).count(),
            behaviour: behaviour
                .map(|logprobs| Tensor::from_slice(logprobs).to_device(device).to_kind(Kind::Double)),
            start: None,
            reference: reference_logprobs.map(|logprobs| logprobs.to_kind(Kind::Double)),
            corrections: None,
        }
    }

    /// Fixes the values of the first pass: its log-probabilities are those at the step's start.
    pub(super) fn begin(&mut self, logprobs: &Tensor, options: &Options) {
        if self.start.is_none() && (self.behaviour.is_none() || options.renews_old()) {
            self.start = Some(logprobs.detach());
            self.corrections = no_grad(|| self.corrections(options));
        }
    }

    /// Returns the denominator of ratios.
    pub(super) fn old(&self) -> Option<&Tensor> {
        self.start.as_ref().or(self.behaviour.as_ref())
    }

    /// Returns the distance of log-probabilities from the behaviour policy's, if known.
    pub(super) fn gap(&self, logprobs: &Tensor) -> Option<Tensor> {
        self.behaviour.as_ref().map(|behaviour| (logprobs - behaviour).abs())
    }

    /// exp(old − behaviour), bounded by the cap.
    fn corrections(&self, options: &Options) -> Option<Tensor> {
        let kind = options.importance_sampling_correction;
        let (start, behaviour) = (self.start.as_ref()?, self.behaviour.as_ref()?);
        if kind == Correction::None {
            return None;
        }
        let mut logs = start - behaviour;
        if let Some(completions) = self.completions.as_ref().filter(|_| kind.is_of_sequences()) {
            logs = completions.spread(&completions.sums(&logs));
        }
        let weights = logs.clamp_max(LARGEST_LOG_RATIO).exp();
        let cap = options.importance_sampling_cap;
        let bounded =
            if kind.masks() { weights.masked_fill(&weights.gt(cap), 0.0) } else { weights.clamp_max(cap) };
        Some(bounded)
    }

    /// Whether every completion has one ratio, including masked and empty completions.
    pub(super) fn has_ratios_of_completions(options: &Options) -> bool {
        options.importance_sampling_level == Level::Sequence
    }
}
