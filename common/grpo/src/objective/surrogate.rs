//! The policy term of a token's loss, without the KL term, and its derivatives.

use crate::options::{LossType, Options};

/// A token's loss as a function of the logarithm of its ratio and of its log-probability.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Loss {
    pub(super) value: f64,
    /// d value / d log ratio.
    pub(super) by_log_ratio: f64,
    /// d value / d log-probability, for a fixed ratio.
    pub(super) by_logprob: f64,
}

impl Loss {
    pub(super) fn scaled(self, by: f64) -> Self {
        Self {
            value: self.value * by,
            by_log_ratio: self.by_log_ratio * by,
            by_logprob: self.by_logprob * by,
        }
    }
}

/// Computes the policy loss of a token.
pub(super) fn loss(ratio: f64, logprob: f64, advantage: f64, options: &Options) -> Loss {
    match options.loss_type {
        LossType::Grpo | LossType::Bnpo | LossType::DrGrpo | LossType::Dapo | LossType::Luspo => {
            clipped(ratio, advantage, options)
        }
        LossType::Cispo => {
            let weight = ratio.min(options.ratio_cap()) * advantage;
            Loss { value: -weight * logprob, by_log_ratio: 0.0, by_logprob: -weight }
        }
        LossType::Sapo => gated(ratio, advantage, options),
    }
}

/// Returns the unclipped ratio, bounded by `delta`.
pub(super) fn bounded(ratio: f64, options: &Options) -> f64 {
    options.delta.map_or(ratio, |delta| ratio.min(delta))
}

fn clipped(ratio: f64, advantage: f64, options: &Options) -> Loss {
    let (low, high) = options.ratio_bounds();
    let within = |slope: f64, holds: bool| if holds { slope } else { 0.0 };
    let slope = -ratio * advantage;
    let free = (bounded(ratio, options) * advantage, within(slope, options.delta.is_none_or(|d| ratio <= d)));
    let clipped = (ratio.clamp(low, high) * advantage, within(slope, (low..=high).contains(&ratio)));
    let (value, by_log_ratio) = if free.0 <= clipped.0 { free } else { clipped };
    Loss { value: -value, by_log_ratio, by_logprob: 0.0 }
}

fn gated(ratio: f64, advantage: f64, options: &Options) -> Loss {
    let temperature =
        if advantage > 0.0 { options.sapo_temperature_pos } else { options.sapo_temperature_neg };
    let gate = 1.0 / (1.0 + (-temperature * (ratio - 1.0)).exp());
    Loss {
        value: -advantage * gate * 4.0 / temperature,
        by_log_ratio: -advantage * 4.0 * gate * (1.0 - gate) * ratio,
        by_logprob: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "a clipped token's slope is exact")]
    fn clipping_stops_the_gradient_only_beyond_its_bound() {
        let options = Options::default();
        let slope = |ratio, advantage| clipped(ratio, advantage, &options).by_log_ratio;
        assert_eq!((slope(1.5, 1.0), slope(0.5, -1.0)), (0.0, 0.0));
        assert_eq!((slope(1.5, -1.0), slope(0.5, 1.0)), (1.5, -0.5));
        let bounded = Options { delta: Some(4.0), ..options };
        assert_eq!(clipped(5.0, -1.0, &bounded), Loss { value: 4.0, by_log_ratio: 0.0, by_logprob: 0.0 });
        assert_eq!(clipped(3.0, -1.0, &bounded).by_log_ratio, 3.0);
    }

    #[test]
    fn the_cap_bounds_the_weight_and_preserves_the_gradient() {
        let options = Options { loss_type: LossType::Cispo, epsilon_high: Some(5.0), ..Options::default() };
        let capped = loss(9.0, -2.0, 0.5, &options);
        assert!((capped.value - 5.0).abs() < 1e-12 && (capped.by_logprob + 2.5).abs() < 1e-12);
    }

    #[test]
    fn the_gate_has_its_maximum_at_a_ratio_of_one() {
        let options = Options { loss_type: LossType::Sapo, ..Options::default() };
        let slope = |ratio, advantage| loss(ratio, 0.0, advantage, &options).by_log_ratio / ratio;
        assert!((slope(1.0, 2.0) + 2.0).abs() < 1e-12 && (slope(1.0, -2.0) - 2.0).abs() < 1e-12);
        assert!(slope(3.0, 2.0) > slope(1.0, 2.0) && slope(1e130, 2.0).abs() < 1e-12);
    }
}
