use podium_grpo::{Completion, FinishReason};
use podium_proto::convert::SlotResult;
use tokio::sync::watch;

use super::*;
use crate::fake_coordinator::{FakeCoordinator, LONG, connect};
use crate::lease::Cost;
use crate::lease::tests::training;

/// A device that returns fixed completions, while it is enabled.
#[derive(Clone)]
struct FakeDevice {
    at_work: watch::Sender<bool>,
    broken: watch::Sender<bool>,
}

#[derive(Debug, thiserror::Error)]
#[error("the device is broken")]
struct Broken;

impl FakeDevice {
    fn new(at_work: bool) -> Self {
        Self { at_work: watch::Sender::new(at_work), broken: watch::Sender::new(false) }
    }
}

impl Sample for FakeDevice {
    type Error = Broken;

    async fn sample(
        &self,
        lease: Arc<Lease>,
        stop: CancellationToken,
        activities: Activities,
    ) -> Result<Option<Outcome>, Broken> {
        let _sampling = activities.begin(v1::Activity::Sample);
        let mut at_work = self.at_work.subscribe();
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            _ = at_work.wait_for(|at_work| *at_work) => {}
        }
        let completion = Completion {
            token_ids: vec![1],
            text: "a".into(),
            text_ends: vec![1],
            logprobs: vec![-0.5],
            sampled_logprobs: None,
            allowed: vec![],
            finish_reason: FinishReason::Stop,
        };
        let results = lease.tasks.iter().map(|task| SlotResult {
            slot: task.slot,
            prompt_ids: vec![1],
            completions: vec![completion.clone(); lease.group_size],
            choice_logprobs: vec![],
        });
        Ok(Some(Outcome { source: lease.source, results: results.collect(), cost: Cost::default() }))
    }

    async fn failed(&self) -> Broken {
        let mut broken = self.broken.subscribe();
        broken.wait_for(|broken| *broken).await.unwrap();
        Broken
    }
}

type Running = tokio::task::JoinHandle<Result<Ending, Error<Broken>>>;

fn begin(address: &str, device: &FakeDevice, stop: &CancellationToken, grace: Duration) -> Running {
    let identity = Identity {
        worker_id: Uuid::from_u128(9),
        run_hash: "cafe".into(),
        model_fingerprint: "beef".into(),
        capabilities: v1::Capabilities::default(),
    };
    let (coordinator, device, stop) = (connect(address), device.clone(), stop.clone());
    tokio::spawn(async move { run(&coordinator, identity, device, stop, grace).await })
}

async fn ended(running: Running) -> Result<Ending, Error<Broken>> {
    timeout(LONG, running).await.expect("the session ends in time").unwrap()
}

fn lease(step: u64) -> Answer {
    Answer::Lease(training(step, &["a", "b"]))
}

fn over() -> Answer {
    Answer::RunOver(v1::RunOver { reason: "all steps are done".into() })
}

fn steps(submitted: &[v1::SubmitRequest]) -> Vec<u64> {
    submitted.iter().map(|request| request.policy_version).collect()
}

#[tokio::test]
async fn leases_are_sampled_and_submitted_until_the_run_is_over() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.extend([lease(0), Answer::Idle(v1::Idle {}), lease(1), over()]));
    let server = fake.serve("127.0.0.1:0").await;
    let running = begin(&server.address, &FakeDevice::new(true), &CancellationToken::new(), LONG);
    assert_eq!(ended(running).await.unwrap(), Ending::RunOver("all steps are done".into()));

    let state = fake.state();
    assert_eq!(state.registered.len(), 1);
    let registered = &state.registered[0];
    assert_eq!((&*registered.run_hash, &*registered.model_fingerprint), ("cafe", "beef"));
    assert_eq!(registered.protocol, podium_proto::PROTOCOL_VERSION);
    assert_eq!(steps(&state.submitted), [0, 1]);
    let request = &state.submitted[1];
    assert_eq!(request.lease_id, training(1, &[]).lease_id);
    let indices: Vec<_> = request.results.iter().map(|result| result.purpose).collect();
    let slot = |index| v1::task_result::Purpose::Training(v1::TrainingSlot { step: 1, index, attempt: 0 });
    assert_eq!(indices, [Some(slot(0)), Some(slot(1))]);
    assert_eq!(request.results[0].completions.len(), 4);
    assert_eq!(state.left, std::slice::from_ref(&registered.worker_id));
}

#[tokio::test]
async fn a_pending_submission_is_repeated_until_it_is_graded() {
    let fake = FakeCoordinator::new();
    fake.change(|state| {
        state.pending = 2;
        state.answers.extend([lease(0), over()]);
    });
    let server = fake.serve("127.0.0.1:0").await;
    let running = begin(&server.address, &FakeDevice::new(true), &CancellationToken::new(), LONG);
    ended(running).await.unwrap();
    assert_eq!((steps(&fake.state().submitted), fake.state().pending), (vec![0], 0));
}

#[tokio::test]
async fn heartbeats_name_the_lease_being_sampled() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let device = FakeDevice::new(false);
    let running = begin(&server.address, &device, &CancellationToken::new(), LONG);
    let held = vec![training(0, &[]).lease_id];
    fake.until(|state| state.heartbeats.iter().any(|beat| beat.lease_ids == held)).await;
    fake.change(|state| state.answers.push_back(over()));
    device.at_work.send_replace(true);
    ended(running).await.unwrap();
    assert_eq!(steps(&fake.state().submitted), [0]);
}

