//! Terms whose values a program of the user computes: options, requests and answers, without I/O.
//!
//! A request describes one prompt and some of its well-formed completions; the answer is one value for each of them.
//! docs/guides/external-rewards.md describes the messages. The coordinator sends them.

mod answer;
mod options;
mod request;

pub use answer::{Error as AnswerError, read};
pub use options::{External, Program};
pub use request::{Item, Request, RequestCompletion};
