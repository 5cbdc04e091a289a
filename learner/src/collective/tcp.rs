//! The collective over TCP.
//!
//! Rank 0 reads every rank's part in the order of ranks, adds them in that order, and sends the result back. This is
//! slower than a ring, but simple, bit-exact, and sufficient for policies that train on CPUs.

use tch::{Device, Kind as Number, Tensor};

use super::star::{Operation, Star};
use super::wire::{Header, Kind};
use super::{Collective, Error};

/// A rank group that sums over the connections between ranks.
#[derive(Debug)]
pub struct Tcp {
    star: Star,
}

impl Tcp {
    /// Creates the collective of a connected rank group.
    pub const fn new(star: Star) -> Self {
        Self { star }
    }
}

impl Collective for Tcp {
    fn rank(&self) -> u32 {
        self.star.rank()
    }

    fn world_size(&self) -> u32 {
        self.star.world_size()
    }

    fn all_reduce_sum(&mut self, tensor: &mut Tensor) -> Result<(), Error> {
        let mut bytes = bytes_of(tensor);
        let operation = self.star.begin(Kind::AllReduce, bytes.len());
        if self.star.rank() == 0 {
            return self.star.lead(&operation, |peers| {
                let mut sum = numbers_of(&bytes);
                for (rank, peer) in (1..).zip(peers) {
                    operation.receive(rank, peer, &mut bytes)?;
                    sum += numbers_of(&bytes);
                }
                let bytes = bytes_of(&sum);
                tensor.copy_(&sum);
                (1..).zip(peers).try_for_each(|(rank, peer)| operation.send(rank, peer, &bytes))
            });
        }
        operation.send(0, &self.star.peers[0], &bytes)?;
        operation.receive(0, &self.star.peers[0], &mut bytes)?;
        tensor.copy_(&numbers_of(&bytes));
        Ok(())
    }

    fn broadcast(&mut self, tensor: &mut Tensor) -> Result<(), Error> {
        let mut bytes = bytes_of(tensor);
        let operation = self.star.begin(Kind::Broadcast, bytes.len());
        if self.star.rank() == 0 {
            return self.star.lead(&operation, |peers| {
                (1..).zip(peers).try_for_each(|(rank, peer)| operation.send(rank, peer, &bytes))
            });
        }
        operation.receive(0, &self.star.peers[0], &mut bytes)?;
        tensor.copy_(&numbers_of(&bytes));
        Ok(())
    }

    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
        let own: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let operation = self.star.begin(Kind::AllGather, own.len());
        let mut all = vec![0; own.len() * self.star.world_size() as usize];
        if self.star.rank() == 0 {
            self.star.lead(&operation, |peers| {
                all[..own.len()].copy_from_slice(&own);
                for (rank, peer) in (1..).zip(peers) {
                    let start = own.len() * rank as usize;
                    operation.receive(rank, peer, &mut all[start..start + own.len()])?;
                }
                let answer = Operation {
                    header: Header { length: all.len() as u64, ..operation.header },
                    ..operation
                };
                (1..).zip(peers).try_for_each(|(rank, peer)| answer.send(rank, peer, &all))
            })?;
        } else {
            operation.send(0, &self.star.peers[0], &own)?;
            operation.receive(0, &self.star.peers[0], &mut all)?;
        }
        let mut numbers = all.chunks_exact(8).map(|bytes| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            f64::from_le_bytes(word)
        });
        let count = own.len() / 8;
        Ok((0..self.star.world_size()).map(|_| numbers.by_ref().take(count).collect()).collect())
    }
}

/// Returns the numbers of a flat float32 tensor in memory order.
fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let count = tensor.numel();
    let mut bytes = vec![0; count * size_of::<f32>()];
    tensor.copy_data_u8(&mut bytes, count);
    bytes
}

fn numbers_of(bytes: &[u8]) -> Tensor {
    Tensor::from_data_size(bytes, &[(bytes.len() / size_of::<f32>()) as i64], Number::Float)
}

#[cfg(test)]
mod tests;
