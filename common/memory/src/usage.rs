//! Memory of one phase.

/// Memory at the peak of a phase of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phase {
    /// Name of the phase.
    pub name: &'static str,
    /// Weights of the policy, of its adapter and of the reference.
    pub weights: u64,
    /// Gradients and their sums.
    pub gradients: u64,
    /// Float32 weights and moments of the optimizer, and its temporary memory.
    pub optimizer: u64,
    /// Activations of the layers.
    pub activations: u64,
    /// Keys and values for decoding.
    pub cache: u64,
    /// Logits, and the tensors computed from them.
    pub logits: u64,
}

impl Phase {
    /// Returns the sum of all parts.
    pub const fn total(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.cache + self.logits
    }
}

/// Returns the phase with the largest total.
pub fn peak(phases: &[Phase]) -> Phase {
    phases.iter().copied().max_by_key(Phase::total).unwrap_or_default()
}

/// Returns the peak of a learner rank and a worker that compute in turns in one process, in bytes. Both include the model's
/// weights of `base` bytes, which exist once. A role that does not compute holds its weights and its optimizer.
pub fn peak_in_turns(learner: &[Phase], worker: &[Phase], base: u64) -> u64 {
    let waiting = |phases: &[Phase]| {
        phases.iter().map(|phase| phase.weights + phase.optimizer).min().unwrap_or_default()
    };
    let training = peak(learner).total() + waiting(worker);
    let sampling = peak(worker).total() + waiting(learner);
    training.max(sampling).saturating_sub(base)
}

/// Returns bytes as text in GiB with one decimal.
pub fn gibibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_one_copy_of_the_weights() {
        let learner = [
            Phase { weights: 110, optimizer: 20, activations: 50, ..Phase::default() },
            Phase { weights: 110, optimizer: 25, ..Phase::default() },
        ];
        let worker = [Phase { weights: 105, cache: 30, ..Phase::default() }];
        // The learner computes: 110 + 20 + 50, and the worker's adapter of 5.
        assert_eq!(peak_in_turns(&learner, &worker, 100), 185);
        // The worker samples: 105 + 200, and the learner's adapter and optimizer, 10 + 20.
        let worker = [Phase { cache: 200, ..worker[0] }];
        assert_eq!(peak_in_turns(&learner, &worker, 100), 335);
    }
}
