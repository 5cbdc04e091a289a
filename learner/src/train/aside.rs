//! Groups that a rank cannot train on: returns them to the coordinator.

use podium_grpo::Step;

use super::error::Error;
use super::learner::Learner;
use crate::rank::Rank;
use crate::update::Unusable;

impl Learner<'_> {
    /// Requests new samples for groups of this rank and continues once every rank has reported its own: until then
    /// the coordinator would serve the step unchanged.
    pub(super) async fn set_aside(&self, step: Step, groups: &[Unusable]) -> Result<(), Error> {
        for Unusable { index, cause, .. } in groups {
            tracing::warn!("group {index} of {step} is set aside and sampled again: {cause}");
        }
        if !groups.is_empty() {
            crate::metrics::set_aside(groups.len());
            self.session.set_aside(step, groups).await?;
        }
        self.on_device("wait for the other ranks", Rank::meet).await
    }
}
