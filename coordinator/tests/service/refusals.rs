//! A request that does not belong to the run receives one clear error, and the run continues.

use crate::fakes::{call, registration, submission};
use crate::fixture::Fixture;
use podium_coordinator::run;
use podium_proto::v1;
use podium_proto::v1::lease_response::Answer;
use podium_transfer::connection::Error;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use uuid::Uuid;

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> (Code, String) {
    match result.unwrap_err() {
        Error::Refused { status, .. } => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused_by_name() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let worker = Uuid::new_v4();

    let stranger = v1::RegisterRequest { run_hash: "beef".into(), ..registration(&fixture.file, worker) };
    let (code, message) = refusal(call!(coordinator, rollout.register, stranger).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(message.contains("beef") && message.contains(&fixture.file.hash()), "{message}");

    let want = v1::LeaseRequest { worker_id: worker.to_string(), wait_ms: 0 };
    let (code, message) = refusal(call!(coordinator, rollout.lease, want).await);
    assert!(code == Code::NotFound && message.contains("register"), "{message}");
    let beat = v1::HeartbeatRequest { worker_id: worker.to_string(), lease_ids: vec![], activities: vec![] };
    assert!(!call!(coordinator, rollout.heartbeat, beat).await.unwrap().known);

    call!(coordinator, rollout.register, registration(&fixture.file, worker)).await.unwrap();
    let lease = || async {
        match call!(coordinator, rollout.lease, want).await.unwrap().answer {
            Some(Answer::Lease(lease)) => lease,
            other => panic!("{other:?} instead of a lease"),
        }
    };
    let lease = lease().await;
    assert_eq!((lease.policy_version, lease.tasks.len()), (0, 2));
    let good = submission(worker, lease);

    let mut nonsense = good.clone();
    nonsense.worker_id = "me".into();
    let (code, message) = refusal(call!(coordinator, rollout.submit, nonsense).await);
    assert!(code == Code::InvalidArgument && message.contains("SubmitRequest.worker_id"), "{message}");
    let mut few = good.clone();
    few.results[0].completions.pop();
    let (code, message) = refusal(call!(coordinator, rollout.submit, few).await);
    assert!(code == Code::InvalidArgument && message.contains("expected 2"), "{message}");
    let mut long = good.clone();
    let endless = &mut long.results[0].completions[0];
    endless.token_ids = vec![1; 9];
    endless.logprobs = vec![-1.0; 9];
    endless.text_ends = vec![endless.text.len() as u32; 9];
    let (_, message) = refusal(call!(coordinator, rollout.submit, long).await);
    assert!(message.contains("at most 8"), "{message}");
    let mut far = good.clone();
    far.results[0].purpose =
        Some(v1::task_result::Purpose::Training(v1::TrainingSlot { step: u64::MAX, index: 1, attempt: 0 }));
    let answer = call!(coordinator, rollout.submit, far).await.unwrap();
    assert_eq!((answer.refused, answer.accepted), (1, 1));
    let mut early = good.clone();
    early.results[0].purpose =
        Some(v1::task_result::Purpose::Training(v1::TrainingSlot { step: 0, index: 0, attempt: u32::MAX }));
    let answer = call!(coordinator, rollout.submit, early).await.unwrap();
    assert_eq!((answer.refused, answer.repeated_results), (1, 1), "an attempt that never was");
    let mut large = good.clone();
    large.results[0].completions[0].text = "x".repeat(60_000);
    large.results[1].completions[0].text = "x".repeat(60_000);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address())).unwrap();
    let channel = fixture.credentials().authenticate(endpoint.connect().await.unwrap());
    let mut unlimited = v1::rollout_client::RolloutClient::new(channel);
    let status = unlimited.submit(large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");

    let answer = call!(coordinator, rollout.submit, good).await.unwrap();
    assert_eq!((answer.accepted, answer.repeated_results), (1, 1));
    let superseded = v1::SubmitRequest { policy_content: vec![7; 32], ..good.clone() };
    assert_eq!(call!(coordinator, rollout.submit, superseded).await.unwrap().refused, 2);
    let unstamped = v1::SubmitRequest { policy_content: vec![], ..good.clone() };
    let (code, message) = refusal(call!(coordinator, rollout.submit, unstamped).await);
    assert!(code == Code::InvalidArgument && message.contains("SubmitRequest.policy_content"), "{message}");
    let old = v1::SubmitRequest { policy_version: 7, ..good };
    assert_eq!(call!(coordinator, rollout.submit, old).await.unwrap().refused, 2);

    let status = call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
    assert_eq!((status.groups_ready, status.groups_wanted, status.workers.len()), (2, 5, 1));
    stop.cancel();
    running.finished().await.unwrap();
}

/// A change that makes a submission unusable, and the texts that the error must contain.
type Fault = (fn(&mut v1::TaskResult), &'static [&'static str]);

const FAULTS: [Fault; 11] = [
    (
        |result| result.completions[1].token_ids[2] = 100_000,
        &["completion 1", "token id 100000", "below 100000"],
    ),
    (|result| result.prompt_ids[2] = 9, &["prompt of 3 token ids", "position 2", "the same ids"]),
    (|result| result.prompt_ids = vec![1; 40], &["44 tokens in prompt and completion", "at most 10"]),
    (|result| result.prompt_ids.push(4), &["prompt of 4 token ids", "position 3", "3 ids"]),
    (|result| result.completions[0].logprobs[1] = f32::NAN, &["logprobs is NaN", "finite"]),
    (|result| result.completions[0].logprobs[1] = f32::NEG_INFINITY, &["logprobs is -inf", "finite"]),
    (|result| result.completions[0].logprobs[1] = 0.5, &["logprobs is 0.5", "at most 0"]),
    (|result| result.completions[0].logprobs[1] = -3e38, &["-3e38 at position 1", "at least -104"]),
    (|result| result.completions[0].text_ends[0] = 1_000_000, &["text_ends", "ascending"]),
    (
        |result| result.completions[0].allowed = vec![v1::Allowed { position: 2, token_ids: vec![7] }],
        &["completion 0", "restricted", "rollout.constrain_answers"],
    ),
    (|result| result.completions[0].choice_logprobs = vec![-1.0], &["scores of 1 candidates", "expected 0"]),
];

