//! How a process receives its device, and its share of a GPU's memory.

use podium_service::environment;
use podium_service::gpus::{Gpu, VARIABLE};

/// The arguments and variables of a process that depend on its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placement {
    /// The value of `--device`.
    pub(crate) device: &'static str,
    /// Variables to add to the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Placement {
    pub(super) const fn cpu() -> Self {
        Self { device: "cpu", environment: Vec::new() }
    }

    /// The process sees only this GPU, which is its device 0, and receives the variables of GPU libraries that are not
    /// set. If several `processes` use the GPU, its memory is limited to its share, so that a result does not depend on the
    /// timing of the others. NCCL also connects GPUs that are invisible to each other's processes directly, since it reaches peers
    /// through the driver (NCCL's `src/transport/p2p.cc`).
    pub(super) fn gpu(gpu: &Gpu, processes: usize) -> Self {
        let value = |name, value: &str| match name {
            environment::ALLOCATOR if processes > 1 => {
                format!("{value},per_process_memory_fraction:{:.2}", share(processes))
            }
            _ => value.to_owned(),
        };
        let libraries = environment::missing_here();
        let libraries = libraries.into_iter().map(|(name, usual)| (name, value(name, usual)));
        let own = (VARIABLE, gpu.uuid.clone());
        Self { device: "cuda", environment: std::iter::once(own).chain(libraries).collect() }
    }
}

/// Returns whether processes on one GPU are limited to shares of its memory: unless the environment sets the allocator.
pub(super) fn has_shares() -> bool {
    environment::missing_here().iter().any(|(name, _)| *name == environment::ALLOCATOR)
}

/// Returns the fraction of a GPU's memory for the tensors of each of several processes. The rest is for CUDA itself.
pub(super) fn share(processes: usize) -> f64 {
    let hundredths = (94 / processes.max(1)).max(1);
    hundredths as f64 / 100.0
}
