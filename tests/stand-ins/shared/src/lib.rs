//! For tests: the parts that the stand-ins for NVIDIA's libraries share.

pub mod calls;
mod install;

pub use install::install;