#[tokio::test]
async fn a_restarted_coordinator_receives_the_work_in_progress() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let address = server.address.clone();
    let device = FakeDevice::new(false);
    let running = begin(&address, &device, &CancellationToken::new(), LONG);
    fake.until(|state| state.heartbeats.iter().any(|beat| !beat.lease_ids.is_empty())).await;

    drop(server);
    device.at_work.send_replace(true);
    fake.change(|state| state.answers.extend([lease(1), over()]));
    let _server = fake.serve(&address).await;
    assert_eq!(ended(running).await.unwrap(), Ending::RunOver("all steps are done".into()));
    let state = fake.state();
    assert_eq!(state.registered.len(), 2);
    assert_eq!(state.registered[0], state.registered[1], "it is the same worker");
    let mut submitted = steps(&state.submitted);
    submitted.sort_unstable();
    assert_eq!(submitted, [0, 1]);
}

#[tokio::test]
async fn a_coordinator_of_another_run_ends_the_session() {
    let fake = FakeCoordinator::new();
    let server = fake.serve("127.0.0.1:0").await;
    let address = server.address.clone();
    let running = begin(&address, &FakeDevice::new(true), &CancellationToken::new(), LONG);
    fake.until(|state| !state.heartbeats.is_empty()).await;
    drop(server);
    fake.change(|state| state.run_id = Uuid::from_u128(78));
    let _server = fake.serve(&address).await;
    assert!(matches!(ended(running).await, Err(Error::OtherRun { .. })));
}

#[tokio::test]
async fn a_worker_of_another_run_is_refused() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.run_hash = "f00d".into());
    let server = fake.serve("127.0.0.1:0").await;
    let running = begin(&server.address, &FakeDevice::new(true), &CancellationToken::new(), LONG);
    let error = ended(running).await.unwrap_err().to_string();
    assert!(error.contains("refused to register this worker: this worker is of another run"), "{error}");
    assert!(fake.state().left.is_empty(), "an unregistered worker sends no Leave");
}

#[tokio::test]
async fn a_shutdown_submits_the_current_lease() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let (device, stop) = (FakeDevice::new(false), CancellationToken::new());
    let running = begin(&server.address, &device, &stop, LONG);
    let held = vec![training(0, &[]).lease_id];
    fake.until(|state| state.heartbeats.iter().any(|beat| beat.lease_ids == held)).await;
    stop.cancel();
    device.at_work.send_replace(true);
    assert_eq!(ended(running).await.unwrap(), Ending::ShutDown);
    let state = fake.state();
    assert_eq!((steps(&state.submitted), state.left.len()), (vec![0], 1));
}

#[tokio::test]
async fn a_shutdown_without_time_returns_the_lease() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let (device, stop) = (FakeDevice::new(false), CancellationToken::new());
    let running = begin(&server.address, &device, &stop, Duration::from_millis(30));
    let held = vec![training(0, &[]).lease_id];
    fake.until(|state| state.heartbeats.iter().any(|beat| beat.lease_ids == held)).await;
    stop.cancel();
    assert_eq!(ended(running).await.unwrap(), Ending::ShutDown);
    let state = fake.state();
    assert_eq!((steps(&state.submitted), state.left.len()), (vec![], 1));
}

#[tokio::test]
async fn a_shutdown_without_a_lease_is_immediate() {
    let fake = FakeCoordinator::new();
    let server = fake.serve("127.0.0.1:0").await;
    let stop = CancellationToken::new();
    let running = begin(&server.address, &FakeDevice::new(true), &stop, LONG);
    fake.until(|state| !state.heartbeats.is_empty()).await;
    stop.cancel();
    assert_eq!(ended(running).await.unwrap(), Ending::ShutDown);
    assert_eq!(fake.state().left.len(), 1);
}

#[tokio::test]
async fn a_lost_lease_is_replaced_by_the_next() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let device = FakeDevice::new(false);
    let running = begin(&server.address, &device, &CancellationToken::new(), LONG);
    let held = vec![training(0, &[]).lease_id];
    fake.until(|state| state.heartbeats.iter().any(|beat| beat.lease_ids == held)).await;
    fake.change(|state| state.lost = held);
    fake.until(|state| state.heartbeats.last().is_some_and(|beat| beat.lease_ids.is_empty())).await;
    device.at_work.send_replace(true);
    fake.change(|state| state.answers.extend([lease(1), over()]));
    ended(running).await.unwrap();
    assert_eq!(steps(&fake.state().submitted), [1]);
}

#[tokio::test]
async fn a_broken_device_ends_the_session_and_returns_the_lease() {
    let fake = FakeCoordinator::new();
    fake.change(|state| state.answers.push_back(lease(0)));
    let server = fake.serve("127.0.0.1:0").await;
    let device = FakeDevice::new(false);
    let running = begin(&server.address, &device, &CancellationToken::new(), LONG);
    fake.until(|state| state.answers.is_empty()).await;
    device.broken.send_replace(true);
    assert!(matches!(ended(running).await, Err(Error::Device(Broken))));
    assert_eq!(fake.state().left.len(), 1);
}
