//! Regenerates the Grafana dashboards: `cargo run --release -p podium-dashboards --example write`, in the repository
//! root.

use anyhow::Result;
use podium_dashboards::ALL;

fn main() -> Result<()> {
    for dashboard in ALL {
        std::fs::write(format!("deploy/grafana/dashboards/{}.json", dashboard.name), dashboard.file())?;
    }
    Ok(())
}
