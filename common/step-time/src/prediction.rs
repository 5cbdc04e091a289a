//! The duration and cost of a step.

use crate::Error;
use crate::parts::{Limit, Phase};
use crate::plan::Plan;

/// Seconds of a step beside computation and transfers: leases, messages, the store's transactions.
const COORDINATION: f64 = 0.05;
/// Seconds for grading and storing a completion. Measured on a CPU: 0.07 ms of processor time for completions of 8 tokens.
const COMPLETION: f64 = 0.1e-3;

/// The side that determines the duration of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Sampling and training alternate.
    Both,
    /// Workers, in asynchronous mode.
    Workers,
    /// The learner, in asynchronous mode.
    Learner,
    /// The bound on the age of groups, in asynchronous mode: workers and learner wait for each other.
    Age,
}

/// Duration and cost of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Phases of workers, with the busy time of one worker in a step.
    pub sampling: Vec<Phase>,
    /// Phases of the coordinator and of a learner rank.
    pub training: Vec<Phase>,
    /// Seconds from the end of a step to the end of the next.
    pub step_seconds: f64,
    /// The side that determines them.
    pub side: Side,
    /// The longest phase of this side.
    pub bottleneck: Phase,
    /// Completion tokens per second.
    pub tokens_per_second: f64,
    /// US dollars for 1,000 steps.
    pub cost_of_1000_steps: f64,
}

impl Prediction {
    /// Number of steps in an hour.
    pub fn steps_per_hour(&self) -> f64 {
        3600.0 / self.step_seconds
    }
}

fn sum(phases: &[Phase]) -> f64 {
    phases.iter().map(|phase| phase.seconds).sum()
}

impl Plan {
    /// Predicts a step.
    ///
    /// # Errors
    ///
    /// Fails if a number is 0 or a rate is not positive, with its name.
    pub fn predict(&self) -> Result<Prediction, Error> {
        self.check()?;
        let completions = self.prompts_per_step * self.group_size;
        let overlaps = self.overlaps();
        // In synchronous mode a step ends with the last lease of the worker that has the most.
        let leases = if overlaps {
            self.blocks() as f64 / self.workers as f64
        } else {
            self.blocks().div_ceil(self.workers) as f64
        };
        let lease = [self.prefill(), self.decode()];
        let mut sampling = vec![self.fetch()];
        sampling.extend(lease.map(|phase| phase.times(leases)));
        let mut training = vec![Phase {
            name: "coordinator",
            seconds: COORDINATION + COMPLETION * self.last_completions() as f64,
            limit: Limit::Coordinator,
        }];
        training.extend(self.update());
        training.extend([self.publication(), self.checkpoint()]);

        let (workers, learner) = (sum(&sampling), sum(&training));
        // A version, a lease sampled with it, and the update with its groups take at most so many steps.
        let chain = sum(&lease) + self.fetch().seconds + learner;
        let (step_seconds, side) = if overlaps {
            let age = chain / (self.max_policy_lag + 1) as f64;
            [(workers, Side::Workers), (learner, Side::Learner), (age, Side::Age)]
                .into_iter()
                .reduce(|longest, one| if one.0 > longest.0 { one } else { longest })
                .expect("three sides")
        } else {
            (workers + learner, Side::Both)
        };
        let phases = match side {
            Side::Workers => sampling.iter().collect::<Vec<_>>(),
            Side::Learner => training.iter().collect(),
            Side::Both | Side::Age => sampling.iter().chain(&training).collect(),
        };
        let bottleneck = phases
            .into_iter()
            .copied()
            .reduce(|longest, one| if one.seconds > longest.seconds { one } else { longest })
            .expect("a step has phases");
        Ok(Prediction {
            step_seconds,
            side,
            bottleneck,
            tokens_per_second: (completions * self.completion_tokens) as f64 / step_seconds,
            cost_of_1000_steps: 1000.0 * step_seconds / 3600.0 * self.price * self.devices() as f64,
            sampling,
            training,
        })
    }
}
