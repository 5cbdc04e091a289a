//! Injected faults: `PODIUM_NCCL_STAND_IN_FAULT="<rank> <operation> <what>"`.
//!
//! Operations of a communicator are counted from 0. `what` is `error` (the operation fails with an internal error),
//! `stall` (it never ends) or `freeze` (the whole process stops, as by SIGSTOP). Only a rank's first communicator is
//! affected, so that the next rendezvous succeeds.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

/// Kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The operation fails with an internal error.
    Error,
    /// The operation never ends.
    Stall,
    /// The process stops during the operation.
    Freeze,
}

/// A faulty operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The rank.
    pub rank: usize,
    /// Number of the operation, from 0.
    pub operation: usize,
    /// Kind of the fault.
    pub what: What,
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let wrong = || format!("{text:?}: expected \"<rank> <operation> error|stall|freeze\"");
        let [rank, operation, what] = words[..] else { return Err(wrong()) };
        let what = match what {
            "error" => What::Error,
            "stall" => What::Stall,
            "freeze" => What::Freeze,
            _ => return Err(wrong()),
        };
        let number = |word: &str| word.parse().map_err(|_| wrong());
        Ok(Self { rank: number(rank)?, operation: number(operation)?, what })
    }
}

/// Returns the fault of the environment if it affects this rank; once per process.
pub(crate) fn of_rank(rank: usize) -> Option<Fault> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let text = std::env::var("PODIUM_NCCL_STAND_IN_FAULT").ok()?;
    match text.parse::<Fault>() {
        Ok(fault) => (fault.rank == rank && !TAKEN.swap(true, Ordering::SeqCst)).then_some(fault),
        Err(error) => {
            eprintln!("PODIUM_NCCL_STAND_IN_FAULT is {error}");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        let fault = Fault { rank: 1, operation: 3, what: What::Stall };
        assert_eq!("1 3 stall".parse(), Ok(fault));
        for text in ["", "1 3", "1 3 hang", "x 3 error", "1 3 error now"] {
            assert!(text.parse::<Fault>().is_err(), "{text}");
        }
    }
}
