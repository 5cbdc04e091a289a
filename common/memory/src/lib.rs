//! Peak memory of rollout workers and learner ranks on their devices, by phase, computed from shapes alone.
//!
//! The formulas count the tensors that are alive at the peak of each phase. Tests compare them with the allocations of
//! libtorch (`common/model/tests/memory.rs`, `learner/tests/memory.rs`), and docs/guides/memory.md states them.
//!
//! Not counted: libtorch's and CUDA's own memory ([`CONTEXT`]), fragmentation, and tensors of a few bytes per row.

mod layers;
mod learner;
mod model;
mod usage;
mod worker;

pub use learner::{Learner, MicroBatch};
pub use model::{Adapter, Model, Number};
pub use usage::{Phase, gibibytes, peak, peak_in_turns};
pub use worker::{Lease, Selection, Worker};

/// Rows of logits that the learner computes at once on a GPU, whose matrix products need this many to be efficient: 0.6 GB
/// in float32 for a vocabulary of 151,936 tokens.
pub const HEAD_ROWS: u64 = 1024;

/// Logits that the learner computes at once on a CPU: 64 MiB in float32.
pub const HEAD_LOGITS: u64 = 16 << 20;

/// Tokens per completion in the initial buffers of a worker's cache; they double when full.
pub const FIRST_CAPACITY: u64 = 64;

/// Numbers that learner ranks sum at once, unless a parameter has more: 64 MiB of float32.
pub const BUCKET: u64 = 16 << 20;

/// Numbers that the optimizer steps at once, which bounds its temporary memory to 128 MiB.
pub const SLICE: u64 = 1 << 24;

/// Memory of libtorch and CUDA in a process that uses a GPU, in bytes.
pub const CONTEXT: u64 = 768 << 20;
