//! A stand-in for NVIDIA's driver in tests: the functions of its C interface that Podium calls, for GPUs that the
//! environment variable `PODIUM_CUDA_STAND_IN` describes; see [`machine`].
//!
//! Like the driver, it has one primary context per GPU and one current context per thread, and a query of a stream
//! fails on a thread without one. It records the queries of streams in the folder of `PODIUM_CUDA_STAND_IN_CALLS`.
//!
//! For tests only: its GPUs compute nothing, so that libtorch finds none of them usable.

use std::ffi::OsString;
use std::io;
use std::path::Path;

pub mod interface;
pub mod machine;

/// The environment variable of the record of calls.
pub const CALLS: &str = "PODIUM_CUDA_STAND_IN_CALLS";

/// Installs the stand-in in `folder`; returns the `LD_LIBRARY_PATH` with which a program finds it.
pub fn install(folder: &Path) -> io::Result<OsString> {
    // Programs also search the name that belongs to headers.
    podium_stand_in::install("podium_cuda_stand_in", "libcuda.so", folder)?;
    podium_stand_in::install("podium_cuda_stand_in", "libcuda.so.1", folder)
}
