//! What every process of a run needs and no domain knows of: logs, progress, the metrics endpoint, shutdown, durable
//! files.

pub mod advertise;
mod catalogue;
pub mod durable;
pub mod json_lines;
pub mod logs;
pub mod metrics_server;
pub mod openmp;
pub mod progress;
pub mod shutdown;
mod usage;
