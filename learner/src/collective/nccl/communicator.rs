//! An NCCL communicator.
//!
//! The communicator is non-blocking (`blocking = 0`): a call returns while its operation is in progress, and the
//! caller chooses the timeout. A blocking call could only be ended from another thread, which NCCL allows for some
//! states of a communicator and not for others; here the waiting thread aborts.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUresult;
use cudarc::nccl::sys;
use tch::{Kind, Tensor};

use super::error::{Error, settled};
use super::library::{HostStreamQuery, ID_BYTES, Library, Memory};

/// Timeout of an orderly close.
const CLOSING: Duration = Duration::from_secs(5);
/// Interval between polls of a closing communicator.
const PAUSE: Duration = Duration::from_millis(1);
/// NCCL's value for an unset field.
const UNSET: c_int = c_int::MIN;

/// A communicator and the memory that it works on.
#[derive(Debug)]
pub(super) struct Communicator {
    /// Null once closed or aborted.
    raw: sys::ncclComm_t,
    memory: Memory,
}

#[allow(unsafe_code, reason = "a raw pointer is not Send by itself")]
// SAFETY: NCCL's communicators are not bound to a thread; the methods let one thread at a time call.
unsafe impl Send for Communicator {}

#[allow(unsafe_code, reason = "calls of NCCL and the CUDA driver")]
impl Communicator {
    /// Starts to create this rank's part of the communicator with the id `id`. It is usable once [`Self::finished`]
    /// returns true.
    pub(super) fn begin(
        library: &Library,
        memory: Memory,
        id: &[u8],
        rank: u32,
        world_size: u32,
    ) -> Result<Self, Error> {
        let bytes: [u8; ID_BYTES] = id.try_into().map_err(|_| Error::Id { length: id.len() })?;
        let id = sys::ncclUniqueId { internal: bytes.map(|byte| byte as _) };
        let mut config = sys::ncclConfig_t {
            size: size_of::<sys::ncclConfig_t>(),
            magic: 0xcafe_beef,
            version: library.version() as u32,
            blocking: 0,
            cgaClusterSize: UNSET,
            minCTAs: UNSET,
            maxCTAs: UNSET,
            netName: ptr::null(),
            splitShare: UNSET,
            trafficClass: UNSET,
            commName: ptr::null(),
            collnetEnable: UNSET,
            CTAPolicy: UNSET,
            shrinkShare: UNSET,
            nvlsCTAs: UNSET,
            nChannelsPerNetPeer: UNSET,
            nvlinkCentricSched: UNSET,
        };
        let mut raw = ptr::null_mut();
        // SAFETY: both pointers are to memory of the types that NCCL documents; it reads the configuration during the call.
        let result = unsafe {
            sys::ncclCommInitRankConfig(&raw mut raw, world_size as c_int, id, rank as c_int, &raw mut config)
        };
        // From here on the communicator is always destroyed.
        let communicator = Self { raw, memory };
        settled("ncclCommInitRankConfig", result)?;
        Ok(communicator)
    }

    /// Returns whether all started operations are complete. Never blocks.
    pub(super) fn finished(&self) -> Result<bool, Error> {
        let raw = self.live()?;
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator is live, and NCCL writes its state into memory of its type.
        let result = unsafe { sys::ncclCommGetAsyncError(raw, &raw mut state) };
        settled("ncclCommGetAsyncError", result)?;
        Ok(settled("a call before", state)? && self.memory.stream_is_idle()?)
    }

