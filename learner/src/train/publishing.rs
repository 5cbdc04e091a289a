//! Publishes versions: rank 0's new ones, and those that the coordinator has lost.

use std::path::Path;
use std::time::Instant;

use podium_files::durable;
use podium_grpo::{PolicyVersion, Step};
use podium_proto::v1::Activity;
use podium_transfer::{manifest, publish};

use super::error::Error;
use super::learner::Learner;
use super::room;
use crate::rank::{self, Rank, Remade};
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
        let version = PolicyVersion(step.0);
        self.save_policy(version).await?;
        self.publish(version).await
    }

    /// Writes the present policy as an outgoing version; waits for disk space.
    pub(super) async fn save_policy(&self, version: PolicyVersion) -> Result<(), Error> {
        self.save("save the policy", version, |rank, folder| rank.save_policy(folder)).await
    }

    /// Writes an outgoing version; waits for disk space.
    async fn save<R: Send + 'static>(
        &self,
        what: &'static str,
        version: PolicyVersion,
        save: impl Fn(&mut Rank, &Path) -> Result<R, rank::Error> + Copy + Send + 'static,
    ) -> Result<R, Error> {
        let _saving = self.session.activities().begin(Activity::Save);
        let attempt = async || {
            self.outgoing.prepare(version)?;
            let folder = self.outgoing.folder(version);
            let saved = self.on_device(what, move |rank| save(rank, &folder)).await;
            if saved.as_ref().is_err_and(|error| durable::is_full(error)) {
                self.outgoing.release();
            }
            saved
        };
        room::wait(what, &self.stop, attempt).await
    }

    /// Publishes an outgoing version.
    pub(super) async fn publish(&self, version: PolicyVersion) -> Result<(), Error> {
        self.publish_from(version, &self.outgoing.folder(version)).await
    }

    async fn publish_from(&self, version: PolicyVersion, folder: &Path) -> Result<(), Error> {
        let start = Instant::now();
        let _publishing = self.session.activities().begin(Activity::Publish);
        let Identity { learner_id, run_hash, model_fingerprint, .. } = &self.identity;
        let manifest = manifest::describe(folder, version, run_hash, model_fingerprint)?;
        let (id, base) = (learner_id.to_string(), self.outgoing.base(version));
        let outcome = publish::publish(&self.closing, &id, &manifest, folder, base.as_ref()).await?;
        self.outgoing.published(&manifest, folder, outcome);
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
        let save = move |rank: &mut Rank, folder: &Path| rank.save_version(version, first_step, folder);
        match self.save("save a lost policy version", version, save).await? {
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
