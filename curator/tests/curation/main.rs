//! Runs the real program against an endpoint that fails, stalls, limits, truncates and sends invalid replies.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod captions;
mod checks;
mod faults;
mod interruption;
mod key;
mod outputs;
mod reasoning;
mod replies;
mod server;
mod shop;
