//! Policy versions whose folders are removed from a running coordinator.

use std::fs;

use crate::fakes::{Learner, call, work, work_off};
use crate::fixture::Fixture;
use podium_coordinator::run::ExitReason;
use podium_proto::v1;
use podium_proto::v1::batch_part::Part;
use serde_json::Value;
use tokio::sync::watch;

fn asks_for(parts: &[Part], version: u64) -> bool {
    matches!(parts, [Part::Republish(v1::Republish { policy_version, .. })] if *policy_version == version)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_version_is_requested_and_an_irreproducible_one_is_not_evaluated() {
    let fixture = Fixture::new(&["evaluation.every_steps=1"]);
    let (running, _stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    learner.join(0).await;
    for step in 0..2 {
        // The leases of a step come before those of evaluations.
        work_off(&fixture.file, &coordinator, 3).await;
        assert!(matches!(learner.batch(step).await[0], Part::Header(_)));
        let (version, weights) = (step + 1, format!("made by step {step}"));
        learner.publish(version, &weights).await.unwrap();
        learner.commit(step).await.unwrap();
        let folder = fixture.path("out").join(format!("policy/{version}"));
        fs::remove_dir_all(&folder).unwrap();
        assert!(asks_for(&learner.batch(version).await, version), "there is nothing else to do");
        let status = call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
        let named = format!("policy version {version} is not on disk");
        assert!(status.warnings.iter().any(|warning| warning.contains(&named)), "{:?}", status.warnings);
        assert!(!learner.publish(version, &weights).await.unwrap());
        assert!(folder.join("model.safetensors").is_file());
    }
    // Version 1 awaits its evaluation, and the learner reports that it cannot produce the version again.
    fs::remove_dir_all(fixture.path("out").join("policy/1")).unwrap();
    assert!(asks_for(&learner.batch(2).await, 1));
    let worker = tokio::spawn(work(fixture.file.clone(), coordinator.clone(), 1));
    assert!(matches!(learner.batch_without(2, &[1]).await[0], Part::Header(_)));
    learner.train(2, watch::channel(0).0).await;
    worker.await.unwrap();
    assert_eq!(running.finished().await.unwrap(), ExitReason::Complete);
    let rows = fixture.rows("out", "evaluations.jsonl");
    let evaluated: Vec<_> = rows.iter().map(|row| row["policy_version"].as_u64().unwrap()).collect();
    assert_eq!(evaluated, [0, 2, 3]);
    let finished: Value =
        serde_json::from_slice(&fs::read(fixture.path("out").join("finished.json")).unwrap()).unwrap();
    assert!(finished["not_evaluated"]["1"].as_str().unwrap().contains("not on disk"));
}
