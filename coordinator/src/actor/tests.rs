//! Tests that calls which do not depend on a slow close continue.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use podium_config::{Override, RunFile};
use podium_grpo::{Completion, FinishReason, Group, PolicyVersion, Step};
use podium_proto::convert::Slot;
use podium_proto::v1;
use podium_recsys::{Dataset, Task, synthetic};
use podium_transfer::Manifest;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::curriculum::Curriculum;
use crate::discovery::Discovery;
use crate::external::ExternalRewards;
use crate::identity::Identity;
use crate::machine::{BatchReply, Join, Lease, LeaseReply, Machine, Millis, Recovered, Schedule};
use crate::policies::{Policies, Start};
use crate::reports::summary::Baselines;
use crate::reports::watch::{Findings, Watch};
use crate::results::Results;
use crate::store::{EvaluationRecord, StepRecord, Store};

const WORKER: Uuid = Uuid::from_u128(1);
const LEARNER: Uuid = Uuid::from_u128(2);
/// Milliseconds.
const LEASE_DEADLINE: u64 = 10_000;

/// Releases one waiting close; dropping it in a failed test releases the close, too.
struct Gate {
    entered: oneshot::Receiver<()>,
    open: mpsc::Sender<()>,
}

/// Closes that wait for a gate.
#[derive(Debug)]
struct Gated {
    records: Records,
    gates: Mutex<Vec<(oneshot::Sender<()>, mpsc::Receiver<()>)>>,
}

impl Gated {
    /// Makes the next close wait.
    fn gate(&self) -> Gate {
        let ((at_gate, entered), (open, opened)) = (oneshot::channel(), mpsc::channel());
        self.gates.lock().unwrap_or_else(PoisonError::into_inner).push((at_gate, opened));
        Gate { entered, open }
    }

    fn wait(&self) {
        let gate = self.gates.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((entered, opened)) = gate {
            entered.send(()).unwrap();
            let _opened = opened.recv();
        }
    }
}

impl Closer for Gated {
    fn close_step(&self, finished: FinishedStep) -> Result<StepRecord, Error> {
        self.wait();
        self.records.close_step(finished)
    }

    fn close_evaluation(&self, version: PolicyVersion) -> Result<(EvaluationRecord, Findings), Error> {
        self.wait();
        self.records.close_evaluation(version)
    }
}

/// A run of two steps with two groups each. Its first and last versions are evaluated.
struct Fixture {
    _folder: tempfile::TempDir,
    closer: Arc<Gated>,
    policies: Arc<Policies>,
    now: Arc<AtomicU64>,
    handle: Handle,
    stop: CancellationToken,
    actor: JoinHandle<ExitReason>,
}

