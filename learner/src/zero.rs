//! `ZeRO` stage 1 (Rajbhandari et al. 2020, arXiv 1910.02054): the float32 weights and the moments of `AdamW` are sharded over
//! the ranks.
//!
//! The parameters are packed into flat buckets. Each rank receives its shard of a bucket's summed gradient, steps its shard
//! of the weights, and sends it to the other ranks. Per parameter a rank holds 12 / ranks bytes instead of 12.
//!
//! A checkpoint holds whole tensors under the names of [`AdamW::state`], so that it can be loaded by any number of ranks,
//! sharded or not.

use std::collections::BTreeMap;
use std::ops::Range;

use tch::{Device, Kind, Tensor, no_grad};

use crate::adamw::{AdamW, Options};
use crate::collective::{self, Collective, buckets};
use crate::optimizer::Error;

/// The parts of the state, in the order of [`AdamW::state`].
const PARTS: [&str; 3] = ["weight", "first_moment", "second_moment"];

/// Parameters that are sharded together: all decay, or none does.
#[derive(Debug)]
struct Bucket {
    /// Positions of the parameters.
    members: Vec<usize>,
    /// Numbers of a shard. The last shards end with padding.
    shard: i64,
    decays: bool,
}

/// The buckets of a rank group, and this rank's shards.
#[derive(Debug)]
struct Shards {
    rank: i64,
    world_size: i64,
    buckets: Vec<Bucket>,
    /// One slot per bucket.
    adamw: AdamW,
}

/// The sharded optimizer of a policy's trainable parameters.
#[derive(Debug)]
pub(crate) struct Zero {
    options: Options,
    /// They share memory with the policy's.
    parameters: Vec<(String, Tensor)>,
    /// Made for a rank group; `None` before the first.
    shards: Option<Shards>,
}

impl Zero {
    pub(crate) fn new(parameters: &[(String, Tensor)], options: Options) -> Self {
        let share = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.detach());
        Self { options, parameters: parameters.iter().map(share).collect(), shards: None }
    }

    pub(crate) fn steps(&self) -> u64 {
        self.shards.as_ref().map_or(0, |shards| shards.adamw.steps())
    }

    pub(crate) fn restored(&mut self, steps: u64) {
        if let Some(shards) = &mut self.shards {
            shards.adamw.restored(steps);
        }
    }

    /// Returns the names and shapes of the state's tensors.
    pub(crate) fn shapes(&self) -> Vec<(String, Vec<i64>)> {
        let of_part = |part: &'static str| {
            self.parameters.iter().map(move |(name, tensor)| (format!("{part}.{name}"), tensor.size()))
        };
        PARTS.into_iter().flat_map(of_part).collect()
    }

    /// Sums the gradients over the ranks and applies one step; returns the norm of the sum.
    pub(crate) fn step(
        &mut self,
        gradients: Vec<Tensor>,
        learning_rate: f64,
        collective: &mut dyn Collective,
    ) -> Result<f64, Error> {
        let parameters = &self.parameters;
        let fits = |shards: &Shards| shards.world_size == i64::from(collective.world_size());
        if !self.shards.as_ref().is_some_and(fits) {
            self.shards = None;
        }
        // In place: a step that panics leaves its number.
        let shards = self.shards.get_or_insert_with(|| Shards::new(parameters, self.options, collective));
        no_grad(|| shards.step(parameters, gradients, learning_rate, collective))
    }

    /// Returns the whole state on rank 0, in memory of the CPU, and nothing on other ranks. Every rank must call it.
    pub(crate) fn gather(
        &self,
        collective: &mut dyn Collective,
    ) -> Result<Vec<(String, Tensor)>, collective::Error> {
        let Some(shards) = &self.shards else { return Ok(Vec::new()) };
        let mut state = Vec::new();
        for (part, own) in PARTS.into_iter().zip(shards.parts()) {
            for (bucket, shard) in shards.buckets.iter().zip(own) {
                let all = collective.all_gather_shards(&shard)?;
                if collective.rank() == 0 {
                    let all = all.to_device(Device::Cpu);
                    for (member, range) in bucket.ranges(&self.parameters) {
                        let (name, tensor) = &self.parameters[member];
                        state
                            .push((format!("{part}.{name}"), part_of(&all, &range).view(&tensor.size()[..])));
                    }
                }
            }
        }
        Ok(state)
    }

    /// Starts in a rank group from rank 0's state: `saved`, or the policy's weights with moments of 0. Every rank must
    /// call it.
    pub(crate) fn join(
        &mut self,
        saved: Option<&BTreeMap<String, Tensor>>,
        collective: &mut dyn Collective,
    ) -> Result<(), collective::Error> {
        // The old shards are released first.
        self.shards = None;
        let parameters = &self.parameters;
        let shards = Shards::new(parameters, self.options, collective);
        no_grad(|| {
            for (part, own) in PARTS.into_iter().zip(shards.parts()) {
                for (bucket, mut shard) in shards.buckets.iter().zip(own) {
                    let mut all = bucket.flat(shards.world_size, |member| {
                        let (name, tensor) = &parameters[member];
                        match saved {
                            Some(saved) => saved[&format!("{part}.{name}")].to_device(tensor.device()),
                            None if part == PARTS[0] => tensor.shallow_clone(),
                            None => tensor.zeros_like(),
                        }
                    });
                    collective.broadcast(&mut all)?;
                    shard.copy_(&all.narrow(0, shards.rank * bucket.shard, bucket.shard));
                    if part == PARTS[0] {
                        bucket.publish(&all, parameters);
                    }
                }
            }
            Ok(())
        })?;
        self.shards = Some(shards);
        Ok(())
    }
}

