//! The GRPO objective on libtorch: [`podium_grpo::objective`] in tensors.
//!
//! Computed in float64 on the few numbers that there are, so that a ratio which overflows float32 is still one, and an
//! advantage of 0 stays 0 beside it.

use podium_grpo::Options;
use tch::{Device, Kind, Tensor, no_grad};

use crate::batch::MicroBatch;

/// Log-ratios are capped here: beyond it their exponential is infinite in float64 too, and infinity times an advantage
/// of 0 is not a number.
const LARGEST_LOG_RATIO: f64 = 700.0;

/// What the objective needs to know of each completion token: float64 \[tokens\], on the policy's device.
#[derive(Debug)]
pub struct Tokens {
    old_logprobs: Tensor,
    reference_logprobs: Option<Tensor>,
    advantages: Tensor,
    weights: Tensor,
}

/// The objective of a micro-batch.
#[derive(Debug)]
pub struct Objective {
    /// The micro-batch's part of the step's loss; a scalar that can be carried back.
    pub loss: Tensor,
    /// Figures about its tokens.
    pub figures: Figures,
}

/// Sums over tokens and the largest gap, float64, in the order of [`Totals`]; they stay on the device until the step is
/// over.
#[derive(Debug)]
pub struct Figures {
    sums: Tensor,
    largest_gap: Tensor,
}

/// [`Figures`] of a whole step, on the host.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// The loss.
    pub loss: f64,
    /// Sum over tokens of k3, 0 where `beta` is 0.
    pub kl: f64,
    /// Tokens whose ratio was clipped from below, with a negative advantage.
    pub clipped_low: f64,
    /// Tokens whose ratio was clipped from above, with a positive advantage.
    pub clipped_high: f64,
    /// Sum over tokens of the entropy, in nats.
    pub entropy: f64,
    /// Sum over tokens of the distance between recomputed and behaviour log-probability, in nats.
    pub gap: f64,
    /// The largest of those distances.
    pub largest_gap: f64,
}

impl Tokens {
    /// Brings a micro-batch's numbers to the device. `reference_logprobs`: \[tokens\], needed where `beta` is not 0.
    pub fn new(batch: &MicroBatch<'_>, reference_logprobs: Option<&Tensor>, device: Device) -> Self {
        Self {
            old_logprobs: Tensor::from_slice(&batch.old_logprobs).to_device(device).to_kind(Kind::Double),
            reference_logprobs: reference_logprobs.map(|logprobs| logprobs.to_kind(Kind::Double)),
            advantages: Tensor::from_slice(&batch.advantages).to_device(device),
            weights: Tensor::from_slice(&batch.weights).to_device(device),
        }
    }
}

/// Computes the objective of one micro-batch.
///
/// `logprobs`: \[tokens\] under the policy being trained, float32, of which the loss is a function. `entropy`: \[tokens\],
/// for the figures.
pub fn objective(
    logprobs: &Tensor,
    entropy: Option<&Tensor>,
    tokens: &Tokens,
    options: &Options,
) -> Objective {
    let (low, high) = options.ratio_bounds();
    let logprobs = logprobs.to_kind(Kind::Double);
    let log_ratio = &logprobs - &tokens.old_logprobs;
    let ratio = log_ratio.clamp_max(LARGEST_LOG_RATIO).exp();
    let free = &ratio * &tokens.advantages;
    let clipped = ratio.clamp(low, high) * &tokens.advantages;
    let mut losses = -free.minimum(&clipped);
    let k3 = tokens.reference_logprobs.as_ref().filter(|_| options.beta != 0.0).map(|reference| {
        let gap = (reference - &logprobs).clamp_max(LARGEST_LOG_RATIO);
        gap.exp() - gap - 1.0
    });
    if let Some(k3) = &k3 {
        losses += k3 * options.beta;
    }
    let loss = (losses * &tokens.weights).sum(Kind::Double);
    let figures = no_grad(|| {
        let none = || Tensor::zeros([], (Kind::Double, loss.device()));
        let count = |condition: Tensor| condition.sum(Kind::Double);
        let gap = log_ratio.abs();
        let sums = [
            loss.detach(),
            k3.map_or_else(none, |k3| k3.sum(Kind::Double)),
            count(ratio.lt(low).logical_and(&tokens.advantages.lt(0.0))),
            count(ratio.gt(high).logical_and(&tokens.advantages.gt(0.0))),
            entropy.map_or_else(none, |entropy| entropy.sum(Kind::Double)),
            gap.sum(Kind::Double),
        ];
        let largest_gap = if gap.numel() == 0 { none() } else { gap.max() };
        Figures { sums: Tensor::stack(&sums, 0), largest_gap }
    });
    Objective { loss, figures }
}

impl Figures {
    /// Adds up the figures of a step's micro-batches, in one transfer to the host.
    pub fn total(figures: &[Self]) -> Totals {
        if figures.is_empty() {
            return Totals::default();
        }
        let sums: Vec<&Tensor> = figures.iter().map(|figures| &figures.sums).collect();
        let gaps: Vec<&Tensor> = figures.iter().map(|figures| &figures.largest_gap).collect();
        let sums = Tensor::stack(&sums, 0).sum_dim_intlist(0, false, Kind::Double);
        let all = Tensor::cat(&[sums, Tensor::stack(&gaps, 0).max().view(1)], 0).to_device(Device::Cpu);
        Totals::from_numbers(|index| all.double_value(&[index as i64]))
    }
}

