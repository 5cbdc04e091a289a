//! The thread that owns a device's tensors.
//!
//! State that holds tensors is created on this thread and never leaves it; jobs arrive through a bounded mailbox and
//! return plain data. A panic ends the thread: every call then fails, and [`DeviceThread::failed`] resolves so that
//! the process can exit.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// The reasons why a job has no result.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The thread has ended.
    #[error("device thread {thread} has failed: {reason}")]
    Failed {
        /// Name of the thread.
        thread: String,
        /// The message of its panic.
        reason: String,
    },
    /// The job did not finish within its deadline. It may still be running.
    #[error("device thread {thread} did not finish to {what} within {} ms", deadline.as_millis())]
    Deadline {
        /// Name of the thread.
        thread: String,
        /// Purpose of the job.
        what: &'static str,
        /// The deadline.
        deadline: Duration,
    },
}

/// The reasons why a thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError<E> {
    /// The operating system refused.
    #[error("cannot start device thread {thread}")]
    Spawn {
        /// Name of the thread.
        thread: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The state could not be built.
    #[error(transparent)]
    State(E),
    /// Building the state panicked.
    #[error(transparent)]
    Failed(Error),
}

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A handle to a thread that owns state of type `S`. The thread ends when the last handle is dropped.
#[derive(Debug)]
pub struct DeviceThread<S> {
    name: String,
    jobs: mpsc::Sender<Job<S>>,
    /// The message of the thread's panic.
    failure: watch::Receiver<Option<String>>,
}

impl<S> Clone for DeviceThread<S> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), jobs: self.jobs.clone(), failure: self.failure.clone() }
    }
}

impl<S: 'static> DeviceThread<S> {
    /// Starts a thread and creates its state there. `mailbox` jobs can queue; senders block when the queue is full.
    pub async fn start<E: Send + 'static>(
        name: &str,
        mailbox: usize,
        build: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> Result<Self, StartError<E>> {
        let (jobs, mut inbox) = mpsc::channel::<Job<S>>(mailbox.max(1));
        let (report_failure, failure) = watch::channel(None);
        let (report_built, built) = oneshot::channel();
        let run = move || {
            let outcome = catch_unwind(AssertUnwindSafe(move || {
                let mut state = match build() {
                    Ok(state) => state,
                    Err(error) => {
                        let _ = report_built.send(Err(error));
                        return;
                    }
                };
                if report_built.send(Ok(())).is_err() {
                    return;
                }
                while let Some(job) = inbox.blocking_recv() {
                    job(&mut state);
                }
            }));
            if let Err(panic) = outcome {
                report_failure.send_replace(Some(message(panic.as_ref())));
            }
        };
        let thread = name.to_owned();
        let spawned = std::thread::Builder::new().name(thread.clone()).spawn(run);
        spawned.map_err(|source| StartError::Spawn { thread, source })?;
        let handle = Self { name: name.to_owned(), jobs, failure };
        match built.await {
            Ok(Ok(())) => Ok(handle),
            Ok(Err(error)) => Err(StartError::State(error)),
            Err(_) => Err(StartError::Failed(handle.failed().await)),
        }
    }

    /// Runs a job on the thread and waits for its result. `what` names the job ("sample a lease") in errors.
    pub async fn call<R: Send + 'static>(
        &self,
        what: &'static str,
        deadline: Duration,
        job: impl FnOnce(&mut S) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let exchange = async {
            let (reply, result) = oneshot::channel();
            let job: Job<S> = Box::new(move |state| {
                // The caller may have stopped waiting.
                let _ = reply.send(job(state));
            });
            if self.jobs.send(job).await.is_err() {
                return Err(self.failed().await);
            }
            match result.await {
                Ok(result) => Ok(result),
                Err(_) => Err(self.failed().await),
            }
        };
        match timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(Error::Deadline { thread: self.name.clone(), what, deadline }),
        }
    }

    /// Resolves when the thread has panicked.
    pub async fn failed(&self) -> Error {
        let mut failure = self.failure.clone();
        let reason = match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "it has ended".to_owned(),
        };
        Error::Failed { thread: self.name.clone(), reason }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// State that is not `Send`.
    type State = Rc<Cell<u32>>;

    async fn start() -> DeviceThread<State> {
        DeviceThread::start("test", 2, || Ok::<_, std::io::Error>(Rc::new(Cell::new(1)))).await.unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn jobs_run_in_order_on_one_state() {
        block_on(async {
            let thread = start().await;
            for expected in 1..10 {
                let seen = thread.call("count", LONG, |state| state.replace(state.get() + 1)).await;
                assert_eq!(seen, Ok(expected));
            }
        });
    }

    #[test]
    fn a_panic_fails_calls_and_resolves_failed() {
        block_on(async {
            let thread = start().await;
            let failed = Error::Failed { thread: "test".to_owned(), reason: "out of memory".to_owned() };
            let result = thread.call("panic", LONG, |_| panic!("out of memory")).await;
            assert_eq!(result, Err::<(), _>(failed.clone()));
            assert_eq!(thread.call("count", LONG, |state| state.get()).await, Err(failed.clone()));
            assert_eq!(thread.failed().await, failed);
        });
    }

    #[test]
    fn a_slow_job_is_named_at_its_deadline() {
        block_on(async {
            let thread = start().await;
            let (release, released) = std::sync::mpsc::channel::<()>();
            let wait = move |_: &mut State| released.recv().unwrap();
            let result = thread.call("wait", Duration::from_millis(1), wait).await;
            assert!(matches!(result, Err(Error::Deadline { what: "wait", .. })));
            release.send(()).unwrap();
            assert_eq!(thread.call("count", LONG, |state| state.get()).await, Ok(1));
        });
    }

    #[test]
    fn a_state_that_cannot_be_built_is_an_error() {
        block_on(async {
            let started = DeviceThread::<State>::start("test", 1, || Err("no such folder")).await;
            assert!(matches!(started, Err(StartError::State("no such folder"))));
            let started = DeviceThread::<State>::start::<()>("test", 1, || panic!("no memory")).await;
            assert!(
                matches!(started, Err(StartError::Failed(Error::Failed { reason, .. })) if reason == "no memory")
            );
        });
    }
}
