//! The metrics that processes declare, docs/reference/metrics.md documents, and rules and dashboards use are the
//! same. The anatomy of steps is consistent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use podium_dashboards::ALL;
use podium_tests::scrape::{Scrape, get};
use podium_tests::{Run, rows};
use serde_json::Value;

/// A metric's type and labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
}

/// Headings of docs/reference/metrics.md, and the roles of their metrics.
const HEADINGS: [(&str, &[&str]); 5] = [
    ("## Coordinator", &["coordinator"]),
    ("## Rollout workers", &["worker"]),
    ("## Learner ranks", &["learner"]),
    ("## GPUs", &["worker", "learner"]),
    ("## Every process", &["coordinator", "worker", "learner"]),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(repository().join(path)).with_context(|| path.to_owned())
}

/// Returns the words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Returns the documented metrics of each role, from docs/reference/metrics.md.
fn documented() -> Result<BTreeMap<&'static str, BTreeMap<String, Documented>>> {
    let (text, mut roles) = (read("docs/reference/metrics.md")?, &[][..]);
    let mut all: BTreeMap<&str, BTreeMap<String, Documented>> = BTreeMap::new();
    for line in text.lines() {
        if line.starts_with("## ") {
            roles = HEADINGS.iter().find(|(heading, _)| *heading == line).map_or(&[][..], |(_, roles)| roles);
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, unit, labels, meaning, _] = cells[..] else { continue };
        let Some(name) = quoted(name).next() else { continue };
        ensure!(!meaning.is_empty() && (!unit.is_empty() || kind == "gauge"), "{line}");
        let labels = quoted(labels).map(str::to_owned).collect();
        for role in roles {
            let entry = Documented { kind: kind.to_owned(), labels: BTreeSet::clone(&labels) };
            let before = all.entry(role).or_default().insert(name.to_owned(), entry);
            ensure!(before.is_none(), "docs/reference/metrics.md has {name} twice");
        }
    }
    Ok(all)
}

/// Returns role and address of every process that the coordinator lists.
fn targets(coordinator: &str) -> Result<Vec<(String, String)>> {
    let listed: Vec<Value> = serde_json::from_str(&get(coordinator, "/targets")?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    listed.iter().map(|group| Ok((text(&group["labels"]["role"])?, text(&group["targets"][0])?))).collect()
}

#[tokio::test]
async fn processes_declare_the_documented_metrics() -> Result<()> {
    let run = Run::embedded(&["run.steps=3", "rollout.prompts_per_step=8", "evaluation.users=8"])?;
    let mut processes = vec![run.coordinator("coordinator")?];
    processes.extend([run.learner("learner", 0, 1)?, run.worker("worker")?]);
    run.wait_until("a step", |status| status.step > 0 && status.scaling.is_some()).await?;
    let (code, said) = podium_tests::launched::status(&run)?;
    ensure!(code == Some(0) && said.contains("% computing: "), "{code:?}: {said}");
    let documented = documented()?;
    let targets = targets(&run.metrics_address()?)?;
    let roles: BTreeSet<&str> = targets.iter().map(|(role, _)| role.as_str()).collect();
    ensure!(roles.iter().eq(documented.keys()), "the listed roles are {roles:?}");
    for (role, address) in &targets {
        let declared: BTreeMap<String, Value> = serde_json::from_str(&get(address, "/metrics/declared")?)?;
        let (known, scrape) = (&documented[role.as_str()], Scrape::of(address)?);
        let names: BTreeSet<&String> = declared.keys().collect();
        let expected: BTreeSet<&String> = known.keys().collect();
        ensure!(
            names == expected,
            "a {role} declares {names:?}; docs/reference/metrics.md has {expected:?}; they differ in {:?}",
            names.symmetric_difference(&expected).collect::<Vec<_>>()
        );
        for (name, Documented { kind, .. }) in known {
            ensure!(declared[name]["type"] == **kind, "{name} is a {}, not a {kind}", declared[name]["type"]);
            ensure!(declared[name]["help"].as_str().is_some_and(|help| !help.is_empty()), "{name}: no help");
        }
        for (name, kind) in &scrape.types {
            ensure!(known.get(name).is_some_and(|known| known.kind == *kind), "undeclared: {name}, a {kind}");
        }
        for sample in &scrape.samples {
            let known = known.get(stem(&sample.name, known)).with_context(|| sample.name.clone())?;
            let labels = sample.labels.keys().filter(|label| *label != "le");
            ensure!(labels.cloned().collect::<BTreeSet<_>>() == known.labels, "{sample:?}: {known:?}");
        }
    }
    for process in processes.iter_mut().rev() {
        process.wait_for_success()?;
    }
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    ensure!(rows.len() == 3, "one row of metrics per step");
    // A step may be sampled before the commit of the step before, in whose time this counts.
    ensure!(rows[0]["time/sample"].as_f64() > Some(0.0), "a worker samples in the first step: {}", rows[0]);
    rows.iter().try_for_each(check_anatomy)
}

/// Rounding of the times, in seconds.
const ROUNDING: f64 = 1e-5;

/// Checks that the times of a step's activities are documented and fit into the step.
fn check_anatomy(row: &Value) -> Result<()> {
    let documented = read("docs/reference/metrics.md")?;
    let seconds = |name: &str| row[name].as_f64().with_context(|| format!("{name} in {row}"));
    let (step, computing) = (seconds("step_time")?, seconds("time/computing")? * seconds("step_time")?);
    let (sample, update) = (seconds("time/sample")?, seconds("time/update")?);
    ensure!(update > 0.0, "a rank computes in every step: {row}");
    let names = row.as_object().context("a row is an object")?.keys();
    let times: Vec<&String> = names.filter(|name| name.starts_with("time/")).collect();
    for name in &times {
        ensure!(documented.contains(&format!("| `{name}` |")), "docs/reference/metrics.md lacks {name}");
        let most = if *name == "time/computing" { 1.0 } else { step };
        let value = seconds(name)?;
        ensure!((-ROUNDING..=most + ROUNDING).contains(&value), "{name} is {value} of {most}: {row}");
    }
    ensure!(times.len() == 16, "{times:?}");
    let both = sample + update + seconds("time/evaluate")?;
    ensure!(computing >= sample.max(update) - ROUNDING && computing <= both + ROUNDING, "{row}");
    ensure!(computing + seconds("time/other")? <= step + ROUNDING, "{row}");
    Ok(())
}

/// Returns the metric of a series.
fn stem<'a>(name: &'a str, known: &BTreeMap<String, Documented>) -> &'a str {
    let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|end| name.strip_suffix(end));
    let is_histogram = |stem: &&str| known.get(*stem).is_some_and(|known| known.kind == "histogram");
    parts.into_iter().find(is_histogram).unwrap_or(name)
}

