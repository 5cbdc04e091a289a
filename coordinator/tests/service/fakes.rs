//! Simulated processes of a tiny run: a worker with generated answers, and a learner that does not train.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use podium_config::RunFile;
use podium_grpo::PolicyVersion;
use podium_proto::v1::batch_part::Part;
use podium_proto::v1::lease_response::Answer;
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::connection::Error;
use podium_transfer::publish::{self, Outcome};
use podium_transfer::{Coordinator, LocalBase, Manifest, manifest};
use tokio_stream::StreamExt;
use tonic::Code;
use uuid::Uuid;

use crate::fixture::write_policy;

/// Token ids of every rendered prompt.
pub(crate) const PROMPT_IDS: [u32; 3] = [1, 2, 3];

pub(crate) fn registration(file: &RunFile, worker: Uuid) -> v1::RegisterRequest {
    v1::RegisterRequest {
        worker_id: worker.to_string(),
        run_hash: file.hash(),
        model_fingerprint: String::new(),
        protocol: PROTOCOL_VERSION,
        capabilities: None,
    }
}

/// Returns well-formed answers that list the first candidates; some of them rank the target first.
pub(crate) fn answer(task: &v1::Task, samples: u32) -> v1::TaskResult {
    let prompt = &task.messages.last().unwrap().content;
    let (_, candidates) = prompt.split_once("candidates").unwrap();
    let items: Vec<&str> = candidates.split_whitespace().filter(|word| word.starts_with("[ITEM_")).collect();
    let completion = |sample: u32| {
        // A token for the reasoning, and one for each item.
        let mut text = "<think> so </think>".to_owned();
        let mut text_ends = vec![text.len() as u32];
        for item in &items[sample as usize..][..3] {
            text.extend([" ", item]);
            text_ends.push(text.len() as u32);
        }
        v1::Completion {
            token_ids: vec![sample + 1, prompt.len() as u32, 7, 8],
            text,
            logprobs: vec![-0.5, -0.25, -0.25, -0.25],
            sampled_logprobs: vec![],
            allowed: vec![],
            choice_logprobs: vec![],
            finish_reason: v1::FinishReason::Stop.into(),
            text_ends,
        }
    };
    let purpose = match task.purpose.unwrap() {
        v1::task::Purpose::Training(slot) => v1::task_result::Purpose::Training(slot),
        v1::task::Purpose::Evaluation(slot) => v1::task_result::Purpose::Evaluation(slot),
    };
    v1::TaskResult {
        purpose: Some(purpose),
        prompt_ids: PROMPT_IDS.to_vec(),
        completions: (0..samples).map(completion).collect(),
    }
}

pub(crate) fn submission(worker: Uuid, lease: v1::Lease) -> v1::SubmitRequest {
    let samples = lease.sampling.unwrap().group_size;
    v1::SubmitRequest {
        worker_id: worker.to_string(),
        lease_id: lease.lease_id,
        policy_version: lease.policy_version,
        policy_content: lease.policy_content,
        results: lease.tasks.iter().map(|task| answer(task, samples)).collect(),
        activities: vec![],
    }
}

/// Calls a method of a client with the retries of the connection.
macro_rules! call {
    ($coordinator:expr, $client:ident . $method:ident, $request:expr) => {
        $coordinator.call(stringify!($method), || {
            let (mut client, request) = ($coordinator.$client(), $request.clone());
            async move { client.$method(request).await }
        })
    };
}
pub(crate) use call;

/// Runs a worker until the run is over; it submits every result `times` times.
pub(crate) async fn work(file: RunFile, coordinator: Coordinator, times: u32) {
    let worker = Uuid::new_v4();
    let register = registration(&file, worker);
    call!(coordinator, rollout.register, register).await.unwrap();
    loop {
        let want = v1::LeaseRequest { worker_id: worker.to_string(), wait_ms: 1_000 };
        let lease = match call!(coordinator, rollout.lease, want).await {
            Ok(v1::LeaseResponse { answer: Some(Answer::Lease(lease)) }) => lease,
            Ok(v1::LeaseResponse { answer: Some(Answer::RunOver(_)) }) => break,
            Ok(_) => continue,
            Err(error) => {
                assert!(is_forgotten(&error), "{error}");
                call!(coordinator, rollout.register, register).await.unwrap();
                continue;
            }
        };
        let submission = submission(worker, lease);
        for _ in 0..times {
            if let Err(error) = call!(coordinator, rollout.submit, submission).await {
                assert!(is_forgotten(&error), "{error}");
                call!(coordinator, rollout.register, register).await.unwrap();
            }
        }
    }
    call!(coordinator, rollout.leave, v1::LeaveRequest { worker_id: worker.to_string() }).await.unwrap();
}

/// Runs a worker that submits this number of leases and then disconnects.
pub(crate) async fn work_off(file: &RunFile, coordinator: &Coordinator, leases: usize) {
    let worker = Uuid::new_v4();
    call!(coordinator, rollout.register, registration(file, worker)).await.unwrap();
    let want = v1::LeaseRequest { worker_id: worker.to_string(), wait_ms: 1_000 };
    let mut done = 0;
    while done < leases {
        let answer = call!(coordinator, rollout.lease, want).await.unwrap().answer;
        if let Some(Answer::Lease(lease)) = answer {
            call!(coordinator, rollout.submit, submission(worker, lease.clone())).await.unwrap();
            done += 1;
        }
    }
    call!(coordinator, rollout.leave, v1::LeaveRequest { worker_id: worker.to_string() }).await.unwrap();
}

fn is_forgotten(error: &Error) -> bool {
    matches!(error, Error::Refused { status, .. } if status.code() == Code::NotFound)
}

