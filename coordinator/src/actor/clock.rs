//! The clock for the deadlines of leases and workers.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::machine::Millis;

/// Milliseconds since the process started. All clones read the same clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// Returns the system's monotonic clock, starting now.
    pub fn monotonic() -> Self {
        let started = Instant::now();
        Self(Arc::new(move || Millis(started.elapsed().as_millis() as u64)))
    }

    /// Returns a clock that returns the value of `read`.
    #[cfg(test)]
    pub(super) fn manual(read: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Returns the time.
    pub(super) fn now(&self) -> Millis {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
