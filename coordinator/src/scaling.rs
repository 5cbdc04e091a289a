//! Bottleneck analysis, and advice on the number of workers. The module is pure: the caller supplies the
//! times.
//!
//! The inputs are the busy and idle times of workers and learner. They determine two times of a step: `W`,
//! the seconds that a single worker would need to sample it (including evaluation), and `L`, the seconds that
//! the learner needs to train on it. A step's groups are `B` blocks, and one worker samples a block. With `n`
//! workers a step takes
//!
//! - in synchronous mode, where sampling and training alternate, `T(n) = W · ⌈B / n⌉ / B + L`;
//! - in asynchronous mode, where they overlap, `T(n) = max(W / n, L)`.
//!
//! With `r` learner ranks a step costs `(n + r) · T(n)` process seconds. The advised number of workers is the
//! smallest `n` with the lowest cost. Up to it, an additional worker reduces the step time by a larger proportion
//! than it increases the number of processes.

/// Decay factor of past times per step; about ten steps count.
const MEMORY: f64 = 0.9;
/// Idle fractions that differ by less are considered equal.
const EVEN: f64 = 0.1;

/// The side that makes the other wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bottleneck {
    /// The workers: the learner waits longer than they do.
    Workers,
    /// The learner.
    Learner,
    /// Neither.
    Neither,
}

/// The properties of a run that determine scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of active workers.
    pub workers: u32,
    /// Number of learner ranks.
    pub ranks: u32,
    /// Number of blocks per step.
    pub blocks: u32,
    /// Maximum age of a group in versions, relative to its step; 0: synchronous.
    pub max_policy_lag: u64,
}

/// Advice for a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advice {
    /// Fraction of their time that workers wait.
    pub worker_idle: f64,
    /// Fraction of its time that the learner waits for groups.
    pub learner_idle: f64,
    /// The side that makes the other wait.
    pub bottleneck: Bottleneck,
    /// The advised number of workers.
    pub workers: u32,
    /// Seconds per step with the current workers, by the formula.
    pub step_seconds: f64,
    /// Seconds per step with the advised workers.
    pub step_seconds_then: f64,
}

/// Observed times, with decaying weights.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    worker_busy: f64,
    worker_idle: f64,
    learner_busy: f64,
    learner_idle: f64,
    steps: f64,
}

impl Load {
    /// Records `seconds` in which `busy` of the workers had work. `learner_waits`: whether the learner waits
    /// for groups; `None` if there is no learner.
    pub fn pass(&mut self, seconds: f64, busy: u32, workers: u32, learner_waits: Option<bool>) {
        self.worker_busy += seconds * f64::from(busy);
        self.worker_idle += seconds * f64::from(workers.saturating_sub(busy));
        match learner_waits {
            Some(true) => self.learner_idle += seconds,
            Some(false) => self.learner_busy += seconds,
            None => {}
        }
    }

    /// Records that a step is done: earlier times count less from now on.
    pub fn step_done(&mut self) {
        self.steps += 1.0;
        for value in [
            &mut self.worker_busy,
            &mut self.worker_idle,
            &mut self.learner_busy,
            &mut self.learner_idle,
            &mut self.steps,
        ] {
            *value *= MEMORY;
        }
    }

    /// Returns the advice; `None` before the first step is done, and while workers or learner have not
    /// worked.
    pub fn advice(&self, shape: Shape) -> Option<Advice> {
        let known =
            self.steps > 0.0 && self.worker_busy > 0.0 && self.learner_busy > 0.0 && shape.workers > 0;
        if !known {
            return None;
        }
        let sampling = self.worker_busy / self.steps;
        let training = self.learner_busy / self.steps;
        let worker_idle = self.worker_idle / (self.worker_idle + self.worker_busy);
        let learner_idle = self.learner_idle / (self.learner_idle + self.learner_busy);
        let bottleneck = match learner_idle - worker_idle {
            more if more > EVEN => Bottleneck::Workers,
            more if more < -EVEN => Bottleneck::Learner,
            _ => Bottleneck::Neither,
        };
        let workers = shape.advised(sampling, training);
        Some(Advice {
            worker_idle,
            learner_idle,
            bottleneck,
            workers,
            step_seconds: shape.step_seconds(shape.workers, sampling, training),
            step_seconds_then: shape.step_seconds(workers, sampling, training),
        })
    }
}

impl Shape {
    /// Returns `T(n)`.
    fn step_seconds(&self, workers: u32, sampling: f64, training: f64) -> f64 {
        let (workers, blocks) = (workers.max(1), self.blocks.max(1));
        if self.max_policy_lag == 0 {
            sampling * f64::from(blocks.div_ceil(workers)) / f64::from(blocks) + training
        } else {
            (sampling / f64::from(workers)).max(training)
        }
    }

