//! Publishes policy versions, and inspects the folders of needed versions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_service::logs::describe;
use podium_transfer::Manifest;
use uuid::Uuid;

use super::command::Offer;
use super::error::{Error, blocking};
use super::state::State;
use crate::machine::sequencer::Reply;
use crate::metrics;
use crate::policies::{self, Compared, Policies};

/// Time between two inspections of the needed folders.
const BETWEEN_INSPECTIONS: Duration = Duration::from_secs(1);

impl State {
    /// Decides on an offered version. Fails unless rank 0 of the current rank group offers it; `None` until
    /// the current close of a step has ended.
    pub(super) fn offer(&self, learner: Uuid, manifest: &Manifest) -> Result<Option<Offer>, Error> {
        if self.run.check_publisher(learner)? != Reply::Ready(()) {
            return Ok(None);
        }
        let (version, machine) = (manifest.version, self.run.machine());
        let offer = match self.parts.policies.compare(manifest)? {
            Compared::Same if machine.schedule().keeps(version, machine.latest()) => {
                return Ok(Some(Offer::Published));
            }
            Compared::Same => return Ok(Some(Offer::Unneeded)),
            Compared::Other(published) if !machine.may_supersede(version) => {
                let found = manifest.content();
                return Err(policies::Error::NotDeterministic { version, published, found }.into());
            }
            Compared::Other(published) => Offer::Superseding(published),
            Compared::New => Offer::New,
        };
        machine.check_publish(version)?;
        Ok(Some(offer))
    }

    /// Publishes a version whose folder is complete; `None` until the current close of a step has ended.
    pub(super) async fn publish(&mut self, learner: Uuid, manifest: &Manifest) -> Result<Option<()>, Error> {
        let published = self.store_published(learner, manifest).await;
        if published.is_err() {
            // Its folder was replaced and differs from the store.
            self.parts.policies.distrust();
        }
        published
    }

    async fn store_published(&mut self, learner: Uuid, manifest: &Manifest) -> Result<Option<()>, Error> {
        let version = manifest.version;
        // Checked again: another process may have become rank 0 since the offer.
        let Some(offer) = self.offer(learner, manifest)? else { return Ok(None) };
        let (message, content) = (v1::PolicyManifest::from(manifest), manifest.content());
        if let Offer::Superseding(before) = offer {
            let dropped = self.run.supersede(self.now(), message).await?;
            metrics::superseded(dropped);
            tracing::warn!(
                "{version} was published before with content {before} and is superseded by content {content} of the current rank 0: \
                 {dropped} groups of its step and later ones are sampled again"
            );
        } else {
            self.run.publish(self.now(), message).await?;
        }
        self.parts.policies.add(manifest.clone());
        if self.missing.remove(&version).is_some() {
            tracing::info!("{version} was published again");
        }
        Ok(Some(()))
    }

    /// Finds missing needed versions at the start.
    pub(super) async fn check_versions(&mut self) {
        let needed = self.run.machine().needed_versions();
        let policies = self.parts.policies.clone();
        let look = move || {
            let missing = |version| policies.look(version).err().map(|error| (version, describe(&error)));
            Ok::<_, Error>(needed.into_iter().filter_map(missing).collect())
        };
        if let Ok(missing) = blocking(look).await {
            self.take_inspection(missing).await;
        }
    }

    /// Inspects the needed versions periodically, on a separate thread.
    pub(super) async fn inspect_versions(&mut self) {
        match self.inspection.take_if(|inspection| inspection.is_finished()) {
            Some(inspection) => match inspection.await {
                Ok(missing) => self.take_inspection(missing).await,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            None if self.inspection.is_none() && self.inspected.elapsed() >= BETWEEN_INSPECTIONS => {
                self.inspected = Instant::now();
                let (policies, needed) = (self.parts.policies.clone(), self.run.machine().needed_versions());
                let inspect = move || {
                    let missing = |version| problem(&policies, version).map(|problem| (version, problem));
                    needed.into_iter().filter_map(missing).collect()
                };
                self.inspection = Some(tokio::task::spawn_blocking(inspect));
            }
            None => {}
        }
    }

    async fn take_inspection(&mut self, mut missing: BTreeMap<PolicyVersion, String>) {
        let needed = self.run.machine().needed_versions();
        missing.retain(|version, _| needed.contains(version));
        for (version, problem) in &missing {
            if !self.missing.contains_key(version) {
                tracing::error!("{problem}; {}", self.remedy(*version));
            }
        }
        for version in self.missing.keys().filter(|version| needed.contains(version)) {
            if !missing.contains_key(version) {
                tracing::info!("{version} can be served again");
            }
        }
        metrics::policies_missing(missing.len());
        let versions = missing.keys().copied().collect();
        self.missing = missing;
        let now = self.now();
        self.run.apply(|machine| machine.versions_inspected(now, versions)).await;
    }

    /// Abandons the evaluation of versions that rank 0 cannot produce again.
    pub(super) async fn abandon_versions(
        &mut self,
        learner: Uuid,
        versions: Vec<PolicyVersion>,
    ) -> Result<(), Error> {
        for version in versions {
            let machine = self.run.machine();
            if machine.rank_of(learner) != Some(0) || !machine.awaits_evaluation(version) {
                continue;
            }
            let policies = self.parts.policies.clone();
            let Some(problem) = blocking(move || Ok::<_, Error>(problem(&policies, version))).await? else {
                continue;
            };
            self.run.abandon_evaluation(self.now(), version, problem.clone()).await?;
            tracing::error!(
                "{problem}; the learner's checkpoint is newer, so that the version cannot be recomputed: it is not evaluated, and the run continues"
            );
            self.abandoned.insert(version, problem);
        }
        Ok(())
    }

    /// Returns readable warnings about versions that cannot be served and abandoned evaluations.
    pub(super) fn version_warnings(&self) -> impl Iterator<Item = String> {
        let missing =
            self.missing.iter().map(|(version, problem)| format!("{problem}; {}", self.remedy(*version)));
        let abandoned = self.abandoned.iter();
        missing.chain(abandoned.map(|(version, problem)| format!("{version} was not evaluated: {problem}")))
    }

    /// Returns the text that describes how a missing version is restored.
    fn remedy(&self, version: PolicyVersion) -> String {
        let machine = self.run.machine();
        if version == PolicyVersion::START {
            "it is copied from model.path again as soon as that is possible".to_owned()
        } else if machine.ranks().any(|(rank, _)| rank == 0) {
            "it is requested again from rank 0 of the learner".to_owned()
        } else {
            "no learner is connected: start rank 0 with its --state folder, and it publishes the version again".to_owned()
        }
    }
}

/// Returns the reason why a version cannot be served, if any. Restores version 0.
fn problem(policies: &Policies, version: PolicyVersion) -> Option<String> {
    let inspected = match policies.inspect(version) {
        Err(_) if version == PolicyVersion::START => policies.rebuild_start(),
        inspected => inspected,
    };
    inspected.err().map(|error| describe(&error))
}
