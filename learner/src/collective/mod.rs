//! What learner ranks do together: sums of tensors, copies of rank 0's tensors, exchanges of a few numbers.
//!
//! Every rank calls the same operations in the same order. Results are the same bits on all ranks and on every
//! repetition. An operation that does not finish within its deadline fails and names the rank that is missing; after a
//! failure the world has to come together again.

mod buckets;
pub mod choice;
pub mod nccl;
pub mod star;
pub mod tcp;
mod watch;
mod wire;

use std::time::Duration;

use tch::Tensor;

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

/// One rank's part in the world.
pub trait Collective: Send {
    /// This rank, from 0.
    fn rank(&self) -> u32;

    /// Number of ranks.
    fn world_size(&self) -> u32;

    /// Replaces a flat float32 tensor by its sum over all ranks, added in float32 and in an order that does not change from
    /// one repetition to the next.
    fn all_reduce_sum(&mut self, tensor: &mut Tensor) -> Result<(), Error>;

    /// Replaces a flat float32 tensor by rank 0's.
    fn broadcast(&mut self, tensor: &mut Tensor) -> Result<(), Error>;

    /// Tells every rank a few numbers of every rank, in the order of ranks. All give equally many.
    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, Error>;

    /// Waits for every rank.
    fn barrier(&mut self) -> Result<(), Error> {
        self.all_gather(&[]).map(drop)
    }

    /// Sums of float32 tensors over all ranks. On the way they share flat buckets: few large operations instead of many
    /// small ones, and no copy of everything at once.
    fn all_reduce_each(&mut self, tensors: &[Tensor]) -> Result<Vec<Tensor>, Error> {
        let sizes: Vec<usize> = tensors.iter().map(Tensor::numel).collect();
        let mut sums = Vec::with_capacity(tensors.len());
        for bucket in buckets::cut(&sizes, buckets::NUMBERS) {
            let tensors = &tensors[bucket];
            let flat: Vec<Tensor> = tensors.iter().map(|tensor| tensor.reshape([-1])).collect();
            let mut sum = Tensor::cat(&flat, 0);
            self.all_reduce_sum(&mut sum)?;
            let sizes: Vec<i64> = flat.iter().map(|tensor| tensor.size()[0]).collect();
            let parts = sum.split_with_sizes(&sizes[..], 0);
            sums.extend(parts.iter().zip(tensors).map(|(part, tensor)| part.view(&tensor.size()[..])));
        }
        Ok(sums)
    }

    /// The smallest of the ranks' numbers, each below 2^53.
    fn min(&mut self, number: u64) -> Result<u64, Error> {
        let numbers = self.all_gather(&[number as f64])?;
        Ok(numbers.iter().fold(number, |smallest, numbers| smallest.min(numbers[0] as u64)))
    }
}

/// A world of one rank.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> u32 {
        0
    }

    fn world_size(&self) -> u32 {
        1
    }

    fn all_reduce_sum(&mut self, _tensor: &mut Tensor) -> Result<(), Error> {
        Ok(())
    }

    fn broadcast(&mut self, _tensor: &mut Tensor) -> Result<(), Error> {
        Ok(())
    }

    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
        Ok(vec![numbers.to_vec()])
    }
}
