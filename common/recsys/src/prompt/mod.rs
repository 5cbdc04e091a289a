//! Builds prompts from a history and candidates, within a budget.
//!
//! A prompt contains only titles, captions and ids of history and candidates. Reasoning and target are not inputs of
//! this module, so that they cannot leak into a prompt.

mod error;
mod fit;
mod messages;
mod options;
mod shortening;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Error, Kind, Refusal};
pub use messages::Prompt;
pub use options::Options;
pub use shortening::{Shortening, Unit};
pub use writer::{Ends, Measure, Prompts};
