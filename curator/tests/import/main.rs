//! Imports of external files into data folders, including files with bad rows.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_rows;
mod damage;
mod export;
mod files;
mod folder;
mod microlens;
mod movielens;
mod parquet;
mod published;
mod same_time;
mod sites;
mod stored;
mod tables;
mod texts;
