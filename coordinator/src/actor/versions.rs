//! Policy versions on their way in, and what is done about those whose folders are removed or damaged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use podium_grpo::PolicyVersion;
use podium_proto::v1;
use podium_transfer::{Content, Manifest};
use uuid::Uuid;

use super::state::State;
use super::{Error, blocking};
use crate::machine::Event;
use crate::metrics;
use crate::policies::{self, Compared, Policies};

/// Time between two inspections of the folders that are needed.
const BETWEEN_INSPECTIONS: Duration = Duration::from_secs(1);

/// What becomes of a version that a learner offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is the first of its number.
    New,
    /// It replaces another content, which was not committed.
    Superseding(Content),
    /// It was published, and its folder should be there.
    Kept,
    /// It was published, and is needed no longer.
    Unneeded,
}

impl State {
    /// What becomes of a version. Refused unless rank 0 of the current rank group offers it.
    pub(super) fn offer(&self, learner: Uuid, manifest: &Manifest) -> Result<Offer, Error> {
        let (version, machine) = (manifest.version, &self.parts.machine);
        machine.check_publisher(learner)?;
        let offer = match self.parts.policies.compare(manifest)? {
            Compared::Same if machine.plan().keeps(version, machine.latest()) => return Ok(Offer::Kept),
            Compared::Same => return Ok(Offer::Unneeded),
            Compared::Other(published) if !machine.may_supersede(version) => {
                let found = manifest.content();
                return Err(policies::Error::NotDeterministic { version, published, found }.into());
            }
            Compared::Other(published) => Offer::Superseding(published),
            Compared::New => Offer::New,
        };
        machine.check_publish(version)?;
        Ok(offer)
    }

    /// Notes a version whose folder was written.
    pub(super) async fn published(&mut self, learner: Uuid, manifest: Manifest) -> Result<(), Error> {
        let version = manifest.version;
        let kept = self.keep_published(learner, manifest).await;
        if kept.is_err() {
            // Its folder was replaced, and is not what the store says.
            self.parts.policies.distrust(version);
        }
        kept
    }

    async fn keep_published(&mut self, learner: Uuid, manifest: Manifest) -> Result<(), Error> {
        let version = manifest.version;
        // Asked again: another process may have become rank 0 since the offer.
        let offer = self.offer(learner, &manifest)?;
        let (store, message) = (self.parts.store.clone(), v1::PolicyManifest::from(&manifest));
        let content = manifest.content();
        if let Offer::Superseding(before) = offer {
            self.write(move || Ok(store.supersede_policy(&message)?)).await?;
            self.parts.policies.add(manifest);
            let waiting = self.parts.machine.waiting_groups();
            self.step(Event::VersionSuperseded { version }).await;
            let dropped = waiting - self.parts.machine.waiting_groups();
            metrics::superseded(dropped);
            tracing::warn!(
                "{version} was published before with content {before} and is superseded by content {content} of the current rank 0: \
                 {dropped} groups of its step and later ones are sampled again"
            );
        } else {
            self.write(move || Ok(store.put_policy(&message)?)).await?;
            self.parts.policies.add(manifest);
            self.step(Event::VersionPublished { version }).await;
        }
        if self.missing.remove(&version).is_some() {
            tracing::info!("{version} was published again");
        }
        Ok(())
    }

    /// Finds out at the start which needed versions are not there.
    pub(super) async fn look_at_versions(&mut self) {
        let needed = self.parts.machine.needed_versions();
        let policies = self.parts.policies.clone();
        let look = move || {
            let missing = |version| policies.look(version).err().map(|error| (version, error.to_string()));
            Ok::<_, Error>(needed.into_iter().filter_map(missing).collect())
        };
        if let Ok(missing) = blocking(look).await {
            self.take_inspection(missing).await;
        }
    }

    /// Has the needed versions inspected from time to time, and takes what was found.
    pub(super) async fn inspect_versions(&mut self) {
        match self.inspection.take_if(|inspection| inspection.is_finished()) {
            Some(inspection) => match inspection.await {
                Ok(missing) => self.take_inspection(missing).await,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            },
            None if self.inspection.is_none() && self.inspected.elapsed() >= BETWEEN_INSPECTIONS => {
                self.inspected = Instant::now();
                let (policies, needed) = (self.parts.policies.clone(), self.parts.machine.needed_versions());
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
        let needed = self.parts.machine.needed_versions();
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
        self.step(Event::VersionsInspected { missing: versions }).await;
    }

    /// Gives up the evaluation of versions that rank 0 cannot make again.
    pub(super) async fn lose_versions(
        &mut self,
        learner: Uuid,
        versions: Vec<PolicyVersion>,
    ) -> Result<(), Error> {
        for version in versions {
            let machine = &self.parts.machine;
            if machine.rank_of(learner) != Some(0) || !machine.awaits_evaluation(version) {
                continue;
            }
            let policies = self.parts.policies.clone();
            let Some(problem) = blocking(move || Ok::<_, Error>(problem(&policies, version))).await? else {
                continue;
            };
            let (store, reason) = (self.parts.store.clone(), problem.clone());
            self.write(move || Ok(store.lose_evaluation(version, &reason)?)).await?;
            tracing::error!(
                "{problem}; the learner's checkpoint is newer, so that it cannot be made again: it is not evaluated, and the run goes on"
            );
            self.lost.insert(version, problem);
            self.step(Event::EvaluationLost { version }).await;
        }
        Ok(())
    }

    /// For people: the versions that cannot be served, and the evaluations that were given up.
    pub(super) fn version_warnings(&self) -> impl Iterator<Item = String> {
        let missing =
            self.missing.iter().map(|(version, problem)| format!("{problem}; {}", self.remedy(*version)));
        let lost = self.lost.iter();
        missing.chain(lost.map(|(version, problem)| format!("{version} was not evaluated: {problem}")))
    }

    /// Who makes a missing version again.
    fn remedy(&self, version: PolicyVersion) -> String {
        let machine = &self.parts.machine;
        if version == PolicyVersion::START {
            "it is copied from model.path again as soon as that is possible".to_owned()
        } else if machine.ranks().any(|(rank, _)| rank == 0) {
            "rank 0 of the learner is asked to publish it again".to_owned()
        } else {
            "no learner is connected: start rank 0 with its --state folder, and it publishes the version again".to_owned()
        }
    }
}

/// Why a version cannot be served, if it cannot. Makes version 0 again.
fn problem(policies: &Policies, version: PolicyVersion) -> Option<String> {
    let inspected = match policies.inspect(version) {
        Err(_) if version == PolicyVersion::START => policies.rebuild_start(),
        inspected => inspected,
    };
    inspected.err().map(|error| error.to_string())
}
