//! Groups that a rank cannot train on are set aside with their cause and sampled again.

use crate::fakes::{Learner, call, registration, submission};
use crate::fixture::Fixture;
use podium_coordinator::run::ExitReason;
use podium_grpo::Step;
use podium_proto::v1;
use podium_proto::v1::batch_part::Part;
use podium_proto::v1::lease_response::Answer;
use podium_transfer::Coordinator;
use podium_transfer::connection::Error;
use uuid::Uuid;

/// Registers a worker, submits all open leases, disconnects the worker, and returns its id.
async fn fill(fixture: &Fixture, coordinator: &Coordinator) -> Uuid {
    let worker = Uuid::new_v4();
    call!(coordinator, rollout.register, registration(&fixture.file, worker)).await.unwrap();
    let want = v1::LeaseRequest { worker_id: worker.to_string(), wait_ms: 0 };
    while let Some(Answer::Lease(lease)) = call!(coordinator, rollout.lease, want).await.unwrap().answer {
        let submission = submission(worker, lease);
        call!(coordinator, rollout.submit, submission).await.unwrap();
    }
    let leave = v1::LeaveRequest { worker_id: worker.to_string() };
    call!(coordinator, rollout.leave, leave).await.unwrap();
    worker
}

async fn set_aside(
    learner: &Learner,
    report: Uuid,
    step: u64,
    groups: &[(u32, &str)],
) -> Result<v1::SetAsideResponse, Error> {
    let group =
        |&(index, cause): &(u32, &str)| v1::UnusableGroup { index, attempt: 0, cause: cause.to_owned() };
    let request = v1::SetAsideRequest {
        learner_id: learner.id.to_string(),
        report_id: report.to_string(),
        step,
        groups: groups.iter().map(group).collect(),
    };
    let coordinator = &learner.coordinator;
    call!(coordinator, learner.set_aside, request).await
}

async fn status(coordinator: &Coordinator) -> v1::RunStatus {
    call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap()
}

#[tokio::test]
async fn a_group_that_is_set_aside_is_sampled_again_also_after_a_restart() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let first = fill(&fixture, &coordinator).await;
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    let stranger = Learner::new(fixture.file.clone(), coordinator.clone());
    learner.join(0).await;
    let batch = learner.batch(0).await;
    let unknown = set_aside(&stranger, Uuid::new_v4(), 0, &[(1, "mine")]).await.unwrap_err();
    assert!(unknown.to_string().contains("is no rank of this run"), "{unknown}");

    let report = Uuid::new_v4();
    let groups = [(1, "its gradient is infinite"), (4, "token id 77"), (77, "no such group")];
    set_aside(&learner, report, 0, &groups).await.unwrap();
    let told = status(&coordinator).await;
    assert_eq!((told.groups_ready, told.groups_wanted), (3, 5));
    for cause in ["group 0.1 was set aside: its gradient is infinite", "group 0.4 was set aside: token id 77"]
    {
        let named = |line: &&String| line.contains(&first.to_string()) && line.ends_with(cause);
        assert_eq!(told.warnings.iter().filter(named).count(), 1, "{cause} in {:?}", told.warnings);
    }
    stop.cancel();
    assert_eq!(running.finished().await.unwrap(), ExitReason::Stopped);

    let (running, _stop) = fixture.start("out").await;
    assert_eq!(status(&coordinator).await.groups_ready, 3, "the slots are open after a restart");
    fill(&fixture, &coordinator).await;
    set_aside(&learner, report, 0, &groups).await.unwrap();
    assert_eq!(status(&coordinator).await.groups_ready, 5, "a report that is repeated changes nothing");
    assert_eq!(learner.batch(0).await, batch, "the groups are what they would have been");
    learner.publish(1, "one").await.unwrap();
    learner.commit(0).await.unwrap();
    let late = set_aside(&learner, Uuid::new_v4(), 0, &groups).await.unwrap_err().to_string();
    assert!(late.contains("groups of step 0 cannot be sampled again"), "{late}");
    drop(running);
}

#[tokio::test]
async fn a_slot_that_is_set_aside_again_and_again_ends_the_run_with_workers_and_causes() {
    let fixture = Fixture::new(&[]);
    let (running, _stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    learner.join(0).await;
    let mut workers = Vec::new();
    for round in 1..=6 {
        workers.push(fill(&fixture, &coordinator).await);
        learner.batch(0).await;
        let cause = format!("cause {round}");
        let answer = set_aside(&learner, Uuid::new_v4(), 0, &[(2, &cause)]).await;
        if round < 6 {
            answer.unwrap();
            continue;
        }
        let message = answer.unwrap_err().to_string();
        assert!(message.contains("group 0.2 was set aside 6 times"), "{message}");
        for (number, worker) in (1..).zip(&workers) {
            let part = format!("by worker {worker}: cause {number}");
            assert!(message.contains(&part), "{part} is not in {message}");
        }
    }
    let Part::RunOver(over) = learner.batch(0).await.remove(0) else { panic!("the run continues") };
    assert!(over.reason.contains("group 0.2 was set aside 6 times"), "{}", over.reason);
    assert!(matches!(running.finished().await.unwrap(), ExitReason::Drained { .. }));

    // With correct workers, the same command continues the run.
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    assert_eq!(status(&coordinator).await.groups_ready, 4);
    fill(&fixture, &coordinator).await;
    assert_eq!(status(&coordinator).await.groups_ready, 5);
    stop.cancel();
    running.finished().await.unwrap();
    let store = podium_coordinator::store::Store::open(&fixture.path("out"), &fixture.file.hash()).unwrap();
    let causes: Vec<String> = store.aside(Step(0)).unwrap().into_iter().map(|aside| aside.cause).collect();
    assert_eq!(causes, ["cause 1", "cause 2", "cause 3", "cause 4", "cause 5", "cause 6"]);
}
