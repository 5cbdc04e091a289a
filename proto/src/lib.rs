//! The protocol between the services of a run.
//!
//! [`v1`] is generated from `v1/podium.proto`, whose comments document every field. [`convert`] converts its messages
//! to domain types and back, and refuses inconsistent ones. Other crates read generated messages only through these
//! conversions, where they exist.

pub mod convert;
mod policy_files;

pub use policy_files::{MAX_CHUNK_BYTES, TEMPLATE_FOLDER, check_file_name};

/// Generated messages, clients and servers of `podium.v1`.
#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated; documented in v1/podium.proto")]
pub mod v1 {
    tonic::include_proto!("podium.v1");
}

/// The descriptors of `podium.v1`, for gRPC server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/podium.v1.descriptors"));

/// Increased whenever an old worker or learner could misread a new coordinator, or vice versa.
pub const PROTOCOL_VERSION: u32 = 6;

/// Maximum size of a sent or received message, in bytes, unless the run file sets another.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;
