//! What a step tells of itself: the figures behind TRL's metrics, and how those of its parts become the step's.

/// Figures of a step or of a part of it. Means are over the whole step, so that those of parts add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// The loss.
    pub loss: f64,
    /// Mean over tokens of the KL estimate, its bias corrected where that is asked for; 0 without a reference.
    pub kl: f64,
    /// Mean over tokens of the entropy, in nats.
    pub entropy: f64,
    /// Share of ratios that were below the lower bound, with a negative advantage.
    pub clipped_low: f64,
    /// Share of ratios that were above the upper bound (`cispo`: the cap), with a positive advantage.
    pub clipped_high: f64,
    /// Mean over tokens of the distance between recomputed and behaviour log-probability, in nats.
    pub gap: f64,
    /// Mean of the weights that correct for an older policy version; over completions where each has one.
    pub correction: f64,
    /// Smallest share of a completion's ratios below the lower bound; infinite where no completion counts.
    pub least_clipped_low: f64,
    /// Smallest of those weights; infinite where there is none.
    pub least_correction: f64,
    /// Largest share of a completion's ratios above the upper bound; minus infinite where no completion counts.
    pub most_clipped_high: f64,
    /// Largest distance between recomputed and behaviour log-probability, in nats; minus infinite where none is known.
    pub largest_gap: f64,
    /// Largest of those weights; minus infinite where there is none.
    pub most_correction: f64,
}

/// Number of figures.
pub const COUNT: usize = 12;
/// The first so many of [`Figures::to_numbers`] add up.
pub const SUMS: usize = 7;
/// Of the next so many the smallest is the step's; of the rest, the largest.
pub const MINIMA: usize = 2;

impl Default for Figures {
    /// Of nothing.
    fn default() -> Self {
        let mut numbers = [0.0; COUNT];
        numbers[SUMS..SUMS + MINIMA].fill(f64::INFINITY);
        numbers[SUMS + MINIMA..].fill(f64::NEG_INFINITY);
        Self::from_numbers(numbers)
    }
}

impl Figures {
    /// In an order of their own: sums, then minima, then maxima.
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

    /// The figures that [`Self::to_numbers`] gave.
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

    /// The figures of parts together, added in their order.
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
        let part = Figures::from_numbers(numbers);
        assert_eq!(part.to_numbers().map(f64::to_bits), numbers.map(f64::to_bits));
        assert_eq!(Figures::total([part, Figures::default()]), part);
        let other = Figures { loss: 2.0, least_correction: -1.0, largest_gap: 20.0, ..part };
        let total = Figures::total([part, other]);
        assert_eq!((total.loss, total.kl), (2.0, 2.0));
        assert_eq!((total.least_clipped_low, total.least_correction), (7.0, -1.0));
        assert_eq!((total.largest_gap, total.most_correction), (20.0, 11.0));
    }
}
