//! Tests of the real service on a loopback port, with simulated workers and learners.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod admission;
mod aside;
mod deltas;
mod discovery;
mod fakes;
mod fixture;
mod names;
mod refusals;
mod run;
mod uploads;
mod versions;
