//! Publishes versions: rank 0's new ones, and those that the coordinator has lost.

use std::path::Path;
use std::time::Instant;

use podium_grpo::{PolicyVersion, Step};
use podium_transfer::{manifest, publish};

use super::error::Error;
use super::learner::Learner;
use super::room;
use crate::rank::Remade;
use crate::session::{Identity, Wanted};

/// Result of publishing a requested version again.
pub(super) enum Republished {
    Done,
    /// The steps since the newest checkpoint must be repeated.
    AfterSteps,
    /// The newest checkpoint is later than the version.
    Impossible,
}

impl Learner<'_> {
    /// Publishes the present policy, with which `step` starts.
    pub(super) async fn publish_current(&self, step: Step) -> Result<(), Error> {
        self.save_policy().await?;
        self.publish(PolicyVersion(step.0)).await
    }

    /// Writes the present policy into the folder of outgoing versions; waits for disk space.
    pub(super) async fn save_policy(&self) -> Result<(), Error> {
        let save = || {
            let folder = self.outgoing.clone();
            self.on_device("save the policy", move |rank| rank.save_policy(&folder))
        };
        room::wait("save the policy", &self.stop, save).await
    }

    /// Publishes the version in the folder of outgoing versions.
    pub(super) async fn publish(&self, version: PolicyVersion) -> Result<(), Error> {
        self.publish_from(version, &self.outgoing).await
    }

    async fn publish_from(&self, version: PolicyVersion, folder: &Path) -> Result<(), Error> {
        let start = Instant::now();
        let Identity { learner_id, run_hash, model_fingerprint, .. } = &self.identity;
        let manifest = manifest::describe(folder, version, run_hash, model_fingerprint)?;
        publish::publish(&self.closing, &learner_id.to_string(), &manifest, folder).await?;
        crate::metrics::published(start.elapsed().as_secs_f64());
        Ok(())
    }

    /// Publishes a version again, if it is available without repeating steps.
    pub(super) async fn republish(&self, wanted: Wanted) -> Result<Republished, Error> {
        let Wanted { version, first_step } = wanted;
        tracing::warn!("the coordinator has lost {version} and requests it again");
        if version == PolicyVersion::START {
            self.publish_from(version, &self.start).await?;
            return Ok(Republished::Done);
        }
        let folder = self.outgoing.clone();
        let save = || {
            let folder = folder.clone();
            self.on_device("save a lost policy version", move |rank| {
                rank.save_version(version, first_step, &folder)
            })
        };
        match room::wait("save a lost policy version", &self.stop, save).await? {
            Remade::Saved => {
                self.publish(version).await?;
                Ok(Republished::Done)
            }
            Remade::AfterSteps => Ok(Republished::AfterSteps),
            Remade::Impossible => {
                tracing::error!("{version} cannot be recomputed: the newest checkpoint is later");
                Ok(Republished::Impossible)
            }
        }
    }
}
