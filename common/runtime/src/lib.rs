//! What every process of a run needs and no domain knows of: logs, the metrics endpoint, shutdown, durable files.

pub mod durable;
pub mod logs;
pub mod metrics_server;
pub mod openmp;
pub mod shutdown;