impl Fixture {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = [
            "run.steps=2",
            "rollout.prompts_per_step=2",
            "rollout.prompts_per_lease=2",
            "evaluation.users=2",
        ];
        let mut keys: Vec<Override> = keys.iter().map(|key| key.parse().unwrap()).collect();
        keys.push(format!("network.lease_deadline_ms={LEASE_DEADLINE}").parse().unwrap());
        let file = RunFile::parse("[prompt]\ntemplate = \"compact\"", "run.toml", &keys).unwrap();
        synthetic::write_data(&file.world, folder.path()).unwrap();
        let data = synthetic::data_options(&file.world, folder.path());
        let dataset = Dataset::load(folder.path(), &data).unwrap();
        let schedule = Schedule::of(&file, dataset.validation.len());
        let task = Task::new(dataset, &file.task(), 3, Path::new("")).unwrap();
        let watch = Watch::new(&file.watch, &task);
        let curriculum = Arc::new(Curriculum::new(task, 2, 0).unwrap());
        let model = folder.path().join("start");
        std::fs::create_dir(&model).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            std::fs::write(model.join(name), name).unwrap();
        }
        let store = Arc::new(Store::open(folder.path(), "cafe").unwrap());
        let model = Start { model: Some(model), adapter: None };
        let policies = Policies::open(&folder.path().join("policy"), "cafe", model, &store).unwrap();
        let policies = Arc::new(policies);
        let records = Records {
            store: store.clone(),
            curriculum,
            watch: watch.clone(),
            recording: None,
            answers: None,
        };
        let closer = Arc::new(Gated { records, gates: Mutex::default() });
        let now = Arc::new(AtomicU64::new(0));
        let time = now.clone();
        let external = Arc::new(ExternalRewards::open(&[], folder.path(), store.clone()).unwrap());
        let parts = Parts {
            identity: Identity {
                run_id: Uuid::nil(),
                run_name: "slow".into(),
                run_hash: "cafe".into(),
                model_fingerprint: policies.fingerprint().to_owned(),
            },
            store,
            policies: policies.clone(),
            closer: closer.clone(),
            watch,
            baselines: Baselines::default(),
            discovery: Discovery::default(),
            clock: Clock::manual(move || Millis(time.load(Ordering::Relaxed))),
            timeline: Arc::default(),
            external,
            out: folder.path().to_owned(),
        };
        let stop = CancellationToken::new();
        let machine = Machine::restore(schedule, Recovered::default());
        let (handle, actor) = start(parts, machine, stop.clone());
        Self { _folder: folder, closer, policies, now, handle, stop, actor }
    }

    async fn lease(&self) -> Lease {
        match self.handle.lease(WORKER).await.unwrap() {
            LeaseReply::Granted(lease) => lease,
            other => panic!("{other:?} instead of a lease"),
        }
    }

    /// Submits arbitrary results for a lease; returns the number of accepted ones.
    async fn submit(&self, lease: &Lease) -> u32 {
        let mut results = Results::default();
        for &slot in &lease.slots {
            let completion = Completion {
                token_ids: vec![1, 2],
                text: "so".into(),
                text_ends: vec![1, 2],
                logprobs: vec![-0.5, -0.5],
                sampled_logprobs: None,
                allowed: vec![],
                finish_reason: FinishReason::Stop,
            };
            match slot {
                Slot::Training(id) => {
                    let completions = vec![completion.clone(), completion];
                    let group = Group {
                        id,
                        policy_version: lease.version,
                        prompt_ids: vec![1, 2, 3],
                        completions,
                        reward_terms: vec!["form".into()],
                        term_rewards: vec![vec![0.0], vec![1.0]],
                        rewards: vec![Some(0.0), Some(1.0)],
                        rank_credits: vec![vec![], vec![]],
                    };
                    results.groups.push(group.into());
                }
                Slot::Evaluation { version, index } => {
                    results.answers.push((version, index, v1::Completion::from(completion)));
                }
            }
        }
        let content = self.policies.content(lease.version).unwrap();
        let (lease_id, version) = (Some(lease.id), lease.version);
        let submission = Submission { worker: WORKER, lease: lease_id, version, content, results };
        self.handle.submit(submission).await.unwrap().accepted
    }

    /// Publishes the version of step 0, and commits the step in the background.
    async fn commit(&self) -> JoinHandle<Result<bool, Error>> {
        let join = Join { learner: LEARNER, rank: 0, world_size: 1, ..Join::default() };
        assert!(self.handle.join(join, String::new()).await.unwrap().complete);
        let request = BatchRequest { rank: 0, learner: LEARNER, step: Step(0), lost: vec![] };
        let batch = self.handle.batch(request).await.unwrap();
        assert_eq!(batch, BatchReply::Ready { world_size: 1 });
        let start = self.policies.manifest(Some(PolicyVersion::START)).unwrap();
        let manifest = Manifest { version: PolicyVersion(1), ..start };
        self.handle.publish(LEARNER, manifest).await.unwrap();
        let handle = self.handle.clone();
        let metrics = BTreeMap::from([("kl".to_owned(), 0.5)]);
        tokio::spawn(async move {
            let report = StepReport { learner: LEARNER, step: Step(0), metrics, checkpoint: Some(Step(1)) };
            handle.commit(report).await
        })
    }

    /// Advances the time far beyond the lease deadline while the worker sends heartbeats; none may wait.
    async fn live_on(&self, lease: &Lease) {
        let start = self.now.load(Ordering::Relaxed);
        for passed in (1..=5).map(|beats| beats * LEASE_DEADLINE * 3 / 5) {
            self.now.store(start + passed, Ordering::Relaxed);
            let beat = self.handle.heartbeat(WORKER, vec![lease.id]);
            let lost = tokio::time::timeout(Duration::from_secs(30), beat).await.expect("heartbeats wait");
            assert_eq!(lost.unwrap(), [], "{passed} ms after the close began");
        }
    }

    async fn end(self) {
        self.stop.cancel();
        assert_eq!(self.actor.await.unwrap(), ExitReason::Stopped);
    }
}

