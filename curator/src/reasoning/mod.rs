//! Pseudo chains of thought about training users: generated from pictures or captions, and rewritten from captions
//! only.
//!
//! Requests are built from histories, which end before the target, and are checked for leaks before they are sent.
//! There are no requests about held-out users.

pub(crate) mod file;
mod history;
pub(crate) mod reason;
pub(crate) mod refine;
pub(crate) mod steps;
pub(crate) mod users;

pub(crate) use history::Modality;
