//! Floating point operations of a step.

use podium_checkpoint::flops::{Positions, backward, forward};
use podium_grpo::Group;

use super::updater::Updater;
use crate::batch::MicroBatch;

impl Updater {
    /// Returns the operations of the model for a step's micro-batches: the reference once, and each pass a forward, and a
    /// backward if it changes the weights.
    pub(super) fn flops_of(&self, batches: &[MicroBatch<'_>]) -> u64 {
        let (config, adapter) = (self.policy.config(), self.policy.adapter().is_some());
        let passes = u64::from(self.file.grpo.num_iterations);
        let forwards = passes + u64::from(self.reference.is_some());
        let all = of_batches(batches.iter());
        let moving = of_batches(batches.iter().filter(|batch| batch.moves));
        forwards * forward(config, all) + passes * backward(config, moving, adapter)
    }
}

fn of_batches<'a>(batches: impl Iterator<Item = &'a MicroBatch<'a>>) -> Positions {
    batches.flat_map(|batch| &batch.groups).map(|group| positions(group)).sum()
}

fn positions(group: &Group) -> Positions {
    let lengths = group.completions.iter().map(|completion| completion.len() as u64);
    Positions::of_group(group.prompt_ids.len() as u64, lengths)
}

#[cfg(test)]
mod tests {
    use podium_model::{LoadOptions, Policy};

    use super::*;
    use crate::collective::Alone;
    use crate::testing::{config, part, run_file, step};

    fn flops_of_a_step(overrides: &[&str]) -> u64 {
        let file = run_file(overrides);
        let mut updater = Updater::new(Policy::random(&config(), 5, LoadOptions::default()).unwrap(), &file);
        updater.update(&part(&step(0), 0, 1), &mut Alone).unwrap();
        updater.flops()
    }

    #[test]
    fn passes_and_the_reference_are_counted() {
        let forward_of = |group: &Group| forward(&config(), positions(group));
        let groups = part(&step(0), 0, 1).groups;
        let once: u64 = groups.iter().map(forward_of).sum();
        assert_eq!(flops_of_a_step(&["grpo.beta=0.1"]), 4 * once);
        assert_eq!(flops_of_a_step(&["grpo.beta=0.1", "grpo.num_iterations=2"]), 7 * once);
        // Without a KL term the group of equal rewards has no backward.
        assert_eq!(flops_of_a_step(&["grpo.beta=0.0"]), 3 * once - 2 * forward_of(&groups[2]));
    }
}
