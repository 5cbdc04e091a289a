//! The clock that the deadlines of leases and workers are measured by.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::machine::Millis;

/// Milliseconds since the process started. Clones share it.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Millis + Send + Sync>);

impl Clock {
    /// The clock of the system that only goes forward; it starts now.
    pub fn monotonic() -> Self {
        let started = Instant::now();
        Self(Arc::new(move || Millis(started.elapsed().as_millis() as u64)))
    }

    /// A clock that shows what `read` returns.
    #[cfg(test)]
    pub(super) fn manual(read: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The time.
    pub(super) fn now(&self) -> Millis {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}
