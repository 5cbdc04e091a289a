//! Collective operations of the learner ranks: sums of tensors, copies of rank 0's tensors, exchange of scalars.
//!
//! Every rank calls the same operations in the same order. Results are bit-identical on all ranks and on every
//! repetition. An operation that does not finish within its deadline fails and names the missing rank; after a
//! failure the ranks need a new rendezvous.

pub(crate) mod buckets;
pub mod choice;
mod error;
pub mod nccl;
pub mod star;
pub mod tcp;
mod watch;
mod wire;

use tch::{Kind, Tensor};

pub use error::Error;

/// One rank's member of a rank group.
pub trait Collective: Send {
    /// This rank, from 0.
    fn rank(&self) -> u32;

    /// Number of ranks.
    fn world_size(&self) -> u32;

    /// Replaces a flat float32 tensor by its sum over all ranks, added in float32 and in a fixed order.
    fn all_reduce_sum(&mut self, tensor: &mut Tensor) -> Result<(), Error>;

    /// Replaces a flat float32 tensor by rank 0's tensor.
    fn broadcast(&mut self, tensor: &mut Tensor) -> Result<(), Error>;

    /// Returns every rank's numbers, in the order of ranks. All ranks pass equally many.
    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, Error>;

    /// Waits for every rank.
    fn barrier(&mut self) -> Result<(), Error> {
        self.all_gather(&[]).map(drop)
    }

    /// Returns the sums of float32 tensors over all ranks. Tensors are packed into flat buckets: few large operations
    /// instead of many small ones. The tensors of a bucket are released before the next bucket is packed.
    fn all_reduce_each(&mut self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, Error> {
        let shapes: Vec<Vec<i64>> = tensors.iter().map(Tensor::size).collect();
        let sizes: Vec<usize> = tensors.iter().map(Tensor::numel).collect();
        let mut tensors = tensors.into_iter();
        let mut sums = Vec::with_capacity(shapes.len());
        for bucket in buckets::cut(&sizes, buckets::NUMBERS) {
            let flat: Vec<Tensor> =
                tensors.by_ref().take(bucket.len()).map(|tensor| tensor.reshape([-1])).collect();
            let mut sum = if flat.len() == 1 { flat[0].shallow_clone() } else { Tensor::cat(&flat, 0) };
            drop(flat);
            self.all_reduce_sum(&mut sum)?;
            let numbers: Vec<i64> = sizes[bucket.clone()].iter().map(|size| *size as i64).collect();
            let parts = sum.split_with_sizes(&numbers[..], 0);
            sums.extend(parts.iter().zip(&shapes[bucket]).map(|(part, shape)| part.view(&shape[..])));
        }
        Ok(sums)
    }

    /// Returns this rank's shard of the sum of a flat float32 tensor over all ranks, added in float32 and in a fixed
    /// order: `[numbers]` to `[numbers / world_size]`. The number of numbers is a multiple of the number of ranks.
    fn reduce_scatter_sum(&mut self, mut tensor: Tensor) -> Result<Tensor, Error> {
        self.all_reduce_sum(&mut tensor)?;
        let shard = tensor.size()[0] / i64::from(self.world_size());
        Ok(tensor.narrow(0, i64::from(self.rank()) * shard, shard).copy())
    }

    /// Returns the flat float32 shards of all ranks, all of one size, in the order of ranks: `[numbers]` to
    /// `[world_size · numbers]`.
    fn all_gather_shards(&mut self, shard: &Tensor) -> Result<Tensor, Error> {
        let numbers = shard.size()[0];
        // A sum with zeros is exact.
        let mut all = Tensor::zeros([numbers * i64::from(self.world_size())], (Kind::Float, shard.device()));
        all.narrow(0, i64::from(self.rank()) * numbers, numbers).copy_(shard);
        self.all_reduce_sum(&mut all)?;
        Ok(all)
    }

    /// Returns the smallest of the ranks' numbers, each below 2^53.
    fn min(&mut self, number: u64) -> Result<u64, Error> {
        let numbers = self.all_gather(&[number as f64])?;
        Ok(numbers.iter().fold(number, |smallest, numbers| smallest.min(numbers[0] as u64)))
    }
}

/// A group of one rank.
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
