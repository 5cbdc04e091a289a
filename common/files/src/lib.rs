//! Files on disk: durable writes, checksums, and JSON Lines.
//!
//! This crate knows nothing of networks, metrics or terminals, so that a crate that only writes files stays light.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod durable;
pub mod json_lines;
