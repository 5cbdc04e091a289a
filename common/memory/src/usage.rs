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

/// Returns bytes as text in GiB with one decimal.
pub fn gibibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1 << 30))
}
