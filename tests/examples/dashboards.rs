//! Writes the Grafana dashboards anew: `cargo run --release -p podium-tests --example dashboards`, in the repository root.

use anyhow::Result;
use podium_tests::dashboards::ALL;

fn main() -> Result<()> {
    for dashboard in ALL {
        std::fs::write(format!("deploy/grafana/dashboards/{}.json", dashboard.name), dashboard.file())?;
    }
    Ok(())
}
