//! A small run for tests: a tiny synthetic data set, a worker with generated answers, and a learner that does not
//! train.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_config::{Override, RunFile};
use podium_coordinator::discovery::Discovery;
use podium_coordinator::run::{self, Options, Running};
use podium_grpo::PolicyVersion;
use podium_proto::v1::batch_part::Part;
use podium_proto::v1::lease_response::Answer;
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_transfer::connection::Error;
use podium_transfer::publish::{self, Outcome};
use podium_transfer::{Coordinator, Limits, LocalBase, Manifest, manifest};
use serde_json::json;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

const RUN: &str = r#"
[run]
name = "tiny"
seed = 3
steps = 3
[world]
looks = 2
themes = 2
items_per_pair = 6
history = 3
train_users = 7
test_users = 6
[prompt]
template = "compact"
[answer]
layout = "ids"
[rollout]
group_size = 2
prompts_per_step = 5
prompts_per_lease = 2
max_new_tokens = 8
[evaluation]
every_steps = 2
users = 3
prompts_per_lease = 2
[network]
heartbeat_interval_ms = 100
lease_deadline_ms = 2000
max_message_bytes = 70000
"#;

/// The folder of one test, with the initial policy and the output folders of runs.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    pub(crate) file: RunFile,
    pub(crate) discovery: Discovery,
}

impl Fixture {
    pub(crate) fn new(overrides: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        write_policy(&start, "start");
        let mut all = vec![Override::new("model.path", start.to_str().unwrap())];
        all.extend(overrides.iter().map(|text| text.parse::<Override>().unwrap()));
        let file = RunFile::parse(RUN, "run.toml", &all).unwrap();
        Self { folder, file, discovery: Discovery::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self, out: &str) -> Options {
        let (file, base) = (self.file.clone(), self.path(""));
        let discovery = self.discovery.clone();
        Options {
            file,
            base,
            out: self.path(out),
            listen: None,
            advertise: None,
            metrics_address: None,
            discovery,
        }
    }

    pub(crate) async fn start(&self, out: &str) -> (Running, CancellationToken) {
        let stop = CancellationToken::new();
        (run::start(self.options(out), stop.clone()).await.unwrap(), stop)
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> Coordinator {
        let limits = Limits { reconnect_for: Duration::from_secs(20), ..Limits::of(&self.file.network) };
        Coordinator::new(&address.to_string(), limits, CancellationToken::new()).unwrap()
    }

    /// Returns the rows of a report file.
    pub(crate) fn rows(&self, out: &str, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(out).join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Token ids of every rendered prompt.
pub(crate) const PROMPT_IDS: [u32; 3] = [1, 2, 3];

/// Writes a policy with a real configuration and tokenizer, whose template renders every prompt as the same three
/// words.
fn write_policy(folder: &Path, weights: &str) {
    let config = json!({
        "model_type": "qwen3", "vocab_size": 100_000, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 10, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": true,
    });
    let tokenizer = json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3}, "unk_token": "<unk>"},
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), "a b c").unwrap();
    fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": 99999}"#).unwrap();
    fs::write(folder.join("model.safetensors"), weights).unwrap();
}

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
