//! The part of NCCL's C interface that Podium calls. NVIDIA's documentation describes the functions.
#![allow(unsafe_code, reason = "a C interface")]
#![allow(non_snake_case, reason = "NCCL's names")]
#![allow(missing_docs, clippy::missing_safety_doc, reason = "NVIDIA documents these functions")]

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::communicator::{self, Communicator, Work};
use crate::frame::{self, Operation};
use crate::{hub, record, result};

/// The version of this interface: 2.28.9.
const VERSION: c_int = 2_28_09;
const MAGIC: c_uint = 0xcafe_beef;
const SUM: c_int = 0;
/// `CUDA_SUCCESS` and `CUDA_ERROR_NOT_READY`.
const IDLE: c_int = 0;
const NOT_READY: c_int = 600;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UniqueId {
    internal: [c_char; 128],
}

/// The first fields of `ncclConfig_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

/// Marks a library that works on host memory: replaces `cuStreamQuery` for the null stream.
#[unsafe(no_mangle)]
pub extern "C" fn podium_host_stream_query(stream: *mut c_void) -> c_int {
    record("cuStreamQuery", stream);
    if !stream.is_null() {
        return result::INVALID_ARGUMENT;
    }
    if communicator::stream_is_idle() { IDLE } else { NOT_READY }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetVersion(version: *mut c_int) -> c_int {
    if version.is_null() {
        return result::INVALID_ARGUMENT;
    }
    // SAFETY: the caller passes a pointer to an int.
    unsafe { version.write(VERSION) };
    result::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclGetUniqueId(id: *mut UniqueId) -> c_int {
    static MADE: AtomicU64 = AtomicU64::new(0);
    if id.is_null() {
        return result::INVALID_ARGUMENT;
    }
    let name = format!("podium-nccl-stand-in-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
    let mut internal = [0; 128];
    for (target, byte) in internal.iter_mut().zip(name.bytes()) {
        *target = byte as c_char;
    }
    if hub::start(name.as_bytes()).is_err() {
        return result::SYSTEM_ERROR;
    }
    // SAFETY: the caller passes a pointer to an id.
    unsafe { id.write(UniqueId { internal }) };
    result::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommInitRankConfig(
    target: *mut *mut c_void,
    size: c_int,
    id: UniqueId,
    rank: c_int,
    config: *const Config,
) -> c_int {
    record("ncclCommInitRankConfig", std::ptr::null_mut());
    if target.is_null() || config.is_null() || size < 1 || !(0..size).contains(&rank) {
        return result::INVALID_ARGUMENT;
    }
    // SAFETY: the caller passes a configuration, which starts with these fields in every version.
    let config = unsafe { config.read() };
    if config.magic != MAGIC || config.size < size_of::<Config>() || config.blocking != 0 {
        return result::INVALID_ARGUMENT;
    }
    let id = id.internal.iter().map(|&byte| byte as u8).collect();
    match Communicator::begin(id, rank as usize, size as usize) {
        Ok(communicator) => {
            // SAFETY: the caller passes a pointer to a communicator.
            unsafe { target.write(Box::into_raw(Box::new(communicator)).cast()) };
            result::IN_PROGRESS
        }
        Err(_) => result::SYSTEM_ERROR,
    }
}

/// Returns the communicator of a handle.
unsafe fn of<'a>(handle: *mut c_void) -> Option<&'a Communicator> {
    // SAFETY: the caller passes a handle from ncclCommInitRankConfig that is not destroyed.
    unsafe { handle.cast::<Communicator>().as_ref() }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommGetAsyncError(handle: *mut c_void, state: *mut c_int) -> c_int {
    record("ncclCommGetAsyncError", std::ptr::null_mut());
    // SAFETY: the caller passes a live handle and a pointer to a result.
    match unsafe { (of(handle), state.as_mut()) } {
        (Some(communicator), Some(state)) => {
            *state = communicator.state();
            result::SUCCESS
        }
        _ => result::INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommFinalize(handle: *mut c_void) -> c_int {
    record("ncclCommFinalize", std::ptr::null_mut());
    // SAFETY: the caller passes a live handle.
    unsafe { of(handle) }.map_or(result::INVALID_ARGUMENT, Communicator::finalize)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommDestroy(handle: *mut c_void) -> c_int {
    record("ncclCommDestroy", std::ptr::null_mut());
    if handle.is_null() {
        return result::INVALID_ARGUMENT;
    }
    // SAFETY: the caller passes a live handle and never uses it again.
    drop(unsafe { Box::from_raw(handle.cast::<Communicator>()) });
    result::SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclCommAbort(handle: *mut c_void) -> c_int {
    // SAFETY: as for ncclCommDestroy: both abort all operations.
    unsafe { ncclCommDestroy(handle) }
}

/// Enqueues an operation on the stream.
unsafe fn enqueue(
    handle: *mut c_void,
    stream: *mut c_void,
    operation: Operation,
    send: *const c_void,
    receive: *mut c_void,
) -> c_int {
    let known = matches!(operation.datatype, frame::FLOAT32 | frame::FLOAT64);
    // SAFETY: the caller passes a live handle.
    match unsafe { of(handle) } {
        Some(communicator)
            if known
                && stream.is_null()
                && !send.is_null()
                && !receive.is_null()
                && operation.root < communicator.size as u64 =>
        {
            communicator.enqueue(Work { operation, send: send.cast(), receive: receive.cast() })
        }
        _ => result::INVALID_ARGUMENT,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllReduce(
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    datatype: c_int,
    op: c_int,
    handle: *mut c_void,
    stream: *mut c_void,
) -> c_int {
    record("ncclAllReduce", stream);
    if op != SUM {
        return result::INVALID_ARGUMENT;
    }
    let operation =
        Operation { kind: frame::ALL_REDUCE, count: count as u64, datatype: datatype as u64, root: 0 };
    // SAFETY: forwarded.
    unsafe { enqueue(handle, stream, operation, send, receive) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclReduceScatter(
    send: *const c_void,
    receive: *mut c_void,
    receive_count: usize,
    datatype: c_int,
    op: c_int,
    handle: *mut c_void,
    stream: *mut c_void,
) -> c_int {
    record("ncclReduceScatter", stream);
    // SAFETY: the caller passes a live handle.
    let size = match unsafe { of(handle) } {
        Some(communicator) if op == SUM => communicator.size,
        _ => return result::INVALID_ARGUMENT,
    };
    let count = (receive_count * size) as u64;
    let operation = Operation { kind: frame::REDUCE_SCATTER, count, datatype: datatype as u64, root: 0 };
    // SAFETY: forwarded.
    unsafe { enqueue(handle, stream, operation, send, receive) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclBroadcast(
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    datatype: c_int,
    root: c_int,
    handle: *mut c_void,
    stream: *mut c_void,
) -> c_int {
    record("ncclBroadcast", stream);
    let operation = Operation {
        kind: frame::BROADCAST,
        count: count as u64,
        datatype: datatype as u64,
        root: root as u64,
    };
    // SAFETY: forwarded.
    unsafe { enqueue(handle, stream, operation, send, receive) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn ncclAllGather(
    send: *const c_void,
    receive: *mut c_void,
    count: usize,
    datatype: c_int,
    handle: *mut c_void,
    stream: *mut c_void,
) -> c_int {
    record("ncclAllGather", stream);
    let operation =
        Operation { kind: frame::ALL_GATHER, count: count as u64, datatype: datatype as u64, root: 0 };
    // SAFETY: forwarded.
    unsafe { enqueue(handle, stream, operation, send, receive) }
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(code: c_int) -> *const c_char {
    let text = match code {
        result::SUCCESS => c"no error",
        result::SYSTEM_ERROR => c"unhandled system error",
        result::INTERNAL_ERROR => c"internal error",
        result::INVALID_ARGUMENT => c"invalid argument",
        result::INVALID_USAGE => c"invalid usage",
        result::REMOTE_ERROR => c"remote process exited or there was a network error",
        result::IN_PROGRESS => c"NCCL operation in progress",
        _ => c"unknown result code",
    };
    text.as_ptr()
}