/// The batches that a learner received, by step: its groups, and the rewards of all groups.
pub(crate) type Batches = BTreeMap<u64, (Vec<v1::ScoredGroup>, Vec<v1::GroupRewards>)>;

/// A learner of one rank that starts at `next_step` and publishes versions whose weights name the step that
/// produced them.
pub(crate) struct Learner {
    pub(crate) file: RunFile,
    pub(crate) coordinator: Coordinator,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) id: Uuid,
}

impl Learner {
    pub(crate) fn new(file: RunFile, coordinator: Coordinator) -> Self {
        Self { file, coordinator, folder: tempfile::tempdir().unwrap(), id: Uuid::new_v4() }
    }

    pub(crate) async fn join(&self, next_step: u64) {
        self.join_as(next_step, "").await;
    }

    pub(crate) async fn join_scraped_at(&self, metrics_address: &str) {
        self.join_as(0, metrics_address).await;
    }

    async fn join_as(&self, next_step: u64, metrics_address: &str) {
        let request = v1::JoinRequest {
            learner_id: self.id.to_string(),
            run_hash: self.file.hash(),
            protocol: PROTOCOL_VERSION,
            rank: 0,
            world_size: 1,
            metrics_address: metrics_address.to_owned(),
            next_step,
            wait_ms: 1_000,
            ..v1::JoinRequest::default()
        };
        assert!(call!(self.coordinator, learner.join, request).await.unwrap().complete);
    }

    /// Waits until a step's batch is available, and returns its parts.
    pub(crate) async fn batch(&self, step: u64) -> Vec<Part> {
        self.batch_without(step, &[]).await
    }

    /// Like [`Self::batch`], for a learner that cannot publish the versions `lost` again.
    pub(crate) async fn batch_without(&self, step: u64, lost: &[u64]) -> Vec<Part> {
        let request = v1::NextBatchRequest {
            learner_id: self.id.to_string(),
            rank: 0,
            step,
            wait_ms: 1_000,
            lost_versions: lost.to_vec(),
        };
        loop {
            let collect = || {
                let (mut client, request) = (self.coordinator.learner(), request.clone());
                async move {
                    let mut stream = client.next_batch(request).await?.into_inner();
                    let mut parts = Vec::new();
                    while let Some(part) = stream.next().await {
                        parts.extend(part?.part);
                    }
                    Ok(tonic::Response::new(parts))
                }
            };
            let parts = self.coordinator.call("get a batch", collect).await.unwrap();
            if !matches!(parts[0], Part::NotReady(_)) {
                return parts;
            }
        }
    }

    /// Writes a version with these weights.
    pub(crate) fn write(&self, version: u64, weights: &str) -> (Manifest, PathBuf) {
        let folder = self.folder.path().join(version.to_string());
        // The coordinator may have linked earlier files.
        podium_files::durable::remove_folder(&folder).unwrap();
        write_policy(&folder, weights);
        let fingerprint = manifest::fingerprint(&folder).unwrap();
        let manifest = manifest::describe(&folder, PolicyVersion(version), &self.file.hash(), &fingerprint);
        (manifest.unwrap(), folder)
    }

    /// Publishes a version with these weights without links, as from another host.
    pub(crate) async fn upload(&self, version: u64, weights: &str) -> Result<bool, Error> {
        let (manifest, folder) = self.write(version, weights);
        let id = self.id.to_string();
        let outcome = publish::upload(&self.coordinator, &id, &manifest, &folder, None).await?;
        Ok(outcome == Outcome::Unneeded)
    }

    /// Publishes a version without links, as deltas against `base`.
    pub(crate) async fn upload_against(
        &self,
        manifest: &Manifest,
        folder: &Path,
        base: &LocalBase,
    ) -> Result<Outcome, Error> {
        publish::upload(&self.coordinator, &self.id.to_string(), manifest, folder, Some(base)).await
    }

    /// Publishes a version with these weights; returns `true` if it was published already.
    pub(crate) async fn publish(&self, version: u64, weights: &str) -> Result<bool, Error> {
        let (manifest, folder) = self.write(version, weights);
        let id = self.id.to_string();
        let outcome = publish::publish(&self.coordinator, &id, &manifest, &folder, None).await?;
        Ok(outcome == Outcome::Unneeded)
    }

    pub(crate) async fn commit(&self, step: u64) -> Result<bool, Error> {
        let request = v1::CommitStepRequest {
            learner_id: self.id.to_string(),
            step,
            metrics: BTreeMap::from([("kl".to_owned(), 0.5), ("loss".to_owned(), step as f64)]),
            checkpoint_step: (step == 1).then_some(2),
            activities: vec![],
        };
        Ok(call!(self.coordinator, learner.commit_step, request).await?.run_over)
    }

    /// Trains from `next_step` to the end, and reports each finished step to `progress`.
    pub(crate) async fn train(&self, next_step: u64, progress: tokio::sync::watch::Sender<u64>) -> Batches {
        self.join(next_step).await;
        let mut batches = Batches::new();
        for step in next_step.. {
            let mut parts = self.batch(step).await.into_iter();
            let header = match parts.next() {
                Some(Part::Header(header)) => header,
                Some(Part::RunOver(_)) => break,
                other => panic!("{other:?} instead of a header for step {step}"),
            };
            let groups: Vec<_> = parts
                .map(|part| match part {
                    Part::Group(group) => group,
                    other => panic!("{other:?} among groups"),
                })
                .collect();
            assert_eq!(header.groups as usize, groups.len());
            batches.insert(step, (groups, header.step_rewards));
            self.publish(step + 1, &format!("made by step {step}")).await.unwrap();
            let over = self.commit(step).await.unwrap();
            progress.send_replace(step + 1);
            if over {
                break;
            }
        }
        batches
    }
}
