//! The protocol between the services of a run.
//!
//! [`v1`] is generated from `v1/podium.proto`, whose comments document every field; [`convert`] turns its messages into
//! domain types and back, and refuses what does not hold together. Nothing else of Podium reads a generated message
//! without going through a conversion where one exists.

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

/// Raised whenever an old worker or learner could misread a new coordinator, or the other way round.
pub const PROTOCOL_VERSION: u32 = 3;

/// The largest message a service accepts or sends, in bytes, unless the run file says otherwise.
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 64 << 20;
