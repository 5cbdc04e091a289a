//! How a process receives its device.

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
    /// set. NCCL also connects GPUs that are invisible to each other's processes directly, since it reaches peers
    /// through the driver (NCCL's `src/transport/p2p.cc`).
    pub(super) fn gpu(gpu: &Gpu) -> Self {
        let libraries = environment::missing_here().into_iter().map(|(name, value)| (name, value.to_owned()));
        let own = (VARIABLE, gpu.uuid.clone());
        Self { device: "cuda", environment: std::iter::once(own).chain(libraries).collect() }
    }
}
