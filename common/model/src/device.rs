//! Choice of the device, libtorch's threads, and the CUDA libraries.

use std::sync::Mutex;

use tch::{Cuda, Device};

/// The reasons why a device or its threads are unavailable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of the device is invalid.
    #[error("device is {0:?}, expected \"cpu\", \"cuda\", \"cuda:<index>\" or \"auto\"")]
    Name(String),
    /// The GPU does not exist.
    #[error("device {wanted} does not exist: found {available} CUDA devices")]
    Unavailable {
        /// The requested device.
        wanted: String,
        /// Number of CUDA devices that libtorch detects.
        available: i64,
    },
    /// libtorch's number of threads between operations is fixed once per process.
    #[error("libtorch runs with {set} threads in this process: cannot change it to {wanted}")]
    Threads {
        /// The number in use.
        set: usize,
        /// The requested number.
        wanted: usize,
    },
    /// The number of threads is 0.
    #[error("the number of libtorch threads is 0: expected at least 1")]
    NoThreads,
    /// A driver is installed, but its CUDA library cannot be loaded.
    #[error(
        "an NVIDIA driver is installed, but libtorch_cuda.so cannot be loaded: install libtorch with CUDA (PODIUM_CUDA=1 \
         make setup), or set the device to cpu"
    )]
    Library(#[source] libloading::Error),
    /// A driver and libtorch's CUDA part are loaded, but no device can be used.
    #[error(
        "an NVIDIA driver for CUDA {driver} is installed, but libtorch finds no usable GPU: expected a driver for CUDA \
         {CUDA_MAJOR} or newer (580 or newer), and a GPU that CUDA_VISIBLE_DEVICES does not hide; or set the device to cpu"
    )]
    Unusable {
        /// The newest CUDA version that the driver supports.
        driver: String,
    },
    /// bfloat16 is requested of a processor that would emulate it.
    #[error(
        "model.dtype is \"bfloat16\", but this processor has no bfloat16 units (x86: AVX512-BF16, which processors with AMX \
         have too; ARM: BF16) and would take several times as long as in float32: set model.dtype to \"float32\", or \
         model.emulate_bfloat16 to true"
    )]
    EmulatedBfloat16,
    /// libtorch refused a setting.
    #[error(transparent)]
    Torch(#[from] podium_torch_shim::Error),
}

/// Major version of CUDA that libtorch is built for.
const CUDA_MAJOR: i32 = 13;

/// Parses a device name: `cpu`, `cuda`, `cuda:<index>`, or `auto` for the first GPU if there is a driver. A GPU computes
/// with deterministic algorithms.
///
/// Must be called before any other use of libtorch in this process, which must find its CUDA part loaded.
pub fn parse(name: &str) -> Result<Device, Error> {
    let index = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" | "cuda" => 0,
        _ => {
            let index = name.strip_prefix("cuda:").and_then(|index| index.parse::<u16>().ok());
            usize::from(index.ok_or_else(|| Error::Name(name.to_owned()))?)
        }
    };
    match load_cuda()? {
        None if name == "auto" => return Ok(Device::Cpu),
        Some(driver) if !Cuda::is_available() => return Err(Error::Unusable { driver }),
        _ => {}
    }
    let available = if Cuda::is_available() { Cuda::device_count() } else { 0 };
    if (index as i64) >= available {
        return Err(Error::Unavailable { wanted: name.to_owned(), available });
    }
    podium_torch_shim::set_deterministic(true)?;
    Ok(Device::Cuda(index))
}

/// Sets the number of libtorch's threads. Results depend on it to the bit, so that it belongs to the configuration of
/// a run. Call it on the computing thread; all calls of a process must pass the same number.
pub fn set_threads(count: usize) -> Result<(), Error> {
    static SET: Mutex<Option<usize>> = Mutex::new(None);
    if count == 0 {
        return Err(Error::NoThreads);
    }
    // A poisoned lock only means that another caller panicked: the number is still valid.
    let mut set = SET.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match *set {
        Some(set) if set != count => return Err(Error::Threads { set, wanted: count }),
        Some(_) => {}
        None => tch::set_num_interop_threads(count as i32),
    }
    // OpenMP stores this number for each thread.
    tch::set_num_threads(count as i32);
    *set = Some(count);
    Ok(())
}

