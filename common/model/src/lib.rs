//! Podium's policy on libtorch: Qwen3, Qwen2 and Llama models for sampling and training.
//!
//! The common part of a prompt's completions is computed once: its forward when sampling ([`generate()`]), its
//! forward and backward when training ([`Policy::training_pass`]). Both use the same layers and the same attention,
//! so that their log-probabilities agree.
//!
//! Tensors stay on the thread of their device ([`DeviceThread`]). This crate does not depend on rewards, objectives,
//! the network or the run.

mod adapter;
mod allowed;
mod attention;
mod block;
mod cache;
pub mod checkpoint;
mod continuations;
pub mod device;
pub mod device_thread;
pub mod generate;
mod gradients;
mod joint;
mod layers;
mod lora;
pub mod memory;
mod merge;
mod mlp;
mod options;
pub mod packed;
mod policy;
mod prefill;
pub mod random;
pub mod rope;
mod sampler;
mod scoring;
mod shared;
mod shim;

pub use adapter::is_adapter;
pub use continuations::Continuations;
pub use device_thread::DeviceThread;
pub use generate::{Batch, Generated, Sampled, generate, generate_restricted};
pub use merge::merge;
pub use options::{AttentionKernel, LoadOptions, Precision};
pub use packed::{GroupTokens, Packed};
pub use podium_checkpoint::{Config, Family, FieldError, config};
pub use policy::Policy;
pub use scoring::{AdapterDropout, Entropy, Scores, TrainingOptions, TrainingPass};
pub use shared::SharedDevice;
