//! Reads the endpoints of processes: pages over HTTP, and metrics in Prometheus' text format.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Timeout of an endpoint.
const PATIENCE: Duration = Duration::from_secs(20);

/// Returns the body of `http://<address><path>`.
pub fn get(address: &str, path: &str) -> Result<String> {
    let socket =
        address.to_socket_addrs()?.next().with_context(|| format!("{address} is not a valid address"))?;
    let mut stream = TcpStream::connect_timeout(&socket, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not an HTTP response")?;
    ensure!(head.lines().next().is_some_and(|line| line.contains(" 200 ")), "{address}{path}: {head}");
    Ok(body.to_owned())
}

/// One value with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name; for a histogram with `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// The metrics of a process.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// The values.
    pub samples: Vec<Sample>,
    /// Metrics and their types: `counter`, `gauge`, `histogram`.
    pub types: BTreeMap<String, String>,
    /// Metrics that have a help text.
    pub helped: BTreeSet<String>,
}

impl Scrape {
    /// Reads the metrics of a process.
    pub fn of(address: &str) -> Result<Self> {
        Self::parse(&get(address, "/metrics")?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, _) = rest.split_once(' ').with_context(|| line.to_owned())?;
                scrape.helped.insert(name.to_owned());
            } else {
                scrape.samples.push(sample(line).with_context(|| format!("invalid sample: {line}"))?);
            }
        }
        Ok(scrape)
    }

    /// Returns the sum of a metric over all samples with these labels; 0 without samples.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum()
    }
}

/// Parses `name{label="value",…} number`. Podium's labels contain no quotes.
fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let pairs = labels.strip_suffix('}')?.split_terminator("\",");
    let pair = |pair: &str| {
        let (key, value) = pair.split_once("=\"")?;
        Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    Some(Sample {
        name: name.to_owned(),
        labels: pairs.map(pair).collect::<Option<_>>()?,
        value: value.parse().ok()?,
    })
}
