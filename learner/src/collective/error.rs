//! Failures of operations among ranks.

use std::time::Duration;

use super::nccl;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rank did not take part in time.
    #[error("rank {rank} did not take part in {operation} {number} within {} ms (network.collective_timeout_ms)", deadline.as_millis())]
    Missing {
        /// The missing rank.
        rank: u32,
        /// The operation.
        operation: &'static str,
        /// Number of the operation, from 0.
        number: u64,
        /// The deadline.
        deadline: Duration,
    },
    /// The connection to a rank broke.
    #[error("the connection to rank {rank} broke in {operation} {number}: {source}")]
    Connection {
        /// The rank.
        rank: u32,
        /// The operation.
        operation: &'static str,
        /// Number of the operation, from 0.
        number: u64,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another rank reported that the operation failed.
    #[error("rank {rank} gave up {operation} {number}: {reason}")]
    Abandoned {
        /// The other rank.
        rank: u32,
        /// The operation.
        operation: &'static str,
        /// Number of the operation, from 0.
        number: u64,
        /// The reason that it reported.
        reason: String,
    },
    /// All ranks took part and are alive, but the operation has no result.
    #[error(
        "all ranks entered {operation} {number} and are alive, but it did not finish within {} ms \
         (network.collective_timeout_ms)",
        deadline.as_millis()
    )]
    Stalled {
        /// The operation.
        operation: &'static str,
        /// Number of the operation, from 0.
        number: u64,
        /// The deadline.
        deadline: Duration,
    },
    /// NCCL reports an error.
    #[error("{operation} {number} failed: {source}")]
    Nccl {
        /// The operation.
        operation: &'static str,
        /// Number of the operation, from 0.
        number: u64,
        /// NCCL's error.
        source: nccl::Error,
    },
    /// Ranks are at different operations, or at the same operation with different sizes.
    #[error(
        "rank {rank} is at {found}, this rank at {expected}: the ranks do not run the same program on the same model"
    )]
    Diverged {
        /// The other rank.
        rank: u32,
        /// The other rank's operation.
        found: String,
        /// This rank's operation.
        expected: String,
    },
}
