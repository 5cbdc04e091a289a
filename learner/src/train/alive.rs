//! Reports to the coordinator that this process is alive, also during computations.

use std::time::Duration;

use podium_proto::v1;
use podium_transfer::Coordinator;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

/// Reports periodically. Never returns; a lost report is not repeated, and only calls that need an answer wait for an
/// absent coordinator.
pub(super) async fn report(coordinator: Coordinator, learner: Uuid, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut client = coordinator.learner();
        let report = client.alive(v1::AliveRequest { learner_id: learner.to_string() });
        // The answer has no content.
        let _ = timeout(every, report).await;
    }
}