    /// Returns the smallest `n` with the lowest `(n + r) · T(n)`.
    fn advised(&self, sampling: f64, training: f64) -> u32 {
        // Workers beyond the number of open blocks are idle.
        let open_steps = u32::try_from(self.max_policy_lag).unwrap_or(u32::MAX).saturating_add(1);
        let most = self.blocks.saturating_mul(open_steps).clamp(1, MOST_WORKERS);
        let cost = |workers: u32| {
            f64::from(workers.saturating_add(self.ranks)) * self.step_seconds(workers, sampling, training)
        };
        // Selects the first of equal costs.
        (2..=most).fold(1, |best, workers| if cost(workers) < cost(best) { workers } else { best })
    }
}

/// Maximum advised number of workers.
const MOST_WORKERS: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { workers: 2, ranks: 1, blocks: 8, max_policy_lag: 0 };

    /// Returns the load of steps in which workers first sample for `sampling` seconds each while the learner
    /// waits, and then wait while the learner trains for `training` seconds.
    fn taking_turns(workers: u32, sampling: f64, training: f64) -> Load {
        let mut load = Load::default();
        for _ in 0..5 {
            load.pass(sampling, workers, workers, Some(true));
            load.pass(training, 0, workers, Some(false));
            load.step_done();
        }
        load
    }

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_side_that_waits_less_is_the_bottleneck() {
        let advice = taking_turns(2, 16.0, 4.0).advice(SHAPE).unwrap();
        assert!(near(advice.worker_idle, 0.2) && near(advice.learner_idle, 0.8), "{advice:?}");
        assert_eq!(advice.bottleneck, Bottleneck::Workers);
        assert!(near(advice.step_seconds, 20.0));
        let other = taking_turns(2, 4.0, 16.0).advice(SHAPE).unwrap();
        assert_eq!(other.bottleneck, Bottleneck::Learner);
        assert_eq!(taking_turns(2, 4.0, 4.5).advice(SHAPE).unwrap().bottleneck, Bottleneck::Neither);
    }

    #[test]
    fn workers_pay_while_a_step_costs_less_time_of_processes() {
        // W = 32, L = 4, B = 8: (n + 1) · (4 · ⌈8 / n⌉ + 4) is 72, 60, 64, 60, 72, 84, 96, 72 for n = 1 to 8.
        let advice = taking_turns(2, 16.0, 4.0).advice(SHAPE).unwrap();
        assert_eq!(advice.workers, 2, "the fewer of equals");
        // With four ranks waiting for them, (n + 4) times the same is 180, 120, 112, 96, 108, 120, 132, 96.
        let advice = taking_turns(2, 16.0, 4.0).advice(Shape { ranks: 4, ..SHAPE }).unwrap();
        assert_eq!(advice.workers, 4);
        assert!(near(advice.step_seconds_then, 12.0));
    }

    #[test]
    fn workers_that_overlap_with_the_learner_pay_until_it_never_waits() {
        let shape = Shape { workers: 4, max_policy_lag: 1, ..SHAPE };
        let mut load = Load::default();
        for _ in 0..5 {
            load.pass(4.0, 4, 4, Some(false));
            load.pass(4.0, 4, 4, Some(true));
            load.step_done();
        }
        // W = 32, L = 4: eight workers keep it busy.
        let advice = load.advice(shape).unwrap();
        assert_eq!((advice.workers, advice.bottleneck), (8, Bottleneck::Workers));
        assert!(near(advice.step_seconds, 8.0) && near(advice.step_seconds_then, 4.0));
        let fewer = load.advice(Shape { workers: 12, ..shape }).unwrap();
        assert_eq!(fewer.workers, 8, "what was observed does not depend on how many there are now");
    }

    #[test]
    fn a_step_has_no_use_for_more_workers_than_blocks() {
        let advice = taking_turns(2, 1_000.0, 0.01).advice(SHAPE).unwrap();
        assert_eq!(advice.workers, 8);
    }

    #[test]
    fn there_is_no_advice_before_both_sides_have_worked() {
        let mut load = Load::default();
        assert_eq!(load.advice(SHAPE), None);
        load.pass(1.0, 2, 2, Some(true));
        load.step_done();
        assert_eq!(load.advice(SHAPE), None);
        load.pass(1.0, 0, 2, None);
        load.pass(1.0, 0, 2, Some(false));
        assert!(load.advice(SHAPE).is_some());
        assert_eq!(load.advice(Shape { workers: 0, ..SHAPE }), None);
    }
}
