//! Foreign files become a folder that training reads, whatever is wrong with some of their rows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_rows;
mod damage;
mod files;
mod folder;
mod microlens;
mod movielens;
mod parquet;
mod same_time;
mod stored;
mod tables;
mod texts;