#[tokio::test]
async fn results_that_cannot_be_used_are_refused_by_name_and_sampled_again() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let register = || async {
        let worker = Uuid::new_v4();
        let capabilities = v1::Capabilities { host: "rack7".into(), ..v1::Capabilities::default() };
        let register =
            v1::RegisterRequest { capabilities: Some(capabilities), ..registration(&fixture.file, worker) };
        call!(coordinator, rollout.register, register).await.unwrap();
        worker
    };
    let lease = |worker: Uuid| {
        let want = v1::LeaseRequest { worker_id: worker.to_string(), wait_ms: 0 };
        let coordinator = coordinator.clone();
        async move { call!(coordinator, rollout.lease, want).await }
    };
    let granted = |answer: Result<v1::LeaseResponse, Error>| match answer.unwrap().answer {
        Some(Answer::Lease(lease)) => lease,
        other => panic!("{other:?} instead of a lease"),
    };
    let mut worker = register().await;
    for (number, (change, expected)) in FAULTS.into_iter().enumerate() {
        if number > 0 && number % 3 == 0 {
            let (code, message) = refusal(lease(worker).await);
            assert_eq!(code, Code::FailedPrecondition);
            assert!(message.contains(&worker.to_string()) && message.contains("3 times"), "{message}");
            worker = register().await;
        }
        let lease = granted(lease(worker).await);
        let slots: Vec<_> = lease.tasks.iter().map(|task| task.purpose).collect();
        assert_eq!(slots.len(), 2, "the first block is free again");
        let slot = match slots[1] {
            Some(v1::task::Purpose::Training(slot)) => format!("group {}.{}", slot.step, slot.index),
            other => panic!("{other:?} instead of a training slot"),
        };
        assert_eq!(slot, "group 0.1");
        let mut bad = submission(worker, lease);
        change(&mut bad.results[1]);
        let (code, message) = refusal(call!(coordinator, rollout.submit, bad).await);
        assert_eq!(code, Code::InvalidArgument);
        let offence = format!("offence {} of 3", number % 3 + 1);
        let named = [&worker.to_string(), "on rack7", &slot, &offence];
        for part in named.iter().chain(expected) {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
        let status = call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
        assert!(status.warnings.contains(&message), "{message} is not in {:?}", status.warnings);
        assert_eq!(status.groups_ready, 0, "nothing of it is stored");
    }
    // The whole submission was refused; the next worker receives the lease.
    let worker = register().await;
    let good = submission(worker, granted(lease(worker).await));
    assert_eq!(call!(coordinator, rollout.submit, good).await.unwrap().accepted, 2);
    stop.cancel();
    running.finished().await.unwrap();
}

#[tokio::test]
async fn an_address_or_a_folder_that_is_taken_is_named_with_the_remedy() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let mut options = fixture.options("second");
    options.listen = Some(running.address().to_string());
    let error = run::start(options, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(&running.address().to_string()) && error.contains("--listen"), "{error}");
    let mut options = fixture.options("out");
    options.listen = Some("127.0.0.1:0".into());
    std::fs::remove_file(fixture.path("out").join(podium_transfer::announcement::FILE)).unwrap();
    let error = run::start(options, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("in use by another coordinator"), "{error}");
    stop.cancel();
    running.finished().await.unwrap();

    let mut options = fixture.options("out");
    options.file.run.seed += 1;
    let error = run::start(options, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains(&fixture.file.hash()) && error.contains("--out"), "{error}");
    let mut options = fixture.options("third");
    options.file.model.path = None;
    let error = run::start(options, CancellationToken::new()).await.unwrap_err().to_string();
    assert!(error.contains("model.path"), "{error}");
}

#[tokio::test]
async fn health_and_the_status_stream_answer() {
    let fixture = Fixture::new(&["run.steps=0", "evaluation.users=1"]);
    let (running, _stop) = fixture.start("out").await;
    let url = format!("http://{}", running.address());
    let channel = tonic::transport::Endpoint::from_shared(url).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let service = "podium.v1.Rollout".to_owned();
    let answer = health.check(tonic_health::pb::HealthCheckRequest { service }).await.unwrap();
    assert_eq!(answer.into_inner().status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    let coordinator = fixture.connect(running.address());
    let mut stream =
        coordinator.status().watch(v1::WatchRequest { interval_ms: 1 }).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!((first.phase(), first.evaluation_wanted), (v1::RunPhase::Evaluating, 1));
    // A run without steps evaluates its initial policy and does not wait for ranks.
    crate::fakes::work(fixture.file.clone(), coordinator, 1).await;
    let mut last = first;
    while let Ok(Some(status)) = stream.message().await {
        last = status;
    }
    assert_eq!(last.phase(), v1::RunPhase::Finished);
    assert_eq!(running.finished().await.unwrap(), run::ExitReason::Complete);
    assert_eq!(fixture.rows("out", "evaluations.jsonl").len(), 1);
}