/// Returns whether this processor multiplies in bfloat16.
#[must_use]
pub fn has_bfloat16_units() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    false
}

/// Refuses bfloat16 on a CPU without bfloat16 units, or warns if it may be emulated. The arguments are those of the run file:
/// `model.dtype` (`None` for `auto`, which is float32 on a CPU) and `model.emulate_bfloat16`.
pub fn check_bfloat16(device: Device, bfloat16: Option<bool>, emulate: bool) -> Result<(), Error> {
    if device != Device::Cpu || bfloat16 != Some(true) || has_bfloat16_units() {
        return Ok(());
    }
    if !emulate {
        return Err(Error::EmulatedBfloat16);
    }
    tracing::warn!("this processor has no bfloat16 units: bfloat16 takes several times as long as float32");
    Ok(())
}

/// Loads libtorch's CUDA part into this process if there is an NVIDIA driver; returns the CUDA version of the driver,
/// `None` without one.
///
/// The linker omits `libtorch_cuda` because no symbol refers to it, so that one binary runs everywhere; the library
/// registers itself when loaded.
pub fn load_cuda() -> Result<Option<String>, Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    #[allow(unsafe_code, reason = "loading a library runs its initialisers")]
    // SAFETY: the driver's and PyTorch's own libraries, whose initialisers may run at any time. They stay loaded for the
    // life of the process.
    let load = |name: &str| unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) };
    let Ok(driver) = load("libcuda.so.1") else { return Ok(None) };
    let version = driver_version(&driver);
    std::mem::forget(driver);
    std::mem::forget(load("libtorch_cuda.so").map_err(Error::Library)?);
    Ok(Some(version))
}

/// Returns the newest CUDA version that a driver supports, such as `12.8`.
fn driver_version(driver: &libloading::os::unix::Library) -> String {
    let mut version = 0_i32;
    #[allow(unsafe_code, reason = "a foreign function")]
    // SAFETY: the driver's function of this name writes one int and needs no initialisation.
    let status = unsafe {
        driver
            .get::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDriverGetVersion")
            .map(|query| query(&raw mut version))
    };
    match status {
        Ok(0) => format!("{}.{}", version / 1000, version % 1000 / 10),
        _ => "of an unknown version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!(parse("cpu").unwrap(), Device::Cpu);
        for name in ["", "gpu", "cuda:", "cuda:-1", "cuda:0x", "CPU"] {
            assert!(matches!(parse(name), Err(Error::Name(refused)) if refused == name));
        }
        assert!(matches!(parse("cuda:9999"), Err(Error::Unavailable { .. })));
    }

    #[test]
    fn the_required_cuda_version_is_that_of_the_installed_libtorch() {
        let versions = include_str!("../../../deploy/setup/versions.env");
        let runtime = versions.lines().find_map(|line| line.strip_prefix("CUDA_RUNTIME=")).unwrap();
        assert!(runtime.starts_with(&format!("{CUDA_MAJOR}.")), "{runtime}");
    }

    #[test]
    fn only_a_cpu_without_units_emulates_bfloat16() {
        for (device, bfloat16) in
            [(Device::Cuda(0), Some(true)), (Device::Cpu, Some(false)), (Device::Cpu, None)]
        {
            assert!(check_bfloat16(device, bfloat16, false).is_ok());
        }
        assert_eq!(check_bfloat16(Device::Cpu, Some(true), false).is_ok(), has_bfloat16_units());
        assert!(check_bfloat16(Device::Cpu, Some(true), true).is_ok());
    }

    #[test]
    fn a_process_has_one_number_of_threads() {
        assert!(matches!(set_threads(0), Err(Error::NoThreads)));
        set_threads(1).unwrap();
        set_threads(1).unwrap();
        assert_eq!(tch::get_num_threads(), 1);
        assert!(matches!(set_threads(2), Err(Error::Threads { set: 1, wanted: 2 })));
    }
}
