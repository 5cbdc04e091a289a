//! The embedded data set: a small synthetic world with a known best possible ranking.
//!
//! Every item has a look and a theme. Its caption names them; its id and title do not reveal them. A user has
//! a constant favourite look and a current theme that drifts: before each interaction after the first, the
//! theme changes to another one with probability `p_switch`. The next item has the favourite look with
//! probability `p_look` and the current theme with probability `p_theme`, otherwise another one at random.
//! Among the items of that look and theme that are new to the user, each is sampled in proportion to its
//! weight. A look and theme without new items is sampled again.
//!
//! The catalogue renews itself: `new_items_per_pair` of the items of each look and theme appear after the
//! last training interaction. Training users interact only with old items, some far more often than others
//! (`popularity_skew`). Held-out users, those of validation and of test, also interact with new items
//! (`new_share`), and prefer the old items that were least popular in training, so popularity is misleading.
//!
//! This determines exactly the beliefs of an ideal observer of held-out users ([`Oracle`]). The reasoning in
//! the training data comes from a teacher that relies too much on the older part of the history. A policy
//! fine-tuned on it gives well-formed answers and ranks better than chance, and reinforcement learning can
//! improve on it. Everything is a function of [`World`].

mod error;
mod generate;
mod names;
mod oracle;
mod teacher;
#[cfg(test)]
mod tests;
mod universe;
mod words;
mod world;

pub use error::Error;
pub use generate::{data_options, generate, task_options, write_data};
pub use oracle::{Best, Oracle};
pub use words::words;
pub use world::{WORLD_FILE, World};
