//! Progress of a transfer, from which its deadlines count.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Marks of the progress of one transfer. A transfer has no deadline as a whole; it fails if it stalls.
#[derive(Debug)]
pub struct Progress {
    /// Time of the last byte in either direction.
    moved: watch::Sender<Instant>,
    /// Time of the last byte that will not be sent again.
    gained: watch::Sender<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        let now = Instant::now();
        Self { moved: watch::Sender::new(now), gained: watch::Sender::new(now) }
    }
}

impl Progress {
    /// Records that bytes were sent, which may be lost with the connection.
    pub fn moved(&self) {
        self.moved.send_replace(Instant::now());
    }

    /// Records that the receiver has more bytes than ever before.
    pub fn gained(&self) {
        self.moved();
        self.gained.send_replace(Instant::now());
    }

    /// Returns the time at which the receiver last had more bytes than before.
    pub(crate) fn last_gain(&self) -> Instant {
        *self.gained.borrow()
    }

    /// Returns the time at which a byte last moved.
    pub(crate) fn last_move(&self) -> Instant {
        *self.moved.borrow()
    }

    /// Waits until nothing has moved for `limit`.
    pub(crate) async fn stalled(&self, limit: Duration) {
        let mut moved = self.moved.subscribe();
        while tokio::time::timeout(limit, moved.changed()).await.is_ok() {}
    }
}
