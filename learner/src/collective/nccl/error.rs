//! Failures of NCCL.

use cudarc::nccl::sys::{self, ncclResult_t};
use tch::{Device, Kind as Number};

/// What NCCL cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no NCCL.
    #[error(
        "NCCL was not found: looked for {} in LD_LIBRARY_PATH ({path:?}), beside libtorch and in the system's folders; \
         set-up installs it where there is an NVIDIA driver",
        looked_for.join(", ")
    )]
    NotFound {
        /// Names of files.
        looked_for: Vec<String>,
        /// `LD_LIBRARY_PATH`.
        path: String,
    },
    /// What was found lacks a function.
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
        /// The oldest that will do.
        oldest: i32,
    },
    /// Tensors that are not on a GPU.
    #[error("NCCL works on GPUs, and this rank computes on {device:?}")]
    NoGpu {
        /// The rank's device.
        device: Device,
    },
    /// Tensors that are on a GPU, and a library in the place of NCCL.
    #[error("the libnccl.so that was found works on host memory alone, and this rank computes on {device:?}")]
    HostOnly {
        /// The rank's device.
        device: Device,
    },
    /// The driver does not give the GPU.
    #[error("cannot use {device:?} with NCCL")]
    Driver {
        /// The GPU.
        device: Device,
        /// Why.
        source: cudarc::driver::DriverError,
    },
    /// Not a unique id.
    #[error("NCCL's unique id has {length} bytes: expected 128")]
    Id {
        /// Its length.
        length: usize,
    },
    /// NCCL refuses or reports an error.
    #[error("{call} ended with {code:?} ({text})")]
    Call {
        /// The function.
        call: &'static str,
        /// NCCL's name of the error.
        code: ncclResult_t,
        /// What NCCL says of it.
        text: String,
    },
    /// The stream has an error.
    #[error("the CUDA stream has error {code}")]
    Stream {
        /// A `CUresult`.
        code: i32,
    },
    /// A tensor that NCCL cannot work on.
    #[error(
        "a tensor of {kind:?} on {device:?}, or one with gaps: expected {expected:?} on the rank's device"
    )]
    Tensor {
        /// Where it lies.
        device: Device,
        /// Its numbers.
        kind: Number,
        /// The numbers that were expected.
        expected: Number,
    },
    /// The communicator failed before.
    #[error("the communicator is given up")]
    Over,
}

impl Error {
    /// Whether it only says that something is wrong with another rank.
    pub(in crate::collective) const fn is_of_another_rank(&self) -> bool {
        matches!(self, Self::Call { code: ncclResult_t::ncclRemoteError, .. })
    }
}

/// What a call's result means: `true` if what it began is done, `false` if it is under way.
pub(super) fn settled(call: &'static str, result: ncclResult_t) -> Result<bool, Error> {
    match result {
        ncclResult_t::ncclSuccess => Ok(true),
        ncclResult_t::ncclInProgress => Ok(false),
        code => Err(Error::Call { call, code, text: text(code) }),
    }
}

#[allow(unsafe_code, reason = "a call of NCCL")]
fn text(code: ncclResult_t) -> String {
    // SAFETY: NCCL returns a text that lives as long as the library, or null.
    let text = unsafe {
        let text = sys::ncclGetErrorString(code);
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text))
    };
    text.map_or_else(|| "no text".to_owned(), |text| text.to_string_lossy().into_owned())
}