impl Totals {
    /// For an exchange between ranks; read by [`Self::over_ranks`].
    pub const fn to_numbers(self) -> [f64; 7] {
        [self.loss, self.kl, self.clipped_low, self.clipped_high, self.entropy, self.gap, self.largest_gap]
    }

    /// The totals of a step whose ranks have those [`Self::to_numbers`] gave.
    pub fn over_ranks(ranks: &[Vec<f64>]) -> Self {
        let all = |index: usize| ranks.iter().map(move |numbers| numbers[index]);
        Self::from_numbers(|index| if index == 6 { all(6).fold(0.0, f64::max) } else { all(index).sum() })
    }

    fn from_numbers(number: impl Fn(usize) -> f64) -> Self {
        Self {
            loss: number(0),
            kl: number(1),
            clipped_low: number(2),
            clipped_high: number(3),
            entropy: number(4),
            gap: number(5),
            largest_gap: number(6),
        }
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::objective::{self as reference, token_weight};
    use podium_grpo::options::LossType;
    use proptest::prelude::*;

    use super::*;

    /// (log-probability, behaviour's, reference's) of each token, and the advantage.
    type Completion = (Vec<(f32, f32, f32)>, f64);

    fn arbitrary_completion() -> impl Strategy<Value = Completion> {
        let advantage = prop_oneof![4 => -2.0..2.0_f64, 1 => Just(0.0)];
        // The widest ratio, exp(150), overflows float32.
        let logprob = || prop_oneof![8 => -3.0..0.0_f32, 1 => -150.0..0.0_f32];
        (prop::collection::vec((logprob(), logprob(), logprob()), 0..6), advantage)
    }

    /// Value, gradient and figures by libtorch, all completions in one micro-batch.
    fn by_libtorch(step: &[Completion], options: &Options) -> (Totals, Vec<f64>) {
        let tokens =
            || step.iter().flat_map(|(tokens, advantage)| tokens.iter().map(move |t| (t, *advantage)));
        let total = tokens().count();
        let weight = |length| token_weight(options.loss_type, length, step.len(), total);
        let batch = MicroBatch {
            groups: vec![],
            moves: true,
            old_logprobs: tokens().map(|(t, _)| t.1).collect(),
            advantages: tokens().map(|(_, advantage)| advantage).collect(),
            weights: step.iter().flat_map(|(t, _)| vec![weight(t.len()); t.len()]).collect(),
        };
        let reference = Tensor::from_slice(&tokens().map(|(t, _)| t.2).collect::<Vec<f32>>());
        // A float64 leaf: the gradient is compared before it is rounded.
        let logprobs: Vec<f64> = tokens().map(|(t, _)| f64::from(t.0)).collect();
        let logprobs = Tensor::from_slice(&logprobs).set_requires_grad(true);
        let tokens = Tokens::new(&batch, Some(&reference), Device::Cpu);
        let result = objective(&logprobs, None, &tokens, options);
        result.loss.backward();
        (Figures::total(&[result.figures]), Vec::try_from(logprobs.grad()).unwrap())
    }

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-9 * (1.0 + expected.abs())
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference(
            step in prop::collection::vec(arbitrary_completion(), 1..5),
            beta in prop::sample::select(vec![0.0, 0.1]),
            loss_type in prop::sample::select(vec![LossType::Grpo, LossType::Dapo]),
            epsilon_high in prop::option::of(0.1..0.5_f64),
        ) {
            let options = Options { beta, loss_type, epsilon_high, ..Options::default() };
            let columns: Vec<[Vec<f64>; 3]> = step.iter()
                .map(|(tokens, _)| [0, 1, 2].map(|column| {
                    tokens.iter().map(|t| f64::from([t.0, t.1, t.2][column])).collect()
                }))
                .collect();
            let completions: Vec<reference::Tokens<'_>> = columns.iter().zip(&step)
                .map(|(columns, (_, advantage))| reference::Tokens {
                    logprobs: &columns[0], old_logprobs: &columns[1], reference_logprobs: &columns[2],
                    advantage: *advantage,
                })
                .collect();
            let expected = reference::objective(&completions, &options);
            let (totals, gradient) = by_libtorch(&step, &options);
            let count = gradient.len().max(1) as f64;
            prop_assert!(close(totals.loss, expected.loss), "{} instead of {}", totals.loss, expected.loss);
            prop_assert!(close(totals.kl / count, expected.kl));
            prop_assert!(close(totals.clipped_low / count, expected.clip_ratio_low));
            prop_assert!(close(totals.clipped_high / count, expected.clip_ratio_high));
            for (found, expected) in gradient.iter().zip(expected.gradient.iter().flatten()) {
                prop_assert!(close(*found, *expected), "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn nothing_overflows_into_something_that_is_no_number() {
        let (totals, gradient) = by_libtorch(&[(vec![(0.0, -2000.0, -2000.0)], 0.0)], &Options::default());
        assert!(totals.loss.abs() < f64::EPSILON);
        assert!(gradient[0].abs() < f64::EPSILON);
        assert!((totals.largest_gap - 2000.0).abs() < 1e-9);
        let (totals, gradient) = by_libtorch(&[(vec![], 1.0)], &Options::default());
        assert_eq!((totals, gradient), (Totals::default(), vec![]));
    }
}
