//! A stand-in for NVIDIA's NCCL in tests: the functions of its C interface that Podium calls, between processes of
//! one machine, on host memory.
//!
//! It behaves like NCCL: communicators do not block, operations run asynchronously on a stream, errors are reported
//! by `ncclCommGetAsyncError`, and a failed operation stays on the stream until the communicator is aborted. It has
//! one additional function, `podium_host_stream_query`, by which Podium detects that it supports host memory. It is
//! stricter than NCCL in one respect: mismatched operations are an error instead of a hang.
//!
//! The environment variable `PODIUM_NCCL_STAND_IN_FAULT` injects a fault into an operation of one rank; see
//! [`fault`].
//!
//! It records the calls for a communicator in the folder of `PODIUM_NCCL_STAND_IN_CALLS`.
//!
//! For tests only: it is slow, and verifies nothing about GPUs.

mod communicator;
pub mod fault;
mod frame;
mod hub;
pub mod interface;

use std::ffi::{OsString, c_void};
use std::io;
use std::path::Path;

/// The environment variable of the record of calls.
pub const CALLS: &str = "PODIUM_NCCL_STAND_IN_CALLS";

/// Installs the stand-in in `folder`; returns the `LD_LIBRARY_PATH` with which a program finds it.
pub fn install(folder: &Path) -> io::Result<OsString> {
    podium_stand_in::install("podium_nccl_stand_in", "libnccl.so", folder)
}

/// Records a call, on host memory.
pub(crate) fn record(function: &str, stream: *mut c_void) {
    podium_stand_in::calls::record(CALLS, function, -1, stream);
}

/// NCCL's result codes, as in its header.
pub(crate) mod result {
    use std::ffi::c_int;

    pub(crate) const SUCCESS: c_int = 0;
    pub(crate) const SYSTEM_ERROR: c_int = 2;
    pub(crate) const INTERNAL_ERROR: c_int = 3;
    pub(crate) const INVALID_ARGUMENT: c_int = 4;
    pub(crate) const INVALID_USAGE: c_int = 5;
    pub(crate) const REMOTE_ERROR: c_int = 6;
    pub(crate) const IN_PROGRESS: c_int = 7;
}
