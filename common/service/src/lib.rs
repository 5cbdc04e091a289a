//! Domain-independent parts of every process of a run: start-up, output, logs, progress, the metrics endpoint,
//! shutdown, advertised addresses, text of other processes, and the GPUs of the machine.

// Printing macros panic on a closed output: see `podium_service::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod advertise;
mod catalogue;
pub mod environment;
pub mod gpus;
pub mod logs;
pub mod metrics_server;
pub mod output;
pub mod plain_text;
pub mod progress;
pub mod shutdown;
pub mod startup;
