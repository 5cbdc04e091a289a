//! The driver and the GPUs of this machine.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::visible::{self, Gpu, VARIABLE};

/// The CUDA version of Podium's libtorch, and the oldest driver that supports it.
pub const REQUIRED_CUDA: Cuda = Cuda { major: 13, minor: 0 };
const REQUIRED_DRIVER: u32 = 580;
/// Exists where the driver's kernel module can be used. `/proc/driver/nvidia` also exists in containers without a GPU.
const CONTROL_DEVICE: &str = "/dev/nvidiactl";

/// The reasons why the GPUs cannot be listed or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel module can be used, but NVML is missing or does not match it.
    #[error(
        "an NVIDIA driver is installed ({CONTROL_DEVICE} exists), but libnvidia-ml.so.1 cannot be used (in a container, \
         NVIDIA_DRIVER_CAPABILITIES must include `utility`)"
    )]
    Library {
        /// NVML's error.
        source: NvmlError,
    },
    /// A query failed.
    #[error("the NVIDIA driver does not report {what} (nvidia-smi shows the state of the driver)")]
    Query {
        /// The requested information.
        what: String,
        /// NVML's error.
        source: NvmlError,
    },
    /// The driver is older than libtorch's CUDA.
    #[error(
        "the NVIDIA driver {driver} supports CUDA up to {cuda}: expected CUDA {REQUIRED_CUDA}, which requires driver \
         {REQUIRED_DRIVER} or newer; update the driver, or compute on the CPU (device cpu)"
    )]
    OldDriver {
        /// The driver's version.
        driver: String,
        /// The newest CUDA version that it supports.
        cuda: Cuda,
    },
}

/// A CUDA version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cuda {
    /// 13 of 13.0
    pub major: u32,
    /// 0 of 13.0
    pub minor: u32,
}

impl Display for Cuda {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The driver and the GPUs of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Version of the driver.
    pub driver: String,
    /// The newest CUDA version that the driver supports.
    pub cuda: Cuda,
    /// Number of installed GPUs, including those that `CUDA_VISIBLE_DEVICES` hides.
    pub installed: usize,
    /// The value of `CUDA_VISIBLE_DEVICES`.
    pub selection: Option<String>,
    /// The visible GPUs: number `i` is `cuda:i` of a process with this environment.
    pub gpus: Vec<Gpu>,
}

impl Machine {
    /// Queries the driver; `None` without one.
    pub fn detect() -> Result<Option<Self>, Error> {
        let Some(nvml) = open()? else { return Ok(None) };
        Self::query(&nvml).map(Some)
    }

    /// Queries an opened NVML.
    pub(super) fn query(nvml: &Nvml) -> Result<Self, Error> {
        let selection = std::env::var_os(VARIABLE).map(|value| value.to_string_lossy().into_owned());
        let driver = nvml.sys_driver_version().map_err(of("its version"))?;
        let cuda = nvml.sys_cuda_driver_version().map_err(of("its CUDA version"))?;
        let count = nvml.device_count().map_err(of("the number of GPUs"))?;
        let installed = (0..count).map(|index| gpu(nvml, index)).collect::<Result<Vec<_>, _>>()?;
        let instance = |uuid: &str| instance(nvml, uuid);
        let gpus = match &selection {
            None => installed.clone(),
            Some(text) => visible::select(text, &installed, instance),
        };
        let cuda = Cuda { major: cuda.unsigned_abs() / 1000, minor: cuda.unsigned_abs() % 1000 / 10 };
        Ok(Self { driver, cuda, installed: installed.len(), selection, gpus })
    }

    /// Requires a driver that supports libtorch's CUDA version.
    pub fn require_cuda(&self) -> Result<(), Error> {
        if self.cuda >= REQUIRED_CUDA {
            return Ok(());
        }
        Err(Error::OldDriver { driver: self.driver.clone(), cuda: self.cuda })
    }

    /// Returns whether the environment hides all GPUs on purpose: `CUDA_VISIBLE_DEVICES` is empty, -1 or Slurm's
    /// `NoDevFiles`.
    pub fn is_hidden(&self) -> bool {
        self.selection.as_deref().is_some_and(|text| matches!(text.trim(), "" | "-1" | "NoDevFiles"))
    }
}

/// Loads NVML; `None` without a driver.
pub(super) fn open() -> Result<Option<Nvml>, Error> {
    match Nvml::init() {
        Ok(nvml) => Ok(Some(nvml)),
        // Without the kernel module there is no GPU, whatever libraries are installed.
        Err(NvmlError::LibloadingError(_) | NvmlError::DriverNotLoaded)
            if !Path::new(CONTROL_DEVICE).exists() =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::Library { source }),
    }
}

fn of(what: impl Into<String>) -> impl FnOnce(NvmlError) -> Error {
    let what = what.into();
    |source| Error::Query { what, source }
}

fn gpu(nvml: &Nvml, index: u32) -> Result<Gpu, Error> {
    let device = nvml.device_by_index(index).map_err(of(format!("GPU {index}")))?;
    Ok(Gpu {
        index: Some(index),
        uuid: device.uuid().map_err(of(format!("the UUID of GPU {index}")))?,
        name: device.name().map_err(of(format!("the name of GPU {index}")))?,
        memory_bytes: device.memory_info().ok().map(|memory| memory.total),
    })
}

/// Returns the instance of a partitioned GPU with this UUID.
fn instance(nvml: &Nvml, uuid: &str) -> Option<Gpu> {
    let device = nvml.device_by_uuid(uuid).ok()?;
    let memory_bytes = device.memory_info().ok().map(|memory| memory.total);
    Some(Gpu { index: None, uuid: uuid.to_owned(), name: device.name().ok()?, memory_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(cuda: Cuda, selection: Option<&str>) -> Machine {
        let selection = selection.map(str::to_owned);
        Machine { driver: "570.86.15".into(), cuda, installed: 1, selection, gpus: Vec::new() }
    }

    #[test]
    fn an_old_driver_is_refused_with_both_versions() {
        machine(REQUIRED_CUDA, None).require_cuda().unwrap();
        machine(Cuda { major: 13, minor: 2 }, None).require_cuda().unwrap();
        let error = machine(Cuda { major: 12, minor: 8 }, None).require_cuda().unwrap_err().to_string();
        assert!(error.contains("570.86.15 supports CUDA up to 12.8: expected CUDA 13.0"), "{error}");
        assert!(error.contains("driver 580 or newer"), "{error}");
    }

    #[test]
    fn the_required_version_is_that_of_the_installed_libtorch() {
        let versions = include_str!("../../../../deploy/setup/versions.env");
        let runtime = versions.lines().find_map(|line| line.strip_prefix("CUDA_RUNTIME=")).unwrap();
        assert!(runtime.starts_with(&format!("{REQUIRED_CUDA}.")), "{runtime}");
    }

    #[test]
    fn gpus_can_be_hidden_on_purpose() {
        for (selection, hidden) in [
            (None, false),
            (Some(""), true),
            (Some("-1"), true),
            (Some("NoDevFiles"), true),
            (Some("7"), false),
        ] {
            assert_eq!(machine(REQUIRED_CUDA, selection).is_hidden(), hidden, "{selection:?}");
        }
    }
}
