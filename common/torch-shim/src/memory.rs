//! Memory of devices, and of tensors on the CPU.

use std::ffi::c_char;

use crate::{Error, checked, measure};

unsafe extern "C" {
    fn podium_torch_empty_cache() -> *mut c_char;
    fn podium_torch_device_memory(device: i8, memory: *mut DeviceMemory) -> *mut c_char;
    fn podium_torch_reset_peak(device: i8) -> *mut c_char;
    fn podium_torch_track_start() -> *mut c_char;
    fn podium_torch_track_stop(peak: *mut i64, remaining: *mut i64) -> *mut c_char;
}

/// Memory of one GPU, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceMemory {
    /// In tensors of this process.
    pub allocated: i64,
    /// Maximum of [`Self::allocated`] since the process started or [`reset_peak`] was called.
    pub peak_allocated: i64,
    /// Held by this process's caching allocator, in tensors or free.
    pub reserved: i64,
    /// Maximum of [`Self::reserved`].
    pub peak_reserved: i64,
    /// Free on the device, for all processes.
    pub free: i64,
    /// Size of the device's memory.
    pub total: i64,
}

/// Returns free memory of the caching allocator to the driver, so that other processes can use it. Does nothing
/// without a GPU.
pub fn empty_cache() -> Result<(), Error> {
    // SAFETY: releases memory that no tensor uses.
    checked("empty its cache", unsafe { podium_torch_empty_cache() })
}

/// Returns the memory of the GPU with this index. Fails without a GPU.
pub fn device_memory(index: usize) -> Result<DeviceMemory, Error> {
    let mut memory = DeviceMemory::default();
    // SAFETY: the layouts of both declarations agree, and `memory` outlives the call.
    checked("read the memory of a device", unsafe {
        podium_torch_device_memory(index as i8, &raw mut memory)
    })?;
    Ok(memory)
}

/// Restarts the peaks of [`DeviceMemory`] at the present values.
pub fn reset_peak(index: usize) -> Result<(), Error> {
    // SAFETY: resets statistics.
    checked("reset the peak of a device's memory", unsafe { podium_torch_reset_peak(index as i8) })
}

/// Memory of the tensors that a computation allocated on the CPU, in bytes. Memory that existed before does not count,
/// whether it is released or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tracked {
    /// Maximum during the computation.
    pub peak: i64,
    /// At its end.
    pub remaining: i64,
}

/// Computes on this thread and returns the memory that the computation's tensors took on the CPU. Calls cannot be
/// nested.
pub fn track<T>(compute: impl FnOnce() -> T) -> Result<(T, Tracked), Error> {
    // SAFETY: pushes a tracker, which `stop` pops on the same thread.
    let start = || checked("track memory", unsafe { podium_torch_track_start() });
    measure(start, stop, compute)
}

fn stop() -> Result<Tracked, Error> {
    let mut tracked = Tracked { peak: 0, remaining: 0 };
    // SAFETY: both numbers outlive the call.
    checked("stop tracking memory", unsafe {
        podium_torch_track_stop(&raw mut tracked.peak, &raw mut tracked.remaining)
    })?;
    Ok(tracked)
}
