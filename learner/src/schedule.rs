//! Step sizes over the optimizer's steps.
//!
//! They equal those of Transformers' schedulers of the same names. Step `s` of `w` warm-up steps uses the fraction `s
//! / w`, so that the first step changes nothing.

use std::f64::consts::PI;

use podium_config::LrScheduler;

/// Course of the step size after warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Course {
    /// Constant.
    Constant,
    /// Linear decay to 0 at the end.
    Linear {
        /// The optimizer's steps, warm-up included.
        steps: u64,
    },
    /// Cosine decay to the minimum at the end.
    Cosine {
        /// The optimizer's steps, warm-up included.
        steps: u64,
        /// The minimum, as a fraction of the peak.
        floor: f64,
    },
}

impl Course {
    /// The course that the run file selects, over `steps` steps of the optimizer.
    pub const fn of(scheduler: LrScheduler, steps: u64) -> Self {
        match scheduler {
            LrScheduler::Constant => Self::Constant,
            LrScheduler::Linear => Self::Linear { steps },
            LrScheduler::Cosine => Self::Cosine { steps, floor: 0.0 },
        }
    }
}

/// A schedule of step sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Largest step size.
    pub peak: f64,
    /// Number of steps of the linear rise from 0.
    pub warmup_steps: u64,
    /// The course after warm-up.
    pub course: Course,
}

impl Schedule {
    /// The step size of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let progress = |steps: u64| {
            let falling = steps.saturating_sub(self.warmup_steps).max(1);
            ((step - self.warmup_steps) as f64 / falling as f64).min(1.0)
        };
        match self.course {
            Course::Constant => self.peak,
            Course::Linear { steps } => self.peak * (1.0 - progress(steps)),
            Course::Cosine { steps, floor } => {
                let height = f64::midpoint(1.0, (PI * progress(steps)).cos());
                self.peak * (floor + (1.0 - floor) * height)
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
        let cosine = Schedule { course: Course::Cosine { steps: 24, floor: 0.1 }, ..constant };
        // The peak, half-way, the end, and past it.
        for (step, expected) in [(4, 2.0), (14, 2.0 * 0.55), (24, 0.2), (99, 0.2)] {
            assert_close(cosine.at(step), expected);
        }
        let no_warmup = Schedule { peak: 1.0, warmup_steps: 0, course: Course::Linear { steps: 0 } };
        assert_close(no_warmup.at(0), 1.0);
        let linear = Schedule { course: Course::of(LrScheduler::Linear, 24), ..constant };
        for (step, expected) in [(2, 1.0), (4, 2.0), (9, 1.5), (24, 0.0), (99, 0.0)] {
            assert_close(linear.at(step), expected);
        }
        let cosine = Schedule { course: Course::of(LrScheduler::Cosine, 24), ..constant };
        for (step, expected) in [(14, 1.0), (24, 0.0)] {
            assert_close(cosine.at(step), expected);
        }
    }
}
