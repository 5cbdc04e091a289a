//! The part of NVML's C interface that Podium calls. NVIDIA's documentation describes the functions.
//!
//! A device's handle is the number of the GPU plus one.
#![allow(unsafe_code, reason = "a C interface")]
#![allow(non_snake_case, reason = "NVML's names")]
#![allow(missing_docs, clippy::missing_safety_doc, reason = "NVIDIA documents these functions")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use crate::gpus::{self, Machine};

const SUCCESS: c_int = 0;
const INVALID_ARGUMENT: c_int = 2;
const NOT_FOUND: c_int = 6;
const INSUFFICIENT_SIZE: c_int = 7;
const DRIVER_NOT_LOADED: c_int = 9;

/// `nvmlMemory_v2_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlUtilization_t`
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// Calls `answer` with the described machine, and converts its result.
fn on(answer: impl FnOnce(Machine) -> Result<(), c_int>) -> c_int {
    let answered = Machine::of_environment().ok_or(DRIVER_NOT_LOADED).and_then(answer);
    answered.err().unwrap_or(SUCCESS)
}

/// Calls `answer` with the number of the device.
fn on_device(device: *mut c_void, answer: impl FnOnce(u32) -> Result<(), c_int>) -> c_int {
    on(|machine| match device.addr() as u32 {
        0 => Err(INVALID_ARGUMENT),
        handle if handle > machine.count => Err(INVALID_ARGUMENT),
        handle => answer(handle - 1),
    })
}

fn write<T>(place: *mut T, value: T) -> Result<(), c_int> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller of NVML passes a pointer to a value of this type.
    unsafe { place.write(value) };
    Ok(())
}

fn write_text(place: *mut c_char, length: c_uint, text: &str) -> Result<(), c_int> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    if text.len() >= length as usize {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller of NVML passes memory of `length` bytes, and the text is shorter.
    unsafe {
        place.copy_from_nonoverlapping(text.as_ptr().cast(), text.len());
        place.add(text.len()).write(0);
    }
    Ok(())
}

fn write_handle(device: *mut *mut c_void, index: u32) -> Result<(), c_int> {
    write(device, std::ptr::without_provenance_mut(index as usize + 1))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_int {
    on(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_: c_int) -> *const c_char {
    c"an error of the stand-in".as_ptr()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> c_int {
    on(|machine| write_text(version, length, &machine.driver))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> c_int {
    on(|machine| write(version, machine.cuda))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> c_int {
    on(|machine| write(count, machine.count))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut *mut c_void) -> c_int {
    on(|machine| if index < machine.count { write_handle(device, index) } else { Err(INVALID_ARGUMENT) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut *mut c_void) -> c_int {
    if uuid.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: the caller of NVML passes a C string.
    let uuid = unsafe { CStr::from_ptr(uuid) }.to_string_lossy();
    on(|machine| {
        let found = (0..machine.count).find(|index| gpus::uuid(*index) == uuid);
        write_handle(device, found.ok_or(NOT_FOUND)?)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: *mut c_void, name: *mut c_char, length: c_uint) -> c_int {
    on_device(device, |_| write_text(name, length, gpus::NAME))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: *mut c_void, uuid: *mut c_char, length: c_uint) -> c_int {
    on_device(device, |index| write_text(uuid, length, &gpus::uuid(index)))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: *mut c_void, memory: *mut Memory) -> c_int {
    on_device(device, |index| {
        let (total, used) = (gpus::MEMORY_BYTES, gpus::used_bytes(index));
        write(memory, Memory { version: 2, total, reserved: 0, free: total - used, used })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUtilizationRates(
    device: *mut c_void,
    rates: *mut Utilization,
) -> c_int {
    on_device(device, |index| write(rates, Utilization { gpu: gpus::utilisation_percent(index), memory: 0 }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPowerUsage(device: *mut c_void, milliwatts: *mut c_uint) -> c_int {
    on_device(device, |index| write(milliwatts, gpus::power_milliwatts(index)))
}
