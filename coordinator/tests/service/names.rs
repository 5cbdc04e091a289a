//! Texts of peers are limited in length, and can neither forge lines nor control a terminal.

use podium_proto::v1;
use podium_transfer::connection::Error;
use tonic::Code;
use uuid::Uuid;

use crate::fakes::{Learner, call, registration};
use crate::fixture::Fixture;

/// Clears a terminal and adds a line.
const HOSTILE: &str = "rack7\n2026-11-30T00:00:00Z ERROR all is lost\u{1b}[2J\u{202e}";

fn is_plain(text: &str) -> bool {
    !text.contains(|character: char| character.is_control() || character == '\u{202e}')
}

#[tokio::test]
async fn names_and_reasons_are_shown_escaped_and_cut() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    for host in [HOSTILE.to_owned(), "x".repeat(20_000)] {
        let worker = Uuid::new_v4();
        let capabilities = v1::Capabilities { device: host.clone(), host, ..v1::Capabilities::default() };
        let register =
            v1::RegisterRequest { capabilities: Some(capabilities), ..registration(&fixture.file, worker) };
        call!(coordinator, rollout.register, register).await.unwrap();
    }
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    learner.join(0).await;
    let fail = v1::FailRequest { learner_id: learner.id.to_string(), failure: 0, reason: HOSTILE.into() };
    call!(coordinator, learner.fail, fail).await.unwrap();
    let drain = v1::DrainRequest { reason: HOSTILE.into() };
    call!(coordinator, status.drain, drain).await.unwrap();

    let status = call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
    assert!(
        status.ending.contains("rack7\\n2026") && status.ending.contains("\\u{1b}[2J"),
        "{}",
        status.ending
    );
    let of_workers = status.workers.iter().flat_map(|worker| [&worker.host, &worker.device]);
    let shown: Vec<_> = of_workers.chain(&status.warnings).chain([&status.ending]).collect();
    assert!(shown.len() >= 5 && shown.iter().any(|text| text.contains("rack7\\n2026")), "{shown:?}");
    for text in shown {
        assert!(is_plain(text) && text.len() <= 1_000, "{text:?}");
    }
    assert!(status.workers.iter().all(|worker| worker.host.len() <= 256));
    stop.cancel();
    running.finished().await.unwrap();
}

#[tokio::test]
async fn a_refusal_quotes_a_request_escaped() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let refused = |result: Result<(), Error>| match result.unwrap_err() {
        Error::Refused { status, .. } => (status.code(), status.message().to_owned()),
        other => panic!("{other}"),
    };
    let leave = v1::LeaveRequest { worker_id: HOSTILE.into() };
    let (code, message) = refused(call!(coordinator, rollout.leave, leave).await.map(drop));
    assert!(code == Code::InvalidArgument && message.contains("rack7") && is_plain(&message), "{message:?}");
    let stranger =
        v1::RegisterRequest { run_hash: HOSTILE.into(), ..registration(&fixture.file, Uuid::new_v4()) };
    let (code, message) = refused(call!(coordinator, rollout.register, stranger).await.map(drop));
    assert!(
        code == Code::FailedPrecondition && message.contains("rack7") && is_plain(&message),
        "{message:?}"
    );

    let learner = Uuid::new_v4().to_string();
    let join = |address: &str| v1::JoinRequest {
        learner_id: learner.clone(),
        run_hash: fixture.file.hash(),
        protocol: podium_proto::PROTOCOL_VERSION,
        world_size: 1,
        collective_address: address.to_owned(),
        ..v1::JoinRequest::default()
    };
    for address in [HOSTILE, "rack7", "rack7:0", "a b:1", &format!("{}:1", "x".repeat(300))] {
        let (code, message) = refused(call!(coordinator, learner.join, join(address)).await.map(drop));
        assert_eq!(code, Code::InvalidArgument);
        assert!(message.contains("collective_address") && message.contains("host:port"), "{message}");
    }
    call!(coordinator, learner.join, join("[fd00::1]:4200")).await.unwrap();
    for name in [HOSTILE, &"x".repeat(300)] {
        let commit = v1::CommitStepRequest {
            learner_id: learner.clone(),
            metrics: [(name.to_owned(), 1.0)].into(),
            ..v1::CommitStepRequest::default()
        };
        let (code, message) = refused(call!(coordinator, learner.commit_step, commit).await.map(drop));
        assert!(
            code == Code::InvalidArgument && message.contains("metrics") && is_plain(&message),
            "{message:?}"
        );
    }
    stop.cancel();
    running.finished().await.unwrap();
}
