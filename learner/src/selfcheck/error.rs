//! The failures of a check.

use podium_model::device;

use crate::collective::{self, nccl};

/// The reasons why the device cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device is unavailable.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// libtorch refused a request.
    #[error(transparent)]
    Torch(#[from] podium_torch_shim::Error),
    /// NCCL is installed and fails.
    #[error(transparent)]
    Nccl(#[from] nccl::Error),
    /// A sum by NCCL fails.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The second process failed.
    #[error("the second process of the check \"second_process\" failed: {reason}")]
    SecondProcess {
        /// Its output, or the system's error.
        reason: String,
    },
    /// A policy cannot be created or used.
    #[error("cannot compute with the policy of the check")]
    Policy(#[source] Box<dyn std::error::Error + Send + Sync>),
}
