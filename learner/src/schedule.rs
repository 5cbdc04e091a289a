//! Step sizes over the steps of a run.
//!
//! Warm-up is that of Transformers: step `s` of `w` warm-up steps takes the fraction `s / w`, so that the first of them
//! changes nothing.

use std::f64::consts::PI;

/// What a cosine falls to, as a fraction of its peak.
const COSINE_FLOOR: f64 = 0.1;

/// What becomes of the step size after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It stays.
    Constant,
    /// It falls to a tenth along half a cosine, reached at the end of the run.
    Cosine {
        /// Steps of the run, warm-up included.
        steps: u64,
    },
}

/// A course of step sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Largest step size.
    pub peak: f64,
    /// Steps over which it rises from 0.
    pub warmup_steps: u64,
    /// What follows.
    pub course: Course,
}

impl Schedule {
    /// The step size of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        match self.course {
            Course::Constant => self.peak,
            Course::Cosine { steps } => {
                let falling = steps.saturating_sub(self.warmup_steps).max(1);
                let progress = ((step - self.warmup_steps) as f64 / falling as f64).min(1.0);
                let height = f64::midpoint(1.0, (PI * progress).cos());
                self.peak * (COSINE_FLOOR + (1.0 - COSINE_FLOOR) * height)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }

    #[test]
    fn rises_then_stays_or_falls() {
        let constant = Schedule { peak: 2.0, warmup_steps: 4, course: Course::Constant };
        for (step, expected) in [(0, 0.0), (1, 0.5), (4, 2.0), (100, 2.0)] {
            assert_close(constant.at(step), expected);
        }
        let cosine = Schedule { course: Course::Cosine { steps: 24 }, ..constant };
        // The peak, half-way, the end, and past it.
        for (step, expected) in [(4, 2.0), (14, 2.0 * 0.55), (24, 0.2), (99, 0.2)] {
            assert_close(cosine.at(step), expected);
        }
        let no_warmup = Schedule { peak: 1.0, warmup_steps: 0, course: Course::Cosine { steps: 0 } };
        assert_close(no_warmup.at(0), 1.0);
    }
}
