//! The list of processes to scrape.

use std::time::Duration;

use podium_proto::v1;
use serde_json::Value;
use uuid::Uuid;

use crate::fakes::{Learner, call, registration};
use crate::fixture::Fixture;

/// Returns the listed processes and their addresses.
fn listed(fixture: &Fixture) -> Vec<(String, String)> {
    let groups: Vec<Value> =
        serde_json::from_str(&fixture.discovery.render("10.0.0.1".parse().unwrap())).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    groups.iter().map(|group| (text(&group["labels"]["process"]), text(&group["targets"][0]))).collect()
}

#[tokio::test]
async fn connected_processes_are_listed_and_disconnected_ones_are_not() {
    let fixture = Fixture::new(&["network.lease_deadline_ms=400"]);
    let (running, stop) = fixture.start("run").await;
    let coordinator = fixture.connect(running.address());
    let register = |worker: Uuid, metrics_address: &str| v1::RegisterRequest {
        capabilities: Some(v1::Capabilities {
            metrics_address: metrics_address.into(),
            ..v1::Capabilities::default()
        }),
        ..registration(&fixture.file, worker)
    };
    let names = [0x1111_1111_u128, 0x2222_2222, 0x3333_3333, 0x4444_4444];
    let names = names.map(|name| Uuid::from_u128(name << 96));
    for (worker, address) in names.into_iter().zip(["0.0.0.0:1111", "gpu-7:9", "", "169.254.169.254:80"]) {
        call!(coordinator, rollout.register, register(worker, address)).await.unwrap();
    }
    Learner::new(fixture.file.clone(), coordinator.clone()).join_scraped_at("127.0.0.1:4").await;
    let entry = |process: &str, address: &str| (process.to_owned(), address.to_owned());
    let expected = [
        entry("worker-11111111", "10.0.0.1:1111"),
        entry("worker-22222222", "10.0.0.1:9"),
        entry("learner-0", "127.0.0.1:4"),
    ];
    assert_eq!(
        listed(&fixture),
        expected,
        "neither a process without an endpoint nor the address of another host is listed"
    );

    call!(coordinator, rollout.leave, v1::LeaveRequest { worker_id: names[0].to_string() }).await.unwrap();
    assert_eq!(listed(&fixture), expected[1..]);
    // The other worker becomes silent.
    while listed(&fixture).len() > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(listed(&fixture), expected[2..]);
    stop.cancel();
    running.finished().await.unwrap();
    let (again, stop) = fixture.start("run").await;
    assert_eq!(listed(&fixture), expected[2..], "a restart knows the ranks, which need not join again");
    stop.cancel();
    again.finished().await.unwrap();
}
