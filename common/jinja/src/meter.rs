//! Limits of a rendering: its number of steps, and the depth of its evaluation.

use std::cell::Cell;

use crate::fault::{Result, fault};
use crate::value::Value;

/// Maximum number of evaluated expressions and statements per rendering. A message takes some hundreds.
const MOST_STEPS: u64 = 5_000_000;

/// Maximum evaluation depth: nested expressions, statements and macro calls.
const DEEPEST: usize = 300;

/// Steps taken and current depth of one rendering.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    steps: Cell<u64>,
    depth: Cell<usize>,
}

impl Meter {
    /// Adds `count` steps.
    pub(crate) fn spend(&self, count: usize) -> Result<()> {
        let steps = self.steps.get() + count as u64;
        self.steps.set(steps);
        if steps > MOST_STEPS {
            return Err(fault(format!("the template takes more than {MOST_STEPS} steps")));
        }
        Ok(())
    }

    /// Adds the steps of printing `bytes` bytes.
    pub(crate) fn spend_on_text(&self, bytes: usize) -> Result<()> {
        self.spend(bytes / 64)
    }

    /// Adds the steps of building a value: by its bytes for text, by its items otherwise.
    pub(crate) fn spend_on(&self, value: &Value) -> Result<()> {
        match value.as_text() {
            Some(text) => self.spend_on_text(text.len()),
            None => self.spend(value.length().unwrap_or(0)),
        }
    }

    /// Runs `work` one nesting level deeper.
    pub(crate) fn deeper<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.depth.get();
        if depth >= DEEPEST {
            return Err(fault(
                "the template nests expressions and macros too deeply: expected no endless recursion",
            ));
        }
        self.spend(1)?;
        self.depth.set(depth + 1);
        let done = work();
        self.depth.set(depth);
        done
    }
}
