//! Settings of libtorch that hold for the whole process.

use std::ffi::c_char;

use crate::{Error, checked};

unsafe extern "C" {
    fn podium_torch_set_deterministic(on: bool) -> *mut c_char;
    fn podium_torch_is_deterministic(on: *mut bool) -> *mut c_char;
}

/// Makes libtorch choose deterministic implementations, and fail in operations that have none. New tensors stay
/// uninitialised. Holds for the whole process.
///
/// cuBLAS additionally requires `CUBLAS_WORKSPACE_CONFIG` in the environment before its first use.
pub fn set_deterministic(on: bool) -> Result<(), Error> {
    // SAFETY: sets flags of libtorch's global context.
    checked("set deterministic algorithms", unsafe { podium_torch_set_deterministic(on) })
}

/// Returns whether deterministic algorithms are set.
pub fn is_deterministic() -> Result<bool, Error> {
    let mut on = false;
    // SAFETY: `on` outlives the call.
    checked("read its context", unsafe { podium_torch_is_deterministic(&raw mut on) })?;
    Ok(on)
}
