//! Recommenders without language, as baselines: SASRec, GRU4Rec, BPR-MF, LightGCN and EASE on libtorch.
//!
//! [`train`] fits every model to the training part of a data set. Settings are chosen from a small grid ([`grid`]) by
//! NDCG@10 on the validation part, with the whole catalogue as candidates; the same metric ends the training of a
//! trial. The scores of all items for every held-out user are then written into a folder that
//! [`podium_evaluation::trained`] reads, without libtorch.
//!
//! Results are a function of data, options and the number of libtorch's threads. Random numbers are keyed by their use
//! and no global generator is read, so that a continued training has the bits of an uninterrupted one.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod adam;
mod dropout;
mod ease;
mod error;
mod folder;
mod grid;
mod interactions;
mod network;
mod pairs;
mod parameters;
mod sequences;
mod train;
mod trial;
mod validation;

pub use error::Error;
pub use grid::{Model, Settings, grid};
pub use interactions::{Case, Interactions, Sequence};
pub use train::{Options, Progress, train};
