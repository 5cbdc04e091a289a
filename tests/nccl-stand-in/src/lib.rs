//! A stand-in for NVIDIA's NCCL in tests: those functions of its C interface that Podium calls, between processes of one
//! machine, on host memory.
//!
//! It keeps NCCL's manners: communicators do not block, operations run behind the caller's back on a stream, what goes wrong
//! shows in `ncclCommGetAsyncError`, an operation that failed stays on the stream until the communicator is aborted. It has
//! one function more than NCCL, `podium_host_stream_query`, which is how Podium knows that it takes host memory. It is
//! stricter than NCCL in one thing: operations that do not fit together are an error instead of a hang.
//!
//! The environment variable `PODIUM_NCCL_STAND_IN_FAULT` makes an operation of one rank go wrong; see [`fault`].
//!
//! It must stay in tests: it is slow, and proves nothing about GPUs.

mod communicator;
pub mod fault;
mod frame;
mod hub;
pub mod install;
pub mod interface;

/// NCCL's results, as its header numbers them.
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
