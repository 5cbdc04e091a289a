//! The collective over NCCL: one process per GPU.
//!
//! NCCL transfers the numbers. The star of connections between ranks identifies a missing rank, which NCCL does not.
//! Each operation is started, polled until it completes, and aborted at its deadline; a failed communicator is never
//! reused.

mod communicator;
mod error;
mod library;

use std::time::{Duration, Instant};

use tch::{Device, Kind as Number, Tensor};

use super::Collective;
use super::star::{Operation, Star};
use super::wire::{self, Kind};
use communicator::Communicator;
pub use error::Error;
pub use library::Library;

/// Interval between polls of an operation.
const PAUSE: Duration = Duration::from_micros(50);
/// Interval between checks of the connections.
const LOOK: Duration = Duration::from_millis(5);

/// A rank group that sums over NCCL.
#[derive(Debug)]
pub struct Nccl {
    star: Star,
    communicator: Communicator,
    device: Device,
}

impl Nccl {
    /// Creates the communicator of a connected rank group. `id`: the unique id from rank 0's library. Call it and all
    /// later methods on the thread that computes on `device`.
    pub fn set_up(
        mut star: Star,
        library: &Library,
        id: &[u8],
        device: Device,
    ) -> Result<Self, super::Error> {
        let operation = star.begin(Kind::SetUp, id.len());
        star.come(&operation)?;
        let operation = operation.renewed();
        let (rank, world_size) = (star.rank(), star.world_size());
        let begun = library
            .memory(device)
            .and_then(|memory| Communicator::begin(library, memory, id, rank, world_size));
        match begun {
            Ok(communicator) => {
                let mut collective = Self { star, communicator, device };
                collective.complete(&operation, Ok(()))?;
                Ok(collective)
            }
            Err(source) => Err(star.fail(&operation, operation.nccl(source))),
        }
    }

    /// Runs an operation on the given number of bytes. Tensors that `begin` passes to NCCL must outlive this call.
    fn run(
        &mut self,
        kind: Kind,
        bytes: usize,
        begin: impl FnOnce(&Communicator) -> Result<(), Error>,
    ) -> Result<(), super::Error> {
        let operation = self.star.begin(kind, bytes);
        if let Err(error) = self.star.come(&operation) {
            self.communicator.abort();
            return Err(error);
        }
        let begun = begin(&self.communicator);
        self.complete(&operation.renewed(), begun)
    }

    /// Waits for a started operation; aborts it on all ranks if it fails.
    fn complete(&mut self, operation: &Operation, begun: Result<(), Error>) -> Result<(), super::Error> {
        let outcome = begun.map_err(|source| operation.nccl(source)).and_then(|()| self.wait(operation));
        outcome.map_err(|error| {
            self.communicator.abort();
            self.star.fail(operation, error)
        })
    }

    fn wait(&self, operation: &Operation) -> Result<(), super::Error> {
        let mut looked = Instant::now();
        while !self.communicator.finished().map_err(|source| operation.nccl(source))? {
            if looked.elapsed() >= LOOK {
                self.star.watch(operation)?;
                looked = Instant::now();
            }
            if wire::left(operation.until).is_err() {
                return Err(self.star.overdue(operation));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // If a rank is gone, an orderly close would only time out.
        if self.star.is_whole() {
            self.communicator.close();
        }
    }
}

impl Collective for Nccl {
    fn rank(&self) -> u32 {
        self.star.rank()
    }

    fn world_size(&self) -> u32 {
        self.star.world_size()
    }

    fn all_reduce_sum(&mut self, tensor: &mut Tensor) -> Result<(), super::Error> {
        let tensor = &*tensor;
        self.run(Kind::AllReduce, tensor.numel() * size_of::<f32>(), |nccl| nccl.all_reduce(tensor))
    }

    fn broadcast(&mut self, tensor: &mut Tensor) -> Result<(), super::Error> {
        let tensor = &*tensor;
        self.run(Kind::Broadcast, tensor.numel() * size_of::<f32>(), |nccl| nccl.broadcast(tensor))
    }

    fn reduce_scatter_sum(&mut self, tensor: Tensor) -> Result<Tensor, super::Error> {
        let numbers = tensor.size()[0] / i64::from(self.world_size());
        let shard = Tensor::empty([numbers], (Number::Float, self.device));
        let bytes = tensor.numel() * size_of::<f32>();
        self.run(Kind::ReduceScatter, bytes, |nccl| nccl.reduce_scatter(&tensor, &shard))?;
        Ok(shard)
    }

    fn all_gather_shards(&mut self, shard: &Tensor) -> Result<Tensor, super::Error> {
        let numbers = shard.size()[0] * i64::from(self.world_size());
        let all = Tensor::empty([numbers], (Number::Float, self.device));
        self.run(Kind::AllGather, shard.numel() * size_of::<f32>(), |nccl| nccl.all_gather(shard, &all))?;
        Ok(all)
    }

    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, super::Error> {
        // NCCL returns at once for zero numbers and would not wait for the other ranks.
        let own =
            Tensor::from_slice(if numbers.is_empty() { &[0.0] } else { numbers }).to_device(self.device);
        let count = own.numel();
        let all = Tensor::zeros([(count * self.world_size() as usize) as i64], (Number::Double, self.device));
        self.run(Kind::AllGather, size_of_val(numbers), |nccl| nccl.all_gather(&own, &all))?;
        let all = all.to_device(Device::Cpu);
        let mut flat = vec![0.0; all.numel()];
        all.copy_data(&mut flat, all.numel());
        Ok(flat
            .chunks_exact(count)
            .map(|numbers_of_rank| numbers_of_rank[..numbers.len()].to_vec())
            .collect())
    }
}

impl Operation {
    fn nccl(&self, source: Error) -> super::Error {
        super::Error::Nccl { operation: self.header.kind.name(), number: self.header.number, source }
    }
}
