//! Constrained answers: determines which tokens may follow so that a completion lists given items, in any tokenization.
//!
//! [`Answer`] is an automaton over the bytes of a text: reasoning, then a list of a fixed number of the given items. A
//! [`Vocabulary`] maps every token to its bytes. [`Constraint`] walks both together and allows a token if the automaton
//! accepts its bytes. It caches the result for each state of the automaton.
//!
//! The crate is pure: no tokenizer, no tensors, no data set. The caller supplies the items and their spelling.

mod answer;
mod constraint;
mod texts;
mod vocabulary;

pub use answer::{Answer, Error, Reasoning, State};
pub use constraint::{Completions, Constraint, reasoning_end};
pub use vocabulary::Vocabulary;
