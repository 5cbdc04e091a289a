//! Distances between the log-probabilities that workers recorded and the policy's own.

use podium_grpo::Group;
use tch::Tensor;

use crate::batch;

/// The groups of a micro-batch and the largest gap of each, in nats, float64 \[groups\] on the device.
pub(super) struct Gaps<'a> {
    pub(super) groups: &'a [&'a Group],
    pub(super) largest: Tensor,
}

impl<'a> Gaps<'a> {
    /// `gap`: gap of each token of the groups.
    pub(super) fn new(groups: &'a [&'a Group], gap: &Tensor) -> Self {
        let mut first = 0;
        let largest = groups.iter().map(|group| {
            let count = batch::tokens(group) as i64;
            let gap = gap.narrow(0, first, count);
            first += count;
            if count == 0 { Tensor::zeros([], (gap.kind(), gap.device())) } else { gap.max() }
        });
        Self { groups, largest: Tensor::stack(&largest.collect::<Vec<_>>(), 0) }
    }
}
