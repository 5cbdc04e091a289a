//! The connection to the coordinator, with reconnects, and the transfer of policy versions.
//!
//! Workers, learner ranks and the launcher reach the coordinator through [`Coordinator`], whose calls carry the run's
//! [`secret`]; [`fetch()`] and
//! [`publish()`] copy a policy version between folders of two hosts, [`receive`] is the receiving end, and [`delta`] shortens
//! the chunks. On one host a version is linked instead ([`mod@link`]), and the workers share a [`Cache`]. This crate treats a version as a folder of files with checksums.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod activities;
pub mod announcement;
pub mod cache;
pub mod connection;
pub mod credentials;
pub mod delta;
pub mod fetch;
pub mod link;
pub mod location;
pub mod manifest;
mod progress;
pub mod publish;
pub mod receive;
pub mod secret;

pub use activities::Activities;
pub use announcement::Announcement;
pub use cache::Cache;
pub use connection::{Coordinator, Limits};
pub use credentials::Credentials;
pub use delta::{Base, LocalBase};
pub use fetch::fetch;
pub use location::CoordinatorLocation;
pub use manifest::{Content, Manifest};
pub use progress::Progress;
pub use publish::publish;
pub use secret::Secret;