#[tokio::test]
async fn leases_live_and_results_are_stored_while_a_step_is_closed() {
    let fixture = Fixture::start();
    fixture.handle.register(WORKER, Profile::default()).await.unwrap();
    let training = fixture.lease().await;
    assert_eq!(fixture.submit(&training).await, 2);
    let evaluation = fixture.lease().await;
    let gate = fixture.closer.gate();
    let commit = fixture.commit().await;
    gate.entered.await.unwrap();
    fixture.live_on(&evaluation).await;
    assert_eq!(fixture.submit(&evaluation).await, 2);
    fixture.handle.register(Uuid::from_u128(3), Profile::default()).await.unwrap();
    let status = fixture.handle.status().await.unwrap();
    assert_eq!((status.step, status.workers.len()), (0, 2));
    let next = fixture.lease().await;
    assert_eq!(next.version, PolicyVersion(1), "step 1 opens with the publication");
    // A repeated commit waits for the same close, and groups of the step cannot be set aside meanwhile.
    assert!(!commit.is_finished(), "the commit is durable before its reply");
    gate.open.send(()).unwrap();
    assert!(!commit.await.unwrap().unwrap());
    let status = fixture.handle.status().await.unwrap();
    assert_eq!((status.step, status.last_step_metrics["kl"].to_bits()), (1, 0.5_f64.to_bits()));
    assert_eq!(fixture.submit(&next).await, 2);
    fixture.end().await;
}

#[tokio::test]
async fn leases_live_while_an_evaluation_is_closed() {
    let fixture = Fixture::start();
    fixture.handle.register(WORKER, Profile::default()).await.unwrap();
    let training = fixture.lease().await;
    let evaluation = fixture.lease().await;
    let gate = fixture.closer.gate();
    let mut changes = fixture.handle.changes();
    assert_eq!(fixture.submit(&evaluation).await, 2);
    gate.entered.await.unwrap();
    fixture.live_on(&training).await;
    assert_eq!(fixture.submit(&training).await, 2);
    assert_eq!(fixture.handle.status().await.unwrap().last_evaluation_version, None);
    gate.open.send(()).unwrap();
    while fixture.handle.status().await.unwrap().last_evaluation_version.is_none() {
        changes.changed().await.unwrap();
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_close_that_is_under_way_is_stored_before_the_actor_ends() {
    let fixture = Fixture::start();
    fixture.handle.register(WORKER, Profile::default()).await.unwrap();
    let training = fixture.lease().await;
    fixture.submit(&training).await;
    let gate = fixture.closer.gate();
    let commit = fixture.commit().await;
    gate.entered.await.unwrap();
    fixture.stop.cancel();
    let store = fixture.closer.records.store.clone();
    assert!(store.step(Step(0)).unwrap().is_none() && !fixture.actor.is_finished());
    gate.open.send(()).unwrap();
    fixture.end().await;
    assert!(matches!(commit.await.unwrap(), Err(Error::Stopping)), "no actor is left to reply");
    assert_eq!(store.recover().unwrap().committed, 1, "a restart finds the step");
}