    /// Starts to replace a flat float32 tensor by its sum over all ranks. The tensor must outlive the operation.
    pub(super) fn all_reduce(&self, tensor: &Tensor) -> Result<(), Error> {
        let (raw, data, count) = (self.live()?, self.data(tensor, Kind::Float)?, tensor.numel());
        let (number, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
        // SAFETY: the tensor's memory has this many numbers of this type and outlives the operation.
        let result = unsafe { sys::ncclAllReduce(data, data, count, number, sum, raw, ptr::null_mut()) };
        settled("ncclAllReduce", result).map(drop)
    }

    /// Starts to write this rank's shard of the sum of `all` over all ranks into `shard`; both are flat, float32. Both
    /// must outlive the operation.
    pub(super) fn reduce_scatter(&self, all: &Tensor, shard: &Tensor) -> Result<(), Error> {
        let (raw, count) = (self.live()?, shard.numel());
        let (all, shard) = (self.data(all, Kind::Float)?, self.data(shard, Kind::Float)?);
        let (number, sum) = (sys::ncclDataType_t::ncclFloat32, sys::ncclRedOp_t::ncclSum);
        // SAFETY: as for all_reduce; `all` has one `shard` per rank.
        let result = unsafe { sys::ncclReduceScatter(all, shard, count, number, sum, raw, ptr::null_mut()) };
        settled("ncclReduceScatter", result).map(drop)
    }

    /// Starts to replace a flat float32 tensor by rank 0's tensor. The tensor must outlive the operation.
    pub(super) fn broadcast(&self, tensor: &Tensor) -> Result<(), Error> {
        let (raw, data, count) = (self.live()?, self.data(tensor, Kind::Float)?, tensor.numel());
        let number = sys::ncclDataType_t::ncclFloat32;
        // SAFETY: as for all_reduce.
        let result = unsafe { sys::ncclBroadcast(data, data, count, number, 0, raw, ptr::null_mut()) };
        settled("ncclBroadcast", result).map(drop)
    }

    /// Starts to fill `all` with every rank's `own`, float32 or float64, in the order of ranks. Both must outlive the
    /// operation.
    pub(super) fn all_gather(&self, own: &Tensor, all: &Tensor) -> Result<(), Error> {
        let (raw, count) = (self.live()?, own.numel());
        let (kind, number) = match own.kind() {
            Kind::Double => (Kind::Double, sys::ncclDataType_t::ncclFloat64),
            _ => (Kind::Float, sys::ncclDataType_t::ncclFloat32),
        };
        let (own, all) = (self.data(own, kind)?, self.data(all, kind)?);
        // SAFETY: as for all_reduce; `all` has space for one `own` per rank.
        let result = unsafe { sys::ncclAllGather(own, all, count, number, raw, ptr::null_mut()) };
        settled("ncclAllGather", result).map(drop)
    }

    /// Aborts all operations immediately.
    pub(super) fn abort(&mut self) {
        let raw = std::mem::replace(&mut self.raw, ptr::null_mut());
        if !raw.is_null() {
            // SAFETY: the communicator is live and is never used again.
            let result = unsafe { sys::ncclCommAbort(raw) };
            if let Err(error) = settled("ncclCommAbort", result) {
                tracing::warn!("{error}");
            }
        }
    }

    /// Closes the communicator, or aborts it on timeout. No operation may be in progress.
    pub(super) fn close(&mut self) {
        let Ok(raw) = self.live() else { return };
        // SAFETY: the communicator is live.
        let finalized = settled("ncclCommFinalize", unsafe { sys::ncclCommFinalize(raw) });
        let until = Instant::now() + CLOSING;
        let mut done = finalized;
        while matches!(done, Ok(false)) && Instant::now() < until {
            std::thread::sleep(PAUSE);
            done = self.finished();
        }
        if !matches!(done, Ok(true)) {
            return self.abort();
        }
        self.raw = ptr::null_mut();
        // SAFETY: it is finalized and is never used again.
        if let Err(error) = settled("ncclCommDestroy", unsafe { sys::ncclCommDestroy(raw) }) {
            tracing::warn!("{error}");
        }
    }

    fn live(&self) -> Result<sys::ncclComm_t, Error> {
        if self.raw.is_null() { Err(Error::Over) } else { Ok(self.raw) }
    }

    /// Returns the memory of a tensor that NCCL supports.
    fn data(&self, tensor: &Tensor, kind: Kind) -> Result<*mut c_void, Error> {
        let device = tensor.device();
        let belongs = match &self.memory {
            Memory::Gpu(context) => device == tch::Device::Cuda(context.ordinal()),
            Memory::Host(_) => device == tch::Device::Cpu,
        };
        if !belongs || tensor.kind() != kind || !tensor.is_contiguous() {
            return Err(Error::Tensor { device, kind: tensor.kind(), expected: kind });
        }
        Ok(tensor.data_ptr())
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Memory {
    /// Returns whether the work of libtorch and NCCL on the default stream is complete.
    #[allow(unsafe_code, reason = "calls of the CUDA driver or of the library in its place")]
    fn stream_is_idle(&self) -> Result<bool, Error> {
        let result = match self {
            Self::Gpu(context) => {
                // Other work on this thread may have made another context current.
                context.bind_to_thread().map_err(Error::Context)?;
                // SAFETY: the context is current on this thread, and null names its default stream.
                unsafe { cudarc::driver::sys::cuStreamQuery(ptr::null_mut()) as c_int }
            }
            Self::Host(query) => call(*query),
        };
        match result {
            result if result == CUresult::CUDA_SUCCESS as c_int => Ok(true),
            result if result == CUresult::CUDA_ERROR_NOT_READY as c_int => Ok(false),
            code => Err(Error::Stream { code }),
        }
    }
}

#[allow(unsafe_code, reason = "a call of the library")]
fn call(query: HostStreamQuery) -> c_int {
    // SAFETY: the library that has this function takes null for its only stream.
    unsafe { query(ptr::null_mut()) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, fs};

    use cudarc::driver::CudaContext;
    use podium_stand_in::calls::{self, Call};

    use super::*;

    const NAME: &str = "collective::nccl::communicator::tests::a_stream_is_queried_in_its_own_context";

    /// Queries the stream of GPU 1 on a thread on which GPU 0 is current.
    fn query() {
        let memory = Memory::Gpu(CudaContext::new(1).unwrap());
        std::thread::spawn(move || {
            let _other = CudaContext::new(0).unwrap();
            assert!(memory.stream_is_idle().unwrap());
        })
        .join()
        .unwrap();
    }

    /// The test starts itself again, since only a new process can have another driver.
    #[test]
    fn a_stream_is_queried_in_its_own_context() {
        if env::var_os(podium_cuda_stand_in::CALLS).is_some() {
            return query();
        }
        let folder = tempfile::tempdir().unwrap();
        let calls = folder.path().join("calls");
        fs::create_dir(&calls).unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("LD_LIBRARY_PATH", podium_cuda_stand_in::install(folder.path()).unwrap())
            .env(podium_cuda_stand_in::machine::VARIABLE, "13.0 2")
            .env(podium_cuda_stand_in::CALLS, &calls)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let processes = calls::read(&calls).unwrap();
        let [Call { function, device: 1, stream: 0, .. }] = &processes[0][..] else {
            panic!("{processes:?}")
        };
        assert_eq!(function, "cuStreamQuery");
    }
}
