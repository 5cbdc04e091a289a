//! Parses completions: `<think>…</think>`, then a ranked list of candidates, best first. A prompt may already contain a
//! part of the think block ([`ThinkingStart`]).
//!
//! Parsing never fails: every text has a [`Form`], which names the first defect of a malformed answer. Training reports
//! the fraction of each defect.

mod form;
mod list;
mod options;
mod parse;
mod parsed;
#[cfg(test)]
mod tests;
mod thinking;
mod write;

pub use form::Form;
pub use options::{Layout, Options};
pub use parse::parse;
pub use parsed::{Expected, Listed, ListedStatus, Parsed};
pub use thinking::ThinkingStart;
pub use write::{ThinkingIsOver, after, empty_block, entry, white_space, write};
