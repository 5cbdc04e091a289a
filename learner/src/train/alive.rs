//! Reports to the coordinator that this process is alive, also while it computes.

use std::time::Duration;

use podium_proto::v1;
use podium_transfer::Coordinator;
use tokio::time::{MissedTickBehavior, interval, timeout};
use uuid::Uuid;

/// Reports again and again. Never returns; a report that does not arrive is not repeated, and a coordinator that is away
/// is waited for by those who need an answer.
pub(super) async fn report(coordinator: Coordinator, learner: Uuid, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut client = coordinator.learner();
        let report = client.alive(v1::AliveRequest { learner_id: learner.to_string() });
        // Nothing depends on the answer.
        let _ = timeout(every, report).await;
    }
}
