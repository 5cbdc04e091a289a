//! The way to the coordinator and back: a connection that heals, and policy versions on their way.
//!
//! Workers, learner ranks and the launcher reach the coordinator through [`Coordinator`]; [`fetch()`] and [`publish()`]
//! move a policy version between folders of two hosts, [`receive`] is their other end. Nothing here knows what a policy
//! is: a version is a folder of files with checksums.

// Printing macros panic where the output is gone: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod connection;
pub mod fetch;
pub mod manifest;
pub mod place;
pub mod publish;
pub mod receive;

pub use connection::{Coordinator, Limits};
pub use fetch::fetch;
pub use manifest::{Content, Manifest};
pub use place::Place;
pub use publish::publish;