impl Shards {
    /// Cuts the policy's weights into shards; moments are 0.
    fn new(parameters: &[(String, Tensor)], options: Options, collective: &dyn Collective) -> Self {
        let (rank, world_size) = (i64::from(collective.rank()), i64::from(collective.world_size()));
        let mut all = Vec::new();
        for decays in [true, false] {
            let members: Vec<usize> =
                (0..parameters.len()).filter(|member| (parameters[*member].1.dim() > 1) == decays).collect();
            let sizes: Vec<usize> = members.iter().map(|member| parameters[*member].1.numel()).collect();
            for range in buckets::cut(&sizes, buckets::NUMBERS) {
                let numbers = sizes[range.clone()].iter().sum::<usize>() as i64;
                let shard = (numbers + world_size - 1) / world_size;
                all.push(Bucket { members: members[range].to_vec(), shard, decays });
            }
        }
        let own = |bucket: &Bucket| {
            let flat = bucket.flat(world_size, |member| parameters[member].1.shallow_clone());
            flat.narrow(0, rank * bucket.shard, bucket.shard).copy()
        };
        let weights: Vec<Tensor> = no_grad(|| all.iter().map(own).collect());
        let slots = all.iter().zip(&weights).enumerate();
        let slots = slots.map(|(index, (bucket, weight))| (index.to_string(), weight, bucket.decays));
        let adamw = AdamW::with_decay(slots, options);
        Self { rank, world_size, buckets: all, adamw }
    }

    /// The shards of weights, first and second moments, one per bucket.
    fn parts(&self) -> [Vec<Tensor>; 3] {
        let mut state = self.adamw.state().into_iter().map(|(_, tensor)| tensor);
        PARTS.map(|_| state.by_ref().take(self.buckets.len()).collect())
    }

    fn step(
        &mut self,
        parameters: &[(String, Tensor)],
        gradients: Vec<Tensor>,
        learning_rate: f64,
        collective: &mut dyn Collective,
    ) -> Result<f64, Error> {
        let mut gradients: Vec<Option<Tensor>> = gradients.into_iter().map(Some).collect();
        let mut own = Vec::with_capacity(self.buckets.len());
        for bucket in &self.buckets {
            let take = |member: usize| gradients[member].take().expect("a parameter is in one bucket");
            own.push(collective.reduce_scatter_sum(bucket.flat(self.world_size, take))?);
        }
        let squared = own.iter().map(|shard| shard.norm().double_value(&[]).powi(2)).sum::<f64>();
        let norm = collective.all_gather(&[squared])?.iter().map(|rank| rank[0]).sum::<f64>().sqrt();
        let norm = self.adamw.step_with_norm(&mut own, norm, learning_rate)?;
        drop(own);
        for (bucket, weight) in self.buckets.iter().zip(self.adamw.weights()) {
            bucket.publish(&collective.all_gather_shards(weight)?, parameters);
        }
        Ok(norm)
    }
}

impl Bucket {
    /// Joins one tensor per member, with padding: float32 \[ranks · shard\].
    fn flat(&self, world_size: i64, mut tensor: impl FnMut(usize) -> Tensor) -> Tensor {
        let flat = |member: &usize| tensor(*member).reshape([-1]).to_kind(Kind::Float);
        let mut parts: Vec<Tensor> = self.members.iter().map(flat).collect();
        let numbers = parts.iter().map(|part| part.size()[0]).sum::<i64>();
        let padding = self.shard * world_size - numbers;
        if padding > 0 {
            parts.push(Tensor::zeros([padding], (Kind::Float, parts[0].device())));
        }
        Tensor::cat(&parts, 0)
    }

    /// The members with their ranges of the joined tensor.
    fn ranges(&self, parameters: &[(String, Tensor)]) -> Vec<(usize, Range<i64>)> {
        let mut start = 0;
        let range = |member: &usize| {
            let end = start + parameters[*member].1.numel() as i64;
            (*member, std::mem::replace(&mut start, end)..end)
        };
        self.members.iter().map(range).collect()
    }

    /// Copies the joined weights into the policy's parameters, in their type.
    fn publish(&self, all: &Tensor, parameters: &[(String, Tensor)]) {
        for (member, range) in self.ranges(parameters) {
            let mut parameter = parameters[member].1.shallow_clone();
            parameter.copy_(&part_of(all, &range).view(&parameter.size()[..]));
        }
    }
}

fn part_of(all: &Tensor, range: &Range<i64>) -> Tensor {
    all.narrow(0, range.start, range.end - range.start)
}

#[cfg(test)]
mod tests;
