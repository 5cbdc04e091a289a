//! Pseudo chains of thought about training users: made from pictures or captions, and rewritten from captions alone.
//!
//! Requests are made of histories, which end before the target, and are checked once more before they are sent. Users who
//! are held out are never asked about.

pub(crate) mod file;
mod history;
pub(crate) mod reason;
pub(crate) mod refine;
pub(crate) mod steps;
pub(crate) mod users;

pub(crate) use history::Modality;
