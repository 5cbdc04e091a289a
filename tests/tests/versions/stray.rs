//! A foreign process that joins as rank 0 of the learner: a second learner, another build, a mistake.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use podium_config::RunFile;
use podium_grpo::PolicyVersion;
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_tests::Run;
use podium_transfer::connection::Error;
use podium_transfer::publish::Outcome;
use podium_transfer::{Coordinator, fetch, manifest, publish};
use uuid::Uuid;

/// A process that publishes untrained policies.
pub(crate) struct Stray {
    coordinator: Coordinator,
    folder: tempfile::TempDir,
    id: Uuid,
    file: RunFile,
}

impl Stray {
    /// Replaces rank 0, like a newly started learner process of the same run and build.
    pub(crate) async fn join(run: &Run) -> Result<Self> {
        let file = RunFile::load(Path::new(run.run_file()), &[])?;
        let stray =
            Self { coordinator: run.client()?, folder: tempfile::tempdir()?, id: Uuid::now_v7(), file };
        let code_version = match stray.ask_to_join("of no build").await {
            // "… runs code version A, those that joined before it B: …"
            Err(Error::Refused { status, .. }) => {
                let message = status.message();
                let named = message.split("those that joined before it ").nth(1);
                named.and_then(|rest| rest.split(':').next()).context(message.to_owned())?.to_owned()
            }
            other => bail!("a rank of another build was not refused: {other:?}"),
        };
        let answer = stray.ask_to_join(&code_version).await?;
        anyhow::ensure!(answer.complete, "the rank group is incomplete: {answer:?}");
        Ok(stray)
    }

    async fn ask_to_join(&self, code_version: &str) -> Result<v1::JoinResponse, Error> {
        let request = v1::JoinRequest {
            learner_id: self.id.to_string(),
            run_hash: self.file.hash(),
            protocol: PROTOCOL_VERSION,
            world_size: 1,
            wait_ms: 1_000,
            code_version: code_version.to_owned(),
            ..v1::JoinRequest::default()
        };
        let answer = self.coordinator.call("join the run", || {
            let (mut client, request) = (self.coordinator.learner(), request.clone());
            async move { client.join(request).await }
        });
        answer.await
    }

    /// Publishes a version with the weights of version 0, strongly changed.
    pub(crate) async fn publish(&self, version: u64) -> Result<()> {
        let (start, folder) =
            fetch::fetch(&self.coordinator, Some(PolicyVersion::START), self.folder.path()).await?;
        let weights = folder.join("model.safetensors");
        let mut bytes = fs::read(&weights)?;
        let header = u64::from_le_bytes(bytes[..8].try_into()?) as usize;
        for number in bytes[8 + header..].as_chunks_mut::<4>().0 {
            *number = (-3.0 * f32::from_le_bytes(*number)).to_le_bytes();
        }
        // The file may be a link to the coordinator's.
        fs::remove_file(&weights)?;
        fs::write(&weights, bytes)?;
        let fingerprint = start.model_fingerprint;
        let manifest = manifest::describe(&folder, PolicyVersion(version), &self.file.hash(), &fingerprint)?;
        let outcome = publish(&self.coordinator, &self.id.to_string(), &manifest, &folder, None).await?;
        anyhow::ensure!(outcome == Outcome::Linked, "version {version} was there with these weights");
        // An existing folder would be taken for a damaged copy of version 0 the next time.
        Ok(fs::remove_dir_all(&folder)?)
    }

    /// Commits the step of the version that it published.
    pub(crate) async fn commit(&self, step: u64) -> Result<()> {
        let request = v1::CommitStepRequest {
            learner_id: self.id.to_string(),
            step,
            ..v1::CommitStepRequest::default()
        };
        let answer = self.coordinator.call("commit a step", || {
            let (mut client, request) = (self.coordinator.learner(), request.clone());
            async move { client.commit_step(request).await }
        });
        answer.await?;
        Ok(())
    }
}
