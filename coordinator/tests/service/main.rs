//! The real service on a loopback port, with workers and learners that only pretend to compute.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod aside;
mod discovery;
mod fakes;
mod refusals;
mod run;
mod versions;
