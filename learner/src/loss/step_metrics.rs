//! Metrics of a micro-batch: computed on the device, transferred to the host once per step.

use podium_grpo::Options;
use podium_grpo::options::LossType;
use podium_grpo::step_metrics::{COUNT, MINIMA, SUMS, StepMetrics};
use tch::{Device, Kind, Tensor};

use super::tokens::Tokens;

/// [`StepMetrics`] on the device: float64 \[[`COUNT`]\].
#[derive(Debug)]
pub struct OnDevice(Tensor);

/// Inputs of the metrics, each \[tokens\] except the loss.
pub(super) struct Measured<'a> {
    pub(super) loss: &'a Tensor,
    pub(super) gap: Option<&'a Tensor>,
    pub(super) ratio: &'a Tensor,
    pub(super) kl: Option<&'a Tensor>,
    pub(super) entropy: Option<&'a Tensor>,
}

impl OnDevice {
    pub(super) fn new(measured: &Measured<'_>, tokens: &Tokens, options: &Options) -> Self {
        let number = |value: f64| Tensor::full([], value, (Kind::Double, tokens.shares.device()));
        let mean = |x: Option<&Tensor>, shares: &Tensor| {
            x.map_or_else(|| number(0.0), |x| (x.to_kind(Kind::Double) * shares).sum(Kind::Double))
        };
        let none = [number(0.0), number(f64::INFINITY), number(f64::NEG_INFINITY)];
        let largest_gap = measured.gap.filter(|gap| gap.numel() > 0).map_or_else(
            || number(f64::NEG_INFINITY),
            |gap| gap.masked_fill(&tokens.active.logical_not(), f64::NEG_INFINITY).max(),
        );
        let (low, high) = clipped(measured.ratio, tokens, options);
        let clipped_of_completions =
            |clipped: &Tensor, excluded: f64| of_completions(clipped, excluded, tokens, options);
        let [no_sum, no_minimum, no_maximum] = none;
        let [correction, least_correction, most_correction] =
            corrections(tokens, options).unwrap_or([no_sum, no_minimum, no_maximum]);
        let numbers: [Tensor; COUNT] = [
            measured.loss.detach(),
            mean(measured.kl, &tokens.shares),
            mean(measured.entropy, &tokens.shares),
            mean(Some(&low), &tokens.ratio_shares),
            mean(Some(&high), &tokens.ratio_shares),
            mean(measured.gap, &tokens.shares),
            correction,
            clipped_of_completions(&low, f64::INFINITY).min(),
            least_correction,
            clipped_of_completions(&high, f64::NEG_INFINITY).max(),
            largest_gap,
            most_correction,
        ];
        Self(Tensor::stack(&numbers, 0))
    }

    /// Sums the metrics of a step's micro-batches, in one transfer to the host.
    pub fn total(parts: &[Self]) -> StepMetrics {
        if parts.is_empty() {
            return StepMetrics::default();
        }
        let all = Tensor::stack(&parts.iter().map(|part| &part.0).collect::<Vec<_>>(), 0);
        let columns = |first: usize, count: usize| all.narrow(1, first as i64, count as i64);
        let sums = columns(0, SUMS).sum_dim_intlist(0, false, Kind::Double);
        let minima = columns(SUMS, MINIMA).amin(0, false);
        let maxima = columns(SUMS + MINIMA, COUNT - SUMS - MINIMA).amax(0, false);
        let total = Tensor::cat(&[sums, minima, maxima], 0).to_device(Device::Cpu);
        StepMetrics::from_numbers(std::array::from_fn(|index| total.double_value(&[index as i64])))
    }
}

/// Whether each ratio is clipped, from below and from above: 1 or 0, \[tokens\].
fn clipped(ratio: &Tensor, tokens: &Tokens, options: &Options) -> (Tensor, Tensor) {
    let (low, high) = match options.loss_type {
        loss_type if loss_type.clips() => {
            let (low, high) = options.ratio_bounds();
            let ratio = options.delta.map_or_else(|| ratio.shallow_clone(), |delta| ratio.clamp_max(delta));
            (ratio.lt(low), ratio.gt(high))
        }
        LossType::Cispo => (ratio.lt(0.0), ratio.gt(options.ratio_cap())),
        _ => (ratio.lt(0.0), ratio.lt(0.0)),
    };
    let count = |clipped: &Tensor, sign: &Tensor| {
        clipped.logical_and(sign).logical_and(&tokens.active).to_kind(Kind::Double)
    };
    (count(&low, &tokens.advantages.lt(0.0)), count(&high, &tokens.advantages.gt(0.0)))
}

/// Returns the fraction of each completion's clipped tokens, \[completions + 1\]; `excluded` for a completion
/// outside the loss. The last entry is that of the empty completions, or `excluded`.
fn of_completions(clipped: &Tensor, excluded: f64, tokens: &Tokens, options: &Options) -> Tensor {
    let of_sequences = Tokens::has_ratios_of_completions(options);
    // An empty completion has no tokens, but counts if each completion has one ratio.
    let beside = if of_sequences && tokens.empty_completions > 0 { 0.0 } else { excluded };
    let beside = Tensor::full([1], beside, (Kind::Double, clipped.device()));
    let Some(completions) = &tokens.completions else { return beside };
    let mut shares = completions.means(clipped);
    if !of_sequences {
        let active = completions.means(&tokens.active.to_kind(Kind::Double));
        shares = shares.masked_fill(&active.eq(0.0), excluded);
    }
    Tensor::cat(&[shares, beside], 0)
}

/// Mean, smallest and largest importance weight for an older policy version.
fn corrections(tokens: &Tokens, options: &Options) -> Option<[Tensor; 3]> {
    let (weights, inactive) = (tokens.corrections.as_ref()?, tokens.active.logical_not());
    if options.importance_sampling_correction.is_of_sequences() {
        let empty = Tensor::ones([tokens.empty_completions as i64], (Kind::Double, weights.device()));
        let weights = match &tokens.completions {
            Some(completions) => {
                Tensor::cat(&[completions.means(&weights.masked_fill(&inactive, 1.0)), empty], 0)
            }
            None => empty,
        };
        let mean = weights.sum(Kind::Double) * tokens.completion_share;
        return (weights.numel() > 0).then(|| [mean, weights.min(), weights.max()]);
    }
    let mean = (weights * &tokens.shares).sum(Kind::Double);
    let without = |excluded: f64| weights.masked_fill(&inactive, excluded);
    (weights.numel() > 0).then(|| [mean, without(f64::INFINITY).min(), without(f64::NEG_INFINITY).max()])
}
