//! Groups that a rank cannot train on, on their way back to the coordinator.

use podium_grpo::Step;

use super::{Error, Learner};
use crate::rank::Rank;
use crate::update::Unusable;

impl Learner<'_> {
    /// Has groups of this rank sampled again, and goes on when every rank has reported its own: until then the coordinator
    /// would serve the step as it was.
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
