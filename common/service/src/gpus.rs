//! The GPUs of this machine, as the driver's management library (NVML) reports them, and their metrics.
//!
//! NVML is part of the driver and is loaded at run time. On a machine without a driver there are no GPUs, which is no
//! error. `CUDA_VISIBLE_DEVICES` restricts the list as it restricts CUDA's.

mod machine;
mod metrics;
mod peak;
mod visible;

pub use machine::{Cuda, Error, Machine, REQUIRED_CUDA};
pub use metrics::Sampling;
pub use nvml_wrapper::error::NvmlError as DriverError;
pub use visible::{Gpu, VARIABLE};
