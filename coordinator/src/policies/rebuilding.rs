//! Restores a missing or damaged version 0.

use std::sync::PoisonError;

use podium_files::durable;
use podium_grpo::PolicyVersion;

use super::Policies;
use super::error::Error;

impl Policies {
    /// Restores version 0 from the start if it is missing or damaged. Fails if the result would be another
    /// policy.
    pub fn rebuild_start(&self) -> Result<(), Error> {
        let _one_at_a_time = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(damage) = self.inspect(PolicyVersion::START) else { return Ok(()) };
        let again = || {
            let known = self.known(PolicyVersion::START)?;
            let (manifest, partial) = self.start.copy(&self.root, &self.run_hash)?;
            if manifest.files != known.files {
                let folder = self.start.model.clone().unwrap_or_default();
                return Err(Error::OtherContent { folder });
            }
            durable::publish_folder(&partial, &self.root.join("0"))?;
            self.trust(&known);
            Ok(())
        };
        again().map_err(|source| Error::StartGone { damage: Box::new(damage), source: Box::new(source) })?;
        tracing::warn!("policy version 0 was missing or damaged: it is copied from model.path again");
        Ok(())
    }
}
