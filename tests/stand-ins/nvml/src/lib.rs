//! A stand-in for NVIDIA's NVML in tests: the functions of its C interface that Podium calls, for GPUs that the
//! environment variable `PODIUM_NVML_STAND_IN` describes; see [`gpus`].
//!
//! For tests only: it verifies nothing about GPUs.

pub mod gpus;
pub mod interface;

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// Installs the stand-in in `folder`; returns the `LD_LIBRARY_PATH` with which a program finds it.
pub fn install(folder: &Path) -> io::Result<OsString> {
    podium_stand_in::install("podium_nvml_stand_in", "libnvidia-ml.so.1", folder)
}
