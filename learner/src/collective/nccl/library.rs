//! Finding NCCL at run time.
//!
//! cudarc searches for `libnccl.so` like the dynamic linker: `LD_LIBRARY_PATH` first, then the folders of this
//! program's RUNPATH, which includes PyTorch's NCCL. An unusable library is an error here, before first use.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use cudarc::driver::CudaContext;
use cudarc::nccl::sys;
use tch::Device;

use super::error::{Error, settled};

/// The oldest supported version: non-blocking communicators that can be aborted during creation.
const OLDEST: c_int = 2_18_00;

/// All NCCL functions that are called.
const FUNCTIONS: [&str; 12] = [
    "ncclGetVersion",
    "ncclGetUniqueId",
    "ncclCommInitRankConfig",
    "ncclCommGetAsyncError",
    "ncclCommFinalize",
    "ncclCommDestroy",
    "ncclCommAbort",
    "ncclAllReduce",
    "ncclReduceScatter",
    "ncclBroadcast",
    "ncclAllGather",
    "ncclGetErrorString",
];

/// A function by which a library declares that it works on host memory; NVIDIA's library does not have it. It
/// replaces `cuStreamQuery` for the library's stream. Only the stand-in of the tests has it.
const HOST_STREAM_QUERY: &str = "podium_host_stream_query";

/// Takes a stream and returns a `CUresult`.
pub(super) type HostStreamQuery = unsafe extern "C" fn(*mut c_void) -> c_int;

/// A usable NCCL library.
#[derive(Debug, Clone, Copy)]
pub struct Library {
    host: Option<HostStreamQuery>,
    version: c_int,
}

/// Location of a rank's tensors.
#[derive(Debug, Clone)]
pub(super) enum Memory {
    /// On this GPU, in its primary context, which libtorch uses too.
    Gpu(Arc<CudaContext>),
    /// In host memory, with a library that supports it.
    Host(HostStreamQuery),
}

impl Library {
    /// Looks for an NCCL library.
    pub fn find() -> Result<Self, Error> {
        #[allow(unsafe_code, reason = "loading a library runs its initialisers")]
        // SAFETY: NCCL's initialisers may run at any time.
        let present = unsafe { sys::is_culib_present() };
        if !present {
            let looked_for = cudarc::get_lib_name_candidates("nccl");
            let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default().to_string_lossy().into_owned();
            return Err(Error::NotFound { looked_for, path });
        }
        #[allow(unsafe_code, reason = "the loaded library is queried for its functions")]
        // SAFETY: the library is loaded, and the called function has the type that NCCL documents.
        let (missing, host, version) = unsafe {
            let library = sys::culib();
            let missing = |name: &&&str| library.get::<*const c_void>(name.as_bytes()).is_err();
            let missing = FUNCTIONS.iter().find(missing);
            let host = library.get::<HostStreamQuery>(HOST_STREAM_QUERY.as_bytes()).ok().map(|query| *query);
            let mut version = 0;
            if missing.is_none() {
                sys::ncclGetVersion(&raw mut version);
            }
            (missing, host, version)
        };
        if let Some(name) = missing {
            return Err(Error::Incomplete { name });
        }
        if version < OLDEST {
            return Err(Error::Old { version, oldest: OLDEST });
        }
        Ok(Self { host, version })
    }

    /// NCCL's version number: 22809 is 2.28.9.
    pub const fn version(&self) -> i32 {
        self.version
    }

    /// Checks that the library supports tensors of this device.
    pub fn serves(&self, device: Device) -> Result<(), Error> {
        match (device, self.host) {
            (Device::Cuda(_), None) | (Device::Cpu, Some(_)) => Ok(()),
            (device, None) => Err(Error::NoGpu { device }),
            (device, Some(_)) => Err(Error::HostOnly { device }),
        }
    }

    /// Registers a device's memory with NCCL on this thread, which must make all later calls.
    pub(super) fn memory(&self, device: Device) -> Result<Memory, Error> {
        self.serves(device)?;
        match (device, self.host) {
            (Device::Cuda(index), None) => {
                CudaContext::new(index).map(Memory::Gpu).map_err(|source| Error::Driver { device, source })
            }
            (_, Some(query)) => Ok(Memory::Host(query)),
            (device, None) => Err(Error::NoGpu { device }),
        }
    }

    /// Returns a new unique id for one communicator.
    pub fn unique_id(&self) -> Result<Vec<u8>, Error> {
        let mut id = sys::ncclUniqueId { internal: [0; ID_BYTES] };
        #[allow(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: NCCL writes the id into memory of the right size.
        let result = unsafe { sys::ncclGetUniqueId(&raw mut id) };
        settled("ncclGetUniqueId", result)?;
        Ok(id.internal.map(|byte| byte as u8).to_vec())
    }
}

/// Bytes of a unique id.
pub(super) const ID_BYTES: usize = 128;
