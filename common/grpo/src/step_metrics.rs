//! Metrics of a step, as TRL defines them, and their aggregation over the parts of a step.

/// Metrics of a step or of a part of it. Means are over the whole step, so that the means of parts add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepMetrics {
    /// The loss.
    pub loss: f64,
    /// Mean over tokens of the KL estimate, bias-corrected if configured; 0 without a reference.
    pub kl: f64,
    /// Mean over tokens of the entropy, in nats.
    pub entropy: f64,
    /// Fraction of ratios below the lower bound with a negative advantage.
    pub clipped_low: f64,
    /// Fraction of ratios above the upper bound (`cispo`: the cap) with a positive advantage.
    pub clipped_high: f64,
    /// Mean over tokens of the absolute difference between recomputed and behaviour log-probability, in nats.
    pub gap: f64,
    /// Mean importance weight for an older policy version, over tokens or, if each completion has one weight,
    /// completions.
    pub correction: f64,
    /// Smallest fraction of a completion's ratios below the lower bound; infinite without completions in the loss.
    pub least_clipped_low: f64,
    /// Smallest importance weight; infinite without weights.
    pub least_correction: f64,
    /// Largest fraction of a completion's ratios above the upper bound; minus infinity without completions in the loss.
    pub most_clipped_high: f64,
    /// Largest absolute difference between recomputed and behaviour log-probability, in nats; minus infinity if none is
    /// known.
    pub largest_gap: f64,
    /// Largest importance weight; minus infinity without weights.
    pub most_correction: f64,
}

/// Number of metrics.
pub const COUNT: usize = 12;
/// Number of leading entries of [`StepMetrics::to_numbers`] that are summed over parts.
pub const SUMS: usize = 7;
/// Number of following entries that are combined by minimum; the rest is combined by maximum.
pub const MINIMA: usize = 2;

impl Default for StepMetrics {
    /// The neutral element of [`Self::total`].
    fn default() -> Self {
        let mut numbers = [0.0; COUNT];
        numbers[SUMS..SUMS + MINIMA].fill(f64::INFINITY);
        numbers[SUMS + MINIMA..].fill(f64::NEG_INFINITY);
        Self::from_numbers(numbers)
    }
}

impl StepMetrics {
    /// Returns all values in a fixed order: sums, then minima, then maxima.
    pub const fn to_numbers(self) -> [f64; COUNT] {
        [
            self.loss,
            self.kl,
            self.entropy,
            self.clipped_low,
            self.clipped_high,
            self.gap,
            self.correction,
            self.least_clipped_low,
            self.least_correction,
            self.most_clipped_high,
            self.largest_gap,
            self.most_correction,
        ]
    }

    /// Inverse of [`Self::to_numbers`].
    pub const fn from_numbers(numbers: [f64; COUNT]) -> Self {
        let [
            loss,
            kl,
            entropy,
            clipped_low,
            clipped_high,
            gap,
            correction,
            least_clipped_low,
            least_correction,
            most_clipped_high,
            largest_gap,
            most_correction,
        ] = numbers;
        Self {
            loss,
            kl,
            entropy,
            clipped_low,
            clipped_high,
            gap,
            correction,
            least_clipped_low,
            least_correction,
            most_clipped_high,
            largest_gap,
            most_correction,
        }
    }

    /// Aggregates the metrics of parts, in their order.
    #[must_use]
    pub fn total(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Self::default(), |total, part| {
            let (mut total, part) = (total.to_numbers(), part.to_numbers());
            for (index, (total, part)) in total.iter_mut().zip(part).enumerate() {
                *total = match index {
                    0..SUMS => *total + part,
                    index if index < SUMS + MINIMA => total.min(part),
                    _ => total.max(part),
                };
            }
            Self::from_numbers(total)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let numbers: [f64; COUNT] = std::array::from_fn(|index| index as f64);
        let part = StepMetrics::from_numbers(numbers);
        assert_eq!(part.to_numbers().map(f64::to_bits), numbers.map(f64::to_bits));
        assert_eq!(StepMetrics::total([part, StepMetrics::default()]), part);
        let other = StepMetrics { loss: 2.0, least_correction: -1.0, largest_gap: 20.0, ..part };
        let total = StepMetrics::total([part, other]);
        assert_eq!((total.loss, total.kl), (2.0, 2.0));
        assert_eq!((total.least_clipped_low, total.least_correction), (7.0, -1.0));
        assert_eq!((total.largest_gap, total.most_correction), (20.0, 11.0));
    }
}
