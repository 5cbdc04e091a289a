//! Rewards of completions.
//!
//! A reward is a weighted sum of named terms, each a function of an [`Outcome`]: the completion's format, the rank of
//! the target, and a few further properties. All terms except one are **gated**: the value of a malformed answer is the
//! minimum over well-formed ones, whatever its ranking. docs/guides/rewards.md has the formulas. In short, with the
//! target at `rank` (∞ if it is not listed):
//!
//! | term | value of a well-formed answer |
//! |---|---|
//! | `form` | 1 |
//! | `form_if_improved` | 1 if rank = 1 or the prompt shows the target at a lower rank, else 0 |
//! | `hit` | 1 if rank ≤ k, else 0 |
//! | `ndcg` | 1 / log₂(rank + 1) if rank ≤ k, else 0 |
//! | `reciprocal_rank` | 1 / rank |
//! | `discounted_hit` | 1 − discount · (fraction of the items less popular than the target) if rank ≤ k, else 0 |
//! | `rank_penalty` | −Σ 1 / log₂(j + 1) over ranks j < rank of hard negatives, as a fraction of the whole list's sum |
//! | `counterfactual_swap` | mean over the list of each item's value by [`ItemCredit::CounterfactualSwap`] |
//! | `titles` | fraction of listed items with the correct title |
//! | `length` | −min(1, max(0, characters − limit) / limit) |
//! | `paper` | 1 if rank = 1, else 0.3; not gated: also for malformed answers; −1 without a list |
//! | an [`External`] term | the answer of a program of the user, within a declared range |
//!
//! Before a run starts, [`Rewards::violations`] checks the terms over the limits of all properties that they depend on:
//! every malformed answer earns less than every well-formed one, every wrong ranking less than the correct one, and
//! moving the target down never increases the reward. A policy therefore cannot gain from invalid answers, and the
//! highest reward requires reasoning, the target at rank 1 and a complete list.

mod check;
mod earning;
mod error;
mod external;
mod options;
mod outcome;
mod rank;
mod rewards;
mod term;
mod terms;
#[cfg(test)]
mod tests;
mod value;

pub use earning::{Earning, Extremes, Violation};
pub use error::Error;
pub use external::{AnswerError, External, Item, Program, Request, RequestCompletion, read as read_answer};
pub use options::{Check, Options};
pub use outcome::{Outcome, Popularity, Question, Setting};
pub use rank::{ItemCredit, ItemReward};
pub use rewards::Rewards;
pub use term::{Name, Term};
pub use terms::Score;
