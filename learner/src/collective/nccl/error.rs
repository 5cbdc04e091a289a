//! Errors of NCCL.

use cudarc::nccl::sys::{self, ncclResult_t};
use tch::{Device, Kind as Number};

/// The reasons why NCCL cannot be used or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NCCL was not found.
    #[error(
        "NCCL was not found: looked for {} in LD_LIBRARY_PATH ({path:?}), beside libtorch and in the system's folders; \
         set-up installs it where there is an NVIDIA driver",
        looked_for.join(", ")
    )]
    NotFound {
        /// Names of the files that were searched for.
        looked_for: Vec<String>,
        /// `LD_LIBRARY_PATH`.
        path: String,
    },
    /// The library lacks a function.
    #[error("the libnccl.so that was found has no {name}: expected NVIDIA's NCCL, 2.18 or newer")]
    Incomplete {
        /// The function.
        name: &'static str,
    },
    /// The library is too old.
    #[error("NCCL has version {version}: expected {oldest} or newer")]
    Old {
        /// Its version.
        version: i32,
        /// The oldest supported version.
        oldest: i32,
    },
    /// The tensors are not on a GPU.
    #[error("NCCL works on GPUs, and this rank computes on {device:?}")]
    NoGpu {
        /// The rank's device.
        device: Device,
    },
    /// The tensors are on a GPU, and the library is a substitute for NCCL on the CPU.
    #[error("the libnccl.so that was found works on host memory alone, and this rank computes on {device:?}")]
    HostOnly {
        /// The rank's device.
        device: Device,
    },
    /// The driver cannot open the GPU.
    #[error("cannot use {device:?} with NCCL")]
    Driver {
        /// The GPU.
        device: Device,
        /// The driver's error.
        source: cudarc::driver::DriverError,
    },
    /// The driver cannot make the GPU's context current.
    #[error("cannot make the context of the GPU current")]
    Context(#[source] cudarc::driver::DriverError),
    /// The unique id is invalid.
    #[error("NCCL's unique id has {length} bytes: expected 128")]
    Id {
        /// Its length.
        length: usize,
    },
    /// An NCCL call failed.
    #[error("{call} ended with {code:?} ({text})")]
    Call {
        /// The function.
        call: &'static str,
        /// NCCL's name of the error.
        code: ncclResult_t,
        /// NCCL's description of the error.
        text: String,
    },
    /// The stream has an error.
    #[error("the CUDA stream has error {code}")]
    Stream {
        /// The error as a `CUresult`.
        code: i32,
    },
    /// NCCL cannot process the tensor.
    #[error(
        "a tensor of {kind:?} on {device:?}, or one with gaps: expected {expected:?} on the rank's device"
    )]
    Tensor {
        /// Device of the tensor.
        device: Device,
        /// Type of its numbers.
        kind: Number,
        /// Expected type of the numbers.
        expected: Number,
    },
    /// The communicator failed earlier.
    #[error("the communicator failed earlier")]
    Over,
}

impl Error {
    /// Returns whether the error only reports a failure of another rank.
    pub(in crate::collective) const fn is_of_another_rank(&self) -> bool {
        matches!(self, Self::Call { code: ncclResult_t::ncclRemoteError, .. })
    }
}

/// Interprets the result of a call: returns `true` if the operation is complete, `false` if it is
/// in progress.
pub(super) fn settled(call: &'static str, result: ncclResult_t) -> Result<bool, Error> {
    match result {
        ncclResult_t::ncclSuccess => Ok(true),
        ncclResult_t::ncclInProgress => Ok(false),
        code => Err(Error::Call { call, code, text: text(code) }),
    }
}

#[allow(unsafe_code, reason = "a call of NCCL")]
fn text(code: ncclResult_t) -> String {
    // SAFETY: NCCL returns null or a text that lives as long as the library.
    let text = unsafe {
        let text = sys::ncclGetErrorString(code);
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text))
    };
    text.map_or_else(|| "no text".to_owned(), |text| text.to_string_lossy().into_owned())
}
