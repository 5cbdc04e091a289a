//! A stand-in for NVIDIA's NVML in tests: the functions of its C interface that Podium calls, for GPUs that the
//! environment variable `PODIUM_NVML_STAND_IN` describes; see [`gpus`].
//!
//! For tests only: it verifies nothing about GPUs.

pub mod gpus;
pub mod install;
pub mod interface;
