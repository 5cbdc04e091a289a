//! Functions of libtorch that the binding `tch` does not expose.
//!
//! `cpp/` holds their C interface, compiled against libtorch's headers. Every function there returns an error message
//! or none; the functions here turn messages into [`Error`].

#![allow(unsafe_code, reason = "a foreign interface")]

use std::ffi::{CStr, c_char};
use std::ptr;

use tch::Tensor;

mod adjacent;
mod attention;
mod cached;
mod context;
mod linear;
mod memory;
mod operations;
mod optimizer;
mod rows;
mod sampling;

pub use adjacent::adjacent;
pub use attention::{PromptQueries, Sequences, attention};
pub use cached::{Cached, Heads, cached_attention};
pub use context::{is_deterministic, set_deterministic};
pub use linear::{LowRank, gated_linear, linear};
pub use memory::{DeviceMemory, Tracked, device_memory, empty_cache, reset_peak, track};
pub use operations::{Operations, count};
pub use optimizer::{FusedAdamW, fused_adamw, take_gradient};
pub use rows::{HeadNorms, gate, norm_rotate, rms_norm, rotate};
pub use sampling::{Drawn, Selection, draw};

/// A failure that libtorch reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libtorch cannot {what}: {message}")]
pub struct Error {
    /// What was called, as a verb phrase.
    pub what: &'static str,
    /// libtorch's message.
    pub message: String,
}

unsafe extern "C" {
    fn podium_torch_free(message: *mut c_char);
}

/// Starts a measurement of this thread, computes, and stops it, also if the computation panics.
fn measure<T, R>(
    start: impl FnOnce() -> Result<(), Error>,
    stop: fn() -> Result<R, Error>,
    compute: impl FnOnce() -> T,
) -> Result<(T, R), Error> {
    struct Guard<R>(fn() -> Result<R, Error>);
    impl<R> Drop for Guard<R> {
        fn drop(&mut self) {
            let _ = self.0();
        }
    }
    start()?;
    let guard = Guard(stop);
    let result = compute();
    std::mem::forget(guard);
    Ok((result, stop()?))
}

/// A pointer to a tensor for the C interface, which only reads the tensor's handle.
fn raw(tensor: &Tensor) -> *mut torch_sys::C_tensor {
    tensor.as_ptr().cast_mut()
}

/// Takes over the tensor that a function of the C interface created.
///
/// # Safety
/// `call` writes a tensor on the heap, or returns a message.
unsafe fn created(
    what: &'static str,
    call: impl FnOnce(*mut *mut torch_sys::C_tensor) -> *mut c_char,
) -> Result<Tensor, Error> {
    let mut output = ptr::null_mut();
    checked(what, call(&raw mut output))?;
    // SAFETY: by the contract; nothing else owns the tensor.
    Ok(unsafe { Tensor::from_ptr(output) })
}

/// Takes over the message that a function of the C interface returned.
fn checked(what: &'static str, message: *mut c_char) -> Result<(), Error> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a message is a string that ends with zero; it is released once, after it was copied.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        podium_torch_free(message);
        text
    };
    Err(Error { what, message: text })
}
