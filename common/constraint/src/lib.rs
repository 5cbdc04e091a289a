//! Constrained answers: which tokens may come next so that a completion lists given items, in any tokenization.
//!
//! [`Answer`] is an automaton over the bytes of a text: reasoning, then a list of so many of the given items. A
//! [`Vocabulary`] knows the bytes of every token. [`Constraint`] walks both together, so that a token is allowed where its
//! bytes are, and remembers what it found for each state of the automaton.
//!
//! Pure: no tokenizer, no tensors, no data set. What the items are and how they are spelled is the caller's business.

mod answer;
mod constraint;
mod texts;
mod vocabulary;

pub use answer::{Answer, Error, Reasoning, State};
pub use constraint::{Completions, Constraint, reasoning_end};
pub use vocabulary::Vocabulary;
