//! Whole runs over the real service: results do not depend on workers, restarts or repetition.

use crate::fakes::{Batches, Learner, call, work};
use crate::fixture::Fixture;
use podium_coordinator::run::ExitReason;
use podium_proto::v1;
use podium_proto::v1::batch_part::Part;
use podium_transfer::connection::Kind;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Performs an undisturbed run, and returns the batches of its learner.
async fn plain(fixture: &Fixture, out: &str, workers: u32) -> Batches {
    let (running, _stop) = fixture.start(out).await;
    let coordinator = fixture.connect(running.address());
    let workers: Vec<_> =
        (1..=workers).map(|n| tokio::spawn(work(fixture.file.clone(), coordinator.clone(), n))).collect();
    let batches = Learner::new(fixture.file.clone(), coordinator).train(0, watch::channel(0).0).await;
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(running.finished().await.unwrap(), ExitReason::Complete);
    batches
}

fn without_times(mut rows: Vec<Value>) -> Vec<Value> {
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|name, _| name != "step_time" && !name.starts_with("time/"));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_in_the_middle_changes_nothing() {
    restart_in_the_middle(&[], 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_does_it_with_dynamic_sampling() {
    restart_in_the_middle(&["rollout.refill_attempts=2"], 2).await;
}

/// Compares a restarted run with an undisturbed one. In both, `most` is the last attempt of any group.
async fn restart_in_the_middle(overrides: &[&str], most: u32) {
    let fixture = Fixture::new(overrides);
    let expected = plain(&fixture, "plain", 1).await;
    let attempts = || expected.values().flat_map(|(groups, _)| groups).map(|group| group.attempt);
    assert_eq!(attempts().max(), Some(most));

    let (running, stop) = fixture.start("restarted").await;
    let address = running.address();
    let coordinator = fixture.connect(address);
    let workers = [1, 2].map(|times| tokio::spawn(work(fixture.file.clone(), coordinator.clone(), times)));
    let (progress, mut reached) = watch::channel(0);
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    let training = tokio::spawn(async move { learner.train(0, progress).await });
    reached.wait_for(|step| *step >= 1).await.unwrap();
    stop.cancel();
    assert_eq!(running.finished().await.unwrap(), ExitReason::Stopped);
    let (running, _stop) = fixture.start("restarted").await;
    assert_eq!(running.address(), address, "the restarted coordinator has the same address");
    assert_eq!(training.await.unwrap(), expected);
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(running.finished().await.unwrap(), ExitReason::Complete);

    for report in ["metrics.jsonl", "evaluations.jsonl"] {
        let rows = |out| without_times(fixture.rows(out, report));
        assert_eq!(rows("restarted"), rows("plain"), "{report}");
    }
    let discarded: Option<u64> =
        fixture.rows("plain", "metrics.jsonl").iter().map(|row| row["groups/discarded"].as_u64()).sum();
    assert_eq!(Some(attempts().map(u64::from).sum()), discarded, "each replaced group is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_record_the_run() {
    let fixture = Fixture::new(&[]);
    let batches = plain(&fixture, "out", 3).await;
    assert_eq!(batches.len(), 3);
    for (step, (groups, rewards)) in &batches {
        assert_eq!(rewards.len(), 5);
        let ids: Vec<_> =
            groups.iter().map(|group| (group.step, group.index, group.policy_version)).collect();
        assert_eq!(ids, (0..5).map(|index| (*step, index, *step)).collect::<Vec<_>>());
    }
    let rows = fixture.rows("out", "metrics.jsonl");
    let steps: Vec<_> = rows.iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3]);
    assert_eq!(rows[2]["loss"], 2);
    assert_eq!(rows[2]["num_tokens"], 3 * 5 * 2 * (3 + 4));
    assert_eq!(rows[0]["completions/well_formed"], 1);
    assert!(rows[0]["rewards/form/mean"].is_number());
    assert_eq!(
        (&rows[0]["completions/form/empty"], &rows[0]["groups/frac_all_malformed"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (&rows[0]["ranking/copied_order"], &rows[0]["ranking/order_correlation"]),
        (&json!(0.5), &json!(1))
    );
    assert_eq!(
        rows[0]["ranking/first_position"], 1.5,
        "samples list from the first and the second candidate on"
    );

    let evaluations = fixture.rows("out", "evaluations.jsonl");
    let versions: Vec<_> = evaluations.iter().map(|row| row["policy_version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [0, 2, 3]);
    assert_eq!(evaluations[0]["users"], 3);
    assert_eq!(evaluations[0]["ranking/copied_order"], 1.0);
    assert_eq!(evaluations[0]["change_from_start"], Value::Null);
    assert_eq!(evaluations[2]["change_from_start"]["HR@1"], json!({"mean": 0.0, "low": 0.0, "high": 0.0}));

    let read = |name| -> Value {
        serde_json::from_slice(&std::fs::read(fixture.path("out").join(name)).unwrap()).unwrap()
    };
    let finished = read("finished.json");
    assert_eq!(finished["end"], evaluations[2]);
    assert_eq!((&finished["best_by"], &finished["ended_early"]), (&json!("NDCG@3"), &Value::Null));
    assert!((finished["random"]["HR@1"].as_f64().unwrap() - 0.1).abs() < 1e-9);
    assert!(read("baselines.json")["best_possible"]["HR@1"].as_f64().unwrap() > 0.1);
    let samples = fixture.rows("out", "samples.jsonl");
    assert_eq!(samples.iter().filter(|row| row["purpose"] == "evaluation").count(), 9);
    let first = &samples[0];
    assert_eq!(first["candidates"].as_array().unwrap().len(), 10);
    assert_eq!(first["completions"][0]["ranking"][0], first["candidates"][0]["id"]);
    for version in [0, 2, 3] {
        assert!(fixture.path("out").join(format!("policy/{version}/model.safetensors")).is_file());
    }

    // Starting a complete run again changes nothing.
    let (again, _stop) = fixture.start("out").await;
    assert_eq!(again.finished().await.unwrap(), ExitReason::Complete);
    assert_eq!(fixture.rows("out", "metrics.jsonl"), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_are_credited_if_the_run_file_enables_it() {
    for (changes, items) in [(&[][..], 0), (&["grpo.credit=rank"], 3)] {
        let fixture = Fixture::new(changes);
        for (groups, step_rewards) in plain(&fixture, "out", 1).await.into_values() {
            for (group, rewards) in groups.iter().zip(step_rewards) {
                assert_eq!(group.rewards, rewards.rewards, "every rank receives all rewards");
                for reward in &group.rewards {
                    let ranks = &reward.ranks;
                    let tokens: Vec<_> = ranks.iter().map(|rank| rank.first_token..rank.end_token).collect();
                    assert_eq!(tokens, [1..2, 2..3, 3..4][..items]);
                    // The first item's reward is the gain of the list: its NDCG, the third term.
                    assert!(ranks.first().is_none_or(|rank| rank.reward.total_cmp(&reward.terms[2]).is_eq()));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_without_a_new_best_ends_at_a_step_that_the_results_decide() {
    let fixture =
        Fixture::new(&["run.steps=9", "evaluation.every_steps=2", "watch.stop_after_evaluations=1"]);
    // The answers never change: version 2 is no better than version 0, so version 4 is the last.
    for (out, workers) in [("one", 1), ("three", 3)] {
        assert_eq!(plain(&fixture, out, workers).await.len(), 4);
        let steps: Vec<_> =
            fixture.rows(out, "metrics.jsonl").iter().map(|row| row["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [1, 2, 3, 4]);
        let evaluations = fixture.rows(out, "evaluations.jsonl");
        let versions: Vec<_> =
            evaluations.iter().map(|row| row["policy_version"].as_u64().unwrap()).collect();
        assert_eq!(versions, [0, 2, 4]);
        let finished: Value =
            serde_json::from_slice(&std::fs::read(fixture.path(out).join("finished.json")).unwrap()).unwrap();
        assert_eq!((&finished["steps"], &finished["best"]["policy_version"]), (&json!(4), &json!(0)));
        let reason = finished["ended_early"].as_str().unwrap();
        assert!(reason.contains("version 0 for 1 evaluations, as of version 2"), "{reason}");
    }
    let (again, _stop) = fixture.start("one").await;
    assert_eq!(again.finished().await.unwrap(), ExitReason::Complete, "nothing is left to do");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_learner_receives_the_same_groups_and_must_reproduce_its_versions() {
    let fixture = Fixture::new(&[]);
    let (running, _stop) = fixture.start("out").await;
    let coordinator = fixture.connect(running.address());
    let worker = tokio::spawn(work(fixture.file.clone(), coordinator.clone(), 1));
    let first = Learner::new(fixture.file.clone(), coordinator.clone());
    first.join(0).await;
    let batch = first.batch(0).await;
    assert!(first.commit(0).await.unwrap_err().to_string().contains("publish policy version 1 first"));
    assert!(!first.publish(1, "one").await.unwrap());

    // The learner dies before its commit; another process continues from step 0.
    let second = Learner::new(fixture.file.clone(), coordinator.clone());
    second.join(0).await;
    assert!(matches!(first.batch(0).await[0], Part::Rejoin(_)));
    assert_eq!(second.batch(0).await, batch);
    assert!(second.publish(1, "one").await.unwrap(), "the version was published");
    let replaced = first.publish(1, "one").await.unwrap_err();
    assert_eq!(replaced.kind(), Kind::NotFound, "another process is rank 0 now: {replaced}");
    assert!(!second.publish(1, "another").await.unwrap(), "it supersedes an uncommitted version");
    assert!(!second.publish(1, "one").await.unwrap());
    assert!(second.publish(2, "two").await.is_err(), "step 1 is not committed");
    second.join(1).await;
    assert!(matches!(second.batch(1).await[0], Part::Header(_)), "the lost commit is recovered");
    assert!(!second.commit(0).await.unwrap());
    let other = second.publish(1, "another").await.unwrap_err().to_string();
    assert!(other.contains("published before with other content"), "{other}");
    assert!(other.contains("podium drop-version --out RUN --version 1"), "{other}");
    assert!(second.commit(2).await.unwrap_err().to_string().contains("the run is at step 1"));

    let drain = podium_proto::v1::DrainRequest { reason: "enough".into() };
    crate::fakes::call!(coordinator, status.drain, drain).await.unwrap();
    worker.await.unwrap();
    assert!(matches!(second.batch(1).await[0], Part::RunOver(_)));
    let reason = "drained at the request of a client at 127.0.0.1: enough".to_owned();
    assert_eq!(running.finished().await.unwrap(), ExitReason::Drained { reason });
    let row = &fixture.rows("out", "metrics.jsonl")[0];
    assert_eq!((&row["step"], &row["loss"]), (&json!(1), &json!(0)), "the late report is in the row");
}

#[tokio::test]
async fn the_status_shows_why_a_rank_ended() {
    let fixture = Fixture::new(&[]);
    let (running, stop) = fixture.start("run").await;
    let coordinator = fixture.connect(running.address());
    let learner = Learner::new(fixture.file.clone(), coordinator.clone());
    learner.join(0).await;
    let fail = v1::FailRequest {
        learner_id: learner.id.to_string(),
        failure: v1::Failure::NotFinite.into(),
        reason: "the norm of the gradient is NaN".into(),
    };
    call!(coordinator, learner.fail, fail).await.unwrap();
    let status = call!(coordinator, status.get, v1::StatusRequest {}).await.unwrap();
    let told = "rank 0 ended: the norm of the gradient is NaN".to_owned();
    assert!(status.warnings.contains(&told), "{:?}", status.warnings);
    stop.cancel();
    running.finished().await.unwrap();
}
