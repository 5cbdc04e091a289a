//! The Grafana dashboards. `make dashboards` writes them to deploy/grafana/dashboards.
//!
//! Queries use `$run`, the selected run, and `$__rate_interval`, which Grafana derives from the scrape interval.

mod dashboard;
mod panels;

pub use dashboard::Dashboard;

/// All dashboards.
pub const ALL: [Dashboard; 4] = [panels::TRAINING, panels::THROUGHPUT, panels::WORKERS, panels::QUALITY];
