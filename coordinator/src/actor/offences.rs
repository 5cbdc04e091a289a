//! Workers whose results cannot be used, as the log and the status name them.

use std::collections::VecDeque;
use std::fmt;

use crate::machine::MAX_OFFENCES;

/// The status shows so many of the newest lines.
const MAX_LINES: usize = 10;
/// Characters of a line at most.
const MAX_LINE: usize = 500;

/// A worker whose results cannot be used, by name, and how often that was so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// The worker's id, with host and device while it is registered.
    pub worker: String,
    /// Its offences so far; 0 for a worker that is not registered.
    pub offences: u32,
}

impl fmt::Display for Offender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, offences } = self;
        write!(f, "results of worker {worker} cannot be used (")?;
        match *offences {
            0 => f.write_str("it is not registered; they are sampled again)"),
            MAX_OFFENCES.. => write!(f, "offence {offences} of {MAX_OFFENCES}: it gets no more work)"),
            _ => write!(f, "offence {offences} of {MAX_OFFENCES}; they are sampled again)"),
        }
    }
}

/// The newest offences, as lines for people.
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
