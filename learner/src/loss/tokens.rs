//! What the objective needs to know of each completion token, on the policy's device.

use podium_grpo::Options;
use podium_grpo::objective::LARGEST_LOG_RATIO;
use podium_grpo::options::{Correction, Level};
use tch::{Device, Kind, Tensor, no_grad};

use super::spans::Spans;
use crate::batch::MicroBatch;

/// A micro-batch's plan and log-probabilities: float64 \[tokens\] where nothing else is said.
///
/// It serves all passes of a step: what is fixed in the first stays so.
#[derive(Debug)]
pub struct Tokens {
    pub(super) advantages: Tensor,
    pub(super) weights: Tensor,
    pub(super) shares: Tensor,
    pub(super) ratio_shares: Tensor,
    /// Whether the completion is part of the loss, boolean.
    pub(super) active: Tensor,
    /// Tokens that share a ratio, unless each has its own.
    pub(super) ratios: Option<Spans>,
    /// Nothing where there is no token.
    pub(super) completions: Option<Spans>,
    pub(super) completion_share: f64,
    /// Completions without a token.
    pub(super) empty_completions: usize,
    /// Behaviour's, where they are known.
    pub(super) behaviour: Option<Tensor>,
    /// Those at the step's start, where ratios are taken to these: fixed in the first pass.
    start: Option<Tensor>,
    pub(super) reference: Option<Tensor>,
    /// Weights for an older policy version: fixed in the first pass.
    pub(super) corrections: Option<Tensor>,
}

impl Tokens {
    /// Brings a micro-batch's numbers to the device. `reference_logprobs`: \[tokens\], needed where `beta` is not 0.
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

    /// Fixes what the first pass decides: its log-probabilities are those at the step's start.
    pub(super) fn begin(&mut self, logprobs: &Tensor, options: &Options) {
        if self.start.is_none() && (self.behaviour.is_none() || options.renews_old()) {
            self.start = Some(logprobs.detach());
            self.corrections = no_grad(|| self.corrections(options));
        }
    }

    /// What ratios are taken to.
    pub(super) fn old(&self) -> Option<&Tensor> {
        self.start.as_ref().or(self.behaviour.as_ref())
    }

    /// Distance of log-probabilities from behaviour's, where those are known.
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

    /// Whether every completion has one ratio, masked and empty ones too.
    pub(super) fn has_ratios_of_completions(options: &Options) -> bool {
        options.importance_sampling_level == Level::Sequence
    }
}
