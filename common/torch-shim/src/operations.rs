//! Counts of dispatched operations: a measure of launches that needs no GPU.

use std::ffi::c_char;

use crate::{Error, checked, measure};

unsafe extern "C" {
    fn podium_torch_count_start() -> *mut c_char;
    fn podium_torch_count_stop(counted: *mut Operations) -> *mut c_char;
}

/// Numbers of operations that a computation dispatched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Operations {
    /// Calls of libtorch from outside.
    pub calls: u64,
    /// Operations that compute or copy and call no other: on a GPU each is at least one kernel launch.
    pub kernels: u64,
    /// Copies of tensors, conversions and transfers between devices included.
    pub copies: u64,
    /// Reads of single numbers, each of which waits for the device.
    pub reads: u64,
}

/// Computes on this thread and returns the number of operations that the computation dispatched. Calls cannot be
/// nested.
pub fn count<T>(compute: impl FnOnce() -> T) -> Result<(T, Operations), Error> {
    // SAFETY: adds a callback of this thread, which `stop` removes on the same thread.
    let start = || checked("count operations", unsafe { podium_torch_count_start() });
    measure(start, stop, compute)
}

fn stop() -> Result<Operations, Error> {
    let mut counted = Operations::default();
    // SAFETY: the layouts of both declarations agree, and `counted` outlives the call.
    checked("stop counting operations", unsafe { podium_torch_count_stop(&raw mut counted) })?;
    Ok(counted)
}
