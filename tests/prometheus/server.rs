//! A Prometheus with the shipped configuration, in which only addresses and intervals are replaced.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podium_tests::scrape::get;
use podium_tests::{PATIENCE, Process, path_text};
use serde_json::Value;

use crate::copy;

pub(crate) const MISSING: &str = "prometheus and promtool are required: on Debian `apt-get install prometheus`, elsewhere https://prometheus.io/download";

/// Scrape interval of these tests; the shipped one is 15 s.
pub(crate) const SCRAPE_INTERVAL: Duration = Duration::from_secs(10);

/// Replacements in the shipped files. Each original must occur.
const INTERVALS: [(&str, &str); 4] = [
    ("scrape_interval: 15s", "scrape_interval: 10s"),
    ("scrape_timeout: 10s", "scrape_timeout: 5s"),
    ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ("refresh_interval: 5s", "refresh_interval: 1s"),
];
const WAITS: [(&str, &str); 2] = [("for: 1m\n", "for: 3s\n"), ("for: 5m\n", "for: 3s\n")];
const SHIPPED_ADDRESS: &str = "http://127.0.0.1:9100/targets";

pub(crate) fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

pub(crate) struct Prometheus {
    process: Process,
    address: String,
}

impl Prometheus {
    /// Starts a server that discovers processes at `coordinator`, with its files in `folder`, and waits until it is
    /// ready.
    pub(crate) fn start(coordinator: &str, folder: &Path) -> Result<Self> {
        let (from, to) = (shipped(), folder.join("prometheus"));
        fs::create_dir_all(to.join("rules"))?;
        let target = format!("http://{coordinator}/targets");
        copy(&from.join("prometheus.yml"), &to.join("prometheus.yml"), |text| {
            replace(text, INTERVALS.into_iter().chain([(SHIPPED_ADDRESS, target.as_str())]))
        })?;
        copy(&from.join("rules/recording.yml"), &to.join("rules/recording.yml"), |text| text)?;
        copy(&from.join("rules/alerts.yml"), &to.join("rules/alerts.yml"), |text| replace(text, WAITS))?;
        // Prometheus does not report a port chosen by the system, so the test chooses a free one.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new("prometheus");
        let (config, data) = (to.join("prometheus.yml"), to.join("data"));
        command.args(["--config.file", path_text(&config), "--storage.tsdb.path", path_text(&data)]);
        command.args(["--web.listen-address", &address]);
        let process = Process::start("prometheus", command, folder).context(MISSING)?;
        let prometheus = Self { process, address };
        prometheus.wait_for("Prometheus to be ready", || Ok(get(&prometheus.address, "/-/ready").is_ok()))?;
        Ok(prometheus)
    }

    /// Waits until `holds` returns true.
    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !holds()? {
            let log = self.process.output();
            ensure!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}; Prometheus said:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&get(&self.address, path)?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// Names of the discovered processes.
    pub(crate) fn targets(&self) -> Result<BTreeSet<String>> {
        self.processes(|_| true)
    }

    /// Names of the scraped processes.
    pub(crate) fn healthy(&self) -> Result<BTreeSet<String>> {
        self.processes(|target| target["health"] == "up")
    }

    fn processes(&self, fits: impl Fn(&Value) -> bool) -> Result<BTreeSet<String>> {
        let data = self.ask("/api/v1/targets?state=active")?;
        let targets = data["activeTargets"].as_array().context("no targets")?;
        let name = |target: &Value| target["labels"]["process"].as_str().map(str::to_owned);
        targets
            .iter()
            .filter(|target| fits(target))
            .map(|target| name(target).context("no label process"))
            .collect()
    }

    /// Returns the present finite results of a dashboard's query.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<f64>> {
        // Grafana uses four scrape intervals.
        let rate = format!("{}s", 4 * SCRAPE_INTERVAL.as_secs());
        let query = query.replace("$__rate_interval", &rate).replace("$run", "demo");
        let data = self.ask(&format!("/api/v1/query?query={}", encoded(&query)))?;
        let results = data["result"].as_array().with_context(|| format!("{query}: {data}"))?;
        let number = |result: &Value| result["value"][1].as_str()?.parse::<f64>().ok();
        Ok(results.iter().filter_map(number).filter(|number| number.is_finite()).collect())
    }

    /// Names of the firing alerts.
    pub(crate) fn firing(&self) -> Result<Vec<String>> {
        let data = self.ask("/api/v1/alerts")?;
        let alerts = data["alerts"].as_array().context("no alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        Ok(firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect())
    }
}

fn replace<'a>(mut text: String, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    for (from, to) in pairs {
        assert!(text.contains(from), "{from:?} is not in the shipped file");
        text = text.replace(from, to);
    }
    text
}

/// Encodes a text as part of a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}
