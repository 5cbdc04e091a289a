//! Workers with unusable results, as shown in the log and the status.

use std::collections::VecDeque;
use std::fmt;

use crate::machine::MAX_OFFENCES;

/// Number of recent lines in the status.
const MAX_LINES: usize = 10;
/// Maximum number of characters per line.
const MAX_LINE: usize = 500;

/// A worker with unusable results, and the number of its offences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// The worker's id, with host and device while it is registered.
    pub worker: String,
    /// Number of its offences so far; 0 for a worker that is not registered.
    pub offences: u32,
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, offences } = self;
        write!(f, "results of worker {worker} are unusable (")?;
        match *offences {
            0 => f.write_str("it is not registered; they are sampled again)"),
            MAX_OFFENCES.. => write!(f, "offence {offences} of {MAX_OFFENCES}: it receives no more leases)"),
            _ => write!(f, "offence {offences} of {MAX_OFFENCES}; they are sampled again)"),
        }
    }
}

/// The newest offences, as readable lines.
#[derive(Debug, Default)]
pub(super) struct Offences(VecDeque<String>);

impl Offences {
    pub(super) fn add(&mut self, line: &str) {
        while self.0.len() >= MAX_LINES {
            self.0.pop_front();
        }
        self.0.push_back(line.chars().take(MAX_LINE).collect());
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }
}
