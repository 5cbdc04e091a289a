//! The part of the driver's C interface that Podium calls. NVIDIA's documentation describes the functions.
#![allow(unsafe_code, reason = "a C interface")]
#![allow(non_snake_case, reason = "the driver's names")]
#![allow(missing_docs, clippy::missing_safety_doc, reason = "NVIDIA documents these functions")]

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use crate::machine::Machine;

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const INVALID_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;

thread_local! {
    /// The current context: the number of its GPU, from 1; 0 for none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Writes a result to the caller's memory.
unsafe fn put<T>(target: *mut T, value: T) -> c_int {
    if target.is_null() {
        return INVALID_VALUE;
    }
    // SAFETY: the caller passes memory for a value of this type.
    unsafe { target.write(value) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_int {
    if flags == 0 { SUCCESS } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(version, Machine::of_environment().cuda) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(count, Machine::of_environment().count) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    if !(0..Machine::of_environment().count).contains(&ordinal) {
        return INVALID_DEVICE;
    }
    // SAFETY: forwarded.
    unsafe { put(device, ordinal) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, _attribute: c_int, _device: c_int) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(value, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(context, ptr::without_provenance_mut(device as usize + 1)) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    CURRENT.set(context.addr());
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut *mut c_void) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(context, ptr::without_provenance_mut(CURRENT.get())) }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: *mut c_void) -> c_int {
    let device = CURRENT.get() as i32 - 1;
    podium_stand_in::calls::record(crate::CALLS, "cuStreamQuery", device, stream);
    if device < 0 { INVALID_CONTEXT } else { SUCCESS }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(_code: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(text, c"CUDA_ERROR".as_ptr()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(_code: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: forwarded.
    unsafe { put(text, c"an error of the stand-in".as_ptr()) }
}