/// Returns Podium's names in an expression: metrics (`podium_…`) and recorded series (`podium:…`).
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.starts_with("podium_") || word.starts_with("podium:"))
}

/// Returns the values of a key in a file of rules: `alert`, `record`.
fn values<'a>(rules: &'a str, key: &str) -> BTreeSet<&'a str> {
    let lines = rules.lines().filter_map(|line| line.trim().strip_prefix("- ")?.split_once(": "));
    lines.filter(|(found, _)| *found == key).map(|(_, value)| value).collect()
}

#[test]
fn rules_and_dashboards_use_existing_metrics() -> Result<()> {
    let known: BTreeMap<String, Documented> = documented()?.into_values().flatten().collect();
    let (recording, alerts) =
        (read("deploy/prometheus/rules/recording.yml")?, read("deploy/prometheus/rules/alerts.yml")?);
    let recorded = values(&recording, "record");
    let mut sources =
        vec![("recording.yml".to_owned(), recording.clone()), ("alerts.yml".to_owned(), alerts)];
    let queries = ALL.iter().flat_map(|dashboard| {
        dashboard.queries().map(|(panel, query)| (format!("{}: {panel}", dashboard.name), query.to_owned()))
    });
    sources.extend(queries);
    for (file, text) in &sources {
        for name in names(text) {
            let exists = recorded.contains(name) || known.contains_key(stem(name, &known));
            ensure!(exists, "{file} names {name}, which is neither exposed nor recorded");
        }
    }
    ensure!(recorded.len() > 5, "recording.yml could not be parsed: {recorded:?}");
    let used = |name: &str| sources.iter().filter(|(_, text)| names(text).any(|one| one == name)).count() > 1;
    let unused: Vec<&str> = recorded.iter().copied().filter(|name| !used(name)).collect();
    ensure!(unused.is_empty(), "unused recorded series: {unused:?}");
    Ok(())
}

#[test]
fn every_alert_is_tested_and_listed() -> Result<()> {
    let alerts = read("deploy/prometheus/rules/alerts.yml")?;
    let alerts = values(&alerts, "alert");
    ensure!(alerts.len() > 5, "alerts.yml could not be parsed: {alerts:?}");
    let (tests, page) = (read("deploy/prometheus/tests/alerts.yml")?, read("deploy/prometheus/README.md")?);
    for alert in &alerts {
        let fired = tests.contains(&format!("labels: 'ALERTS{{alertname=\"{alert}\""));
        ensure!(fired, "no test in deploy/prometheus/tests/alerts.yml fires {alert}");
    }
    let listed: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `Podium"))
        .filter_map(|line| quoted(line).next())
        .collect();
    ensure!(listed == alerts, "deploy/prometheus/README.md lists {listed:?}, expected {alerts:?}");
    Ok(())
}

#[test]
fn dashboards_are_up_to_date() -> Result<()> {
    for dashboard in ALL {
        let path = format!("deploy/grafana/dashboards/{}.json", dashboard.name);
        ensure!(read(&path)? == dashboard.file(), "{path} is outdated: run `make dashboards`");
    }
    let files = fs::read_dir(repository().join("deploy/grafana/dashboards"))?.count();
    ensure!(files == ALL.len(), "{files} files for {} dashboards", ALL.len());
    Ok(())
}
