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
        /// What it was waited for.
        operation: &'static str,
        /// Operations are counted from 0.
        number: u64,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// The connection to a rank broke.
    #[error("the connection to rank {rank} broke in {operation} {number}: {source}")]
    Connection {
        /// The rank.
        rank: u32,
        /// What was under way.
        operation: &'static str,
        /// Operations are counted from 0.
        number: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another rank found that the operation failed, and said why.
    #[error("rank {rank} gave up {operation} {number}: {reason}")]
    Abandoned {
        /// The other rank.
        rank: u32,
        /// What was under way.
        operation: &'static str,
        /// Operations are counted from 0.
        number: u64,
        /// What it said.
        reason: String,
    },
    /// All ranks took part and answer, but there is no result.
    #[error(
        "all ranks came to {operation} {number} and still answer, but it did not finish within {} ms \
         (network.collective_timeout_ms)",
        deadline.as_millis()
    )]
    Stalled {
        /// What was under way.
        operation: &'static str,
        /// Operations are counted from 0.
        number: u64,
        /// How long it was waited for.
        deadline: Duration,
    },
    /// NCCL reports an error.
    #[error("{operation} {number} failed: {source}")]
    Nccl {
        /// What was under way.
        operation: &'static str,
        /// Operations are counted from 0.
        number: u64,
        /// What NCCL says.
        source: nccl::Error,
    },
    /// Ranks are at different operations, or at the same one with different sizes.
    #[error(
        "rank {rank} is at {found}, this rank at {expected}: the ranks do not run the same program on the same model"
    )]
    Diverged {
        /// The other rank.
        rank: u32,
        /// Where it is.
        found: String,
        /// Where this one is.
        expected: String,
    },
}
