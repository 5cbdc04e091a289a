//! Files on disk: durable writes, checksums, stamps, locks, and JSON Lines.
//!
//! This crate does not depend on networks, metrics or terminals, so that crates that only write files stay small.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod durable;
pub mod json_lines;
pub mod locks;
pub mod stamp;
