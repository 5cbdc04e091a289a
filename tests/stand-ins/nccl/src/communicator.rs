//! One rank's part of a communicator: a thread that exchanges operations with the hub, one after another.

use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::fault::{self, Fault, What};
use crate::frame::{self, Operation};
use crate::{hub, result};

/// Number of unfinished operations of all communicators of this process, which are on its only stream.
static ON_STREAM: AtomicUsize = AtomicUsize::new(0);

/// Whether the stream is idle.
pub(crate) fn stream_is_idle() -> bool {
    ON_STREAM.load(Ordering::SeqCst) == 0
}

/// Requests to the thread.
enum Job {
    Run(Work),
    Finalize,
}

/// Memory of the caller, which must stay valid and unused until the operation is over.
pub(crate) struct Work {
    pub(crate) operation: Operation,
    pub(crate) send: *const u8,
    pub(crate) receive: *mut u8,
}

#[allow(unsafe_code, reason = "raw pointers are not Send by themselves")]
// SAFETY: only this work accesses the memory until it is over, as NCCL's interface requires.
unsafe impl Send for Work {}

/// State shared by the caller and the thread.
struct Shared {
    state: Mutex<c_int>,
    socket: Mutex<Option<UnixStream>>,
    /// Number of operations of this communicator on the stream.
    pending: AtomicUsize,
}

impl Shared {
    fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: c_int) {
        *Self::lock(&self.state) = state;
    }

    fn begun(&self) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        ON_STREAM.fetch_add(1, Ordering::SeqCst);
    }

    fn over(&self) {
        self.pending.fetch_sub(1, Ordering::SeqCst);
        ON_STREAM.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) struct Communicator {
    pub(crate) size: usize,
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Communicator {
    /// Starts to join the other ranks.
    pub(crate) fn begin(id: Vec<u8>, rank: usize, size: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(result::IN_PROGRESS),
            socket: Mutex::new(None),
            pending: AtomicUsize::new(0),
        });
        let (jobs, inbox) = mpsc::channel();
        let own = shared.clone();
        let run = move || match join(&own, &id, rank, size) {
            Ok(stream) => serve(&own, stream, rank, size, &inbox),
            Err(code) => own.set(code),
        };
        let thread = std::thread::Builder::new().name("nccl-rank".into()).spawn(run)?;
        Ok(Self { size, shared, jobs: Some(jobs), thread: Some(thread) })
    }

    pub(crate) fn state(&self) -> c_int {
        *Shared::lock(&self.shared.state)
    }

    /// Enqueues an operation on the stream.
    pub(crate) fn enqueue(&self, work: Work) -> c_int {
        if self.state() != result::SUCCESS {
            return result::INVALID_USAGE;
        }
        self.shared.set(result::IN_PROGRESS);
        self.shared.begun();
        self.ask(Job::Run(work))
    }

    /// Starts an orderly close.
    pub(crate) fn finalize(&self) -> c_int {
        if self.state() != result::SUCCESS {
            return result::INVALID_USAGE;
        }
        self.shared.set(result::IN_PROGRESS);
        self.ask(Job::Finalize)
    }

    fn ask(&self, job: Job) -> c_int {
        match self.jobs.as_ref().map(|jobs| jobs.send(job)) {
            Some(Ok(())) => result::IN_PROGRESS,
            _ => result::INTERNAL_ERROR,
        }
    }
}

impl Drop for Communicator {
    /// Aborts all operations. Afterwards the caller's memory is not accessed any more.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(socket) = &*Shared::lock(&self.shared.socket) {
            drop(socket.shutdown(Shutdown::Both));
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        while self.shared.pending.load(Ordering::SeqCst) > 0 {
            self.shared.over();
        }
    }
}

/// Identifies this rank to the hub and waits until all ranks have joined.
fn join(shared: &Shared, id: &[u8], rank: usize, size: usize) -> Result<UnixStream, c_int> {
    let unreachable = |_: io::Error| result::SYSTEM_ERROR;
    let mut stream =
        hub::address(id).and_then(|address| UnixStream::connect_addr(&address)).map_err(unreachable)?;
    *Shared::lock(&shared.socket) = Some(stream.try_clone().map_err(unreachable)?);
    let hello = frame::write_word(&mut stream, rank as u64)
        .and_then(|()| frame::write_word(&mut stream, size as u64))
        .and_then(|()| frame::read_word(&mut stream));
    match hello.map(|code| code as c_int) {
        Ok(result::SUCCESS) => Ok(stream),
        Ok(code) => Err(code),
        Err(_) => Err(result::REMOTE_ERROR),
    }
}

/// Processes requests until an error, or until the sender is dropped.
fn serve(shared: &Shared, mut stream: UnixStream, rank: usize, size: usize, jobs: &Receiver<Job>) {
    let fault = fault::of_rank(rank);
    shared.set(result::SUCCESS);
    let mut number = 0;
    for job in jobs {
        // Started: its result shows later.
        shared.set(result::SUCCESS);
        let Job::Run(work) = job else { continue };
        let goes_wrong = |fault: Fault| (fault.operation == number).then_some(fault.what);
        let outcome = match fault.and_then(goes_wrong) {
            Some(What::Stall) => return,
            Some(What::Freeze) => return freeze(),
            Some(What::Error) => Err(result::INTERNAL_ERROR),
            None => run(&mut stream, &work, rank, size),
        };
        number += 1;
        match outcome {
            Ok(()) => shared.over(),
            // The operation stays on the stream, as with NCCL.
            Err(code) => return shared.set(code),
        }
    }
}

#[allow(unsafe_code, reason = "the caller's memory is reached by pointers")]
fn run(stream: &mut UnixStream, work: &Work, rank: usize, size: usize) -> Result<(), c_int> {
    let Work { operation, send, receive } = work;
    let bytes = operation.bytes();
    let silent = operation.kind == frame::BROADCAST && operation.root != rank as u64;
    // SAFETY: the caller passes memory of this size and does not use it until the operation is over.
    let own = unsafe { std::slice::from_raw_parts(*send, if silent { 0 } else { bytes }) };
    let talk =
        operation.write(stream).and_then(|()| stream.write_all(own)).and_then(|()| frame::read_word(stream));
    match talk.map(|code| code as c_int) {
        Ok(result::SUCCESS) => {}
        Ok(code) => return Err(code),
        Err(_) => return Err(result::REMOTE_ERROR),
    }
    let answer = operation.answer_bytes(size);
    // SAFETY: as above; `own` is not used any more, so that both may be the same memory.
    let all = unsafe { std::slice::from_raw_parts_mut(*receive, answer) };
    stream.read_exact(all).map_err(|_| result::REMOTE_ERROR)
}

/// Stops this process until it is continued or killed.
fn freeze() {
    let own = std::process::id().to_string();
    drop(std::process::Command::new("kill").args(["-STOP", &own]).status());
}
