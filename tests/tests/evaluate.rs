//! `podium evaluate` over the real services: metrics follow from the recorded lists, no prompt is answered twice, and
//! results of another policy or other data are never reused.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_recsys::ranking::Metric;
use podium_tests::{DEFAULTS, PATIENCE, Process, STATIC_WORLD, path_text, rows};
use serde_json::Value;

pub(crate) const USERS: usize = 24;

/// A folder with the embedded policy and its run file.
pub(crate) struct Prepared {
    folder: tempfile::TempDir,
}

impl Prepared {
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let out = folder.path().join("demo");
        let settings = DEFAULTS.iter().chain(&STATIC_WORLD).flat_map(|setting| ["--set", setting]);
        let arguments: Vec<&str> =
            ["demo", "--prepare-only", "--out", path_text(&out)].into_iter().chain(settings).collect();
        Process::spawn("prepare", "podium", &arguments, folder.path())?.wait_for_success()?;
        Ok(Self { folder })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts an evaluation of the policy in `policy` with results under `out`.
    pub(crate) fn start(&self, policy: &Path, out: &str, more: &[&str]) -> Result<Process> {
        let (run_file, out, users) =
            (self.path("demo/run.toml"), self.path(out), format!("evaluation.users={USERS}"));
        let mut arguments = vec![
            "evaluate",
            path_text(&run_file),
            "--policy",
            path_text(policy),
            "--out",
            path_text(&out),
            "--set",
            &users,
            "--set",
            "launch.rollout_device=cpu",
        ];
        arguments.extend(more);
        Process::spawn("evaluate", "podium", &arguments, self.folder.path())
    }

    /// Evaluates, and returns the output and the folder of the results.
    pub(crate) fn evaluate(&self, policy: &Path, out: &str, more: &[&str]) -> Result<(String, PathBuf)> {
        let mut process = self.start(policy, out, more)?;
        process.wait_for_success()?;
        let said = process.output();
        let line = said.lines().find_map(|line| line.strip_prefix("evaluation "));
        let file = PathBuf::from(line.context("no evaluation is printed")?.trim());
        Ok((said, file.parent().context("the file has no folder")?.to_owned()))
    }

    pub(crate) fn start_policy(&self) -> PathBuf {
        self.path("demo/start")
    }
}

/// Returns the answers' files of all parts by name.
pub(crate) fn parts(out: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(out.join("parts"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "jsonl") {
            found.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path);
        }
    }
    Ok(found)
}

pub(crate) fn metrics(results: &Path) -> Result<Vec<Value>> {
    let evaluation: Value = serde_json::from_slice(&fs::read(results.join("evaluation.json"))?)?;
    Ok(evaluation["metrics"].as_array().context("no metrics")?.clone())
}

/// Returns a ranker's result for one list.
pub(crate) fn ranker<'a>(list: &'a Value, policy: &str, ranking: &str) -> Option<&'a Value> {
    list["rankers"].as_array()?.iter().find(|one| one["policy"] == policy && one["ranking"] == ranking)
}

/// Returns the mean over users of each user's mean over the samples that have the value.
fn mean(values: impl Iterator<Item = (u64, f64)>) -> (f64, usize) {
    let mut users: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (user, value) in values {
        users.entry(user).or_default().push(value);
    }
    let means = users.values().map(|values| values.iter().sum::<f64>() / values.len() as f64);
    (means.sum::<f64>() / users.len() as f64, users.len())
}

/// Recomputes a metric from the lists; `None` if the lists are not sufficient.
pub(crate) fn recomputed(row: &Value, lists: &[Value]) -> Option<(f64, usize)> {
    let (policy, ranking) = (row["policy"].as_str()?, row["ranking"].as_str()?);
    if policy == "best possible" {
        return None;
    }
    let k = row["k"].as_u64().map(|k| k as usize);
    let slice = row["slice"].as_str()?;
    let in_slice = |list: &Value| match slice.rsplit_once(' ') {
        Some((by, range)) => {
            let (least, most) = range.split_once('-').unwrap_or_default();
            let ends = (least.parse::<u64>().ok(), most.parse::<u64>().ok());
            matches!(ends, (Some(least), Some(most)) if list[by].as_u64().is_some_and(|n| (least..=most).contains(&n)))
        }
        None => true,
    };
    let asked = |reversed: bool| {
        lists.iter().filter(move |list| {
            list["negatives"] == row["negatives"] && list["reversed"] == reversed && in_slice(list)
        })
    };
    let metric = match (row["metric"].as_str()?, k) {
        ("HR", Some(k)) => Some(Metric::Hit(k)),
        ("NDCG", Some(k)) => Some(Metric::Ndcg(k)),
        ("MRR", Some(k)) => Some(Metric::ReciprocalRankAt(k)),
        ("MRR", None) => Some(Metric::ReciprocalRank),
        _ => None,
    };
    let user = |list: &Value| list["user"].as_u64();
    let measured = |value: &dyn Fn(&Value, &Value) -> Option<f64>| {
        mean(
            asked(false).filter_map(|list| Some((user(list)?, value(list, ranker(list, policy, ranking)?)?))),
        )
    };
    if let Some(metric) = metric {
        return Some(measured(&|_, ranker| {
            Some(metric.value(ranker["rank"].as_u64().map(|rank| rank as usize)))
        }));
    }
    match row["metric"].as_str()? {
        "well_formed" => Some(measured(&|_, ranker| Some(f64::from(ranker["form"] == "well_formed")))),
        "malformed" => Some(measured(&|_, ranker| Some(f64::from(ranker["form"] != "well_formed")))),
        "first_at" => Some(measured(&|list, ranker| {
            let first = ranker["first"].as_u64()?;
            let position = list["candidates"].as_array()?.iter().position(|item| *item == first)?;
            Some(f64::from(position + 1 == k?))
        })),
        "same_first_reversed" => {
            let first = |list: &Value| ranker(list, policy, ranking)?["first"].as_u64();
            let pairs = asked(true).filter_map(|reversed| {
                let straight = asked(false)
                    .find(|list| list["user"] == reversed["user"] && list["draw"] == reversed["draw"])?;
                Some((user(reversed)?, f64::from(first(straight)? == first(reversed)?)))
            });
            Some(mean(pairs))
        }
        _ => None,
    }
}

#[test]
fn metrics_follow_from_the_lists_and_a_policy_equals_itself() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let more = ["--against", path_text(&start), "--negatives", "9,19", "--draws", "2"];
    let (said, results) = prepared.evaluate(&start, "out", &more)?;
    ensure!(said.matches(&format!("{USERS} test users")).count() == 2, "each table names its part: {said}");
    let evaluation: Value = serde_json::from_slice(&fs::read(results.join("evaluation.json"))?)?;
    ensure!(evaluation["part"] == "test" && evaluation["validation"] == "file", "{}", evaluation["part"]);
    ensure!(parts(&prepared.path("out"))?.len() == 6, "two sizes, two draws and one of them reversed");

    let (metrics, lists) = (metrics(&results)?, rows(&results.join("lists.jsonl"))?);
    ensure!(lists.len() == 2 * 3 * USERS, "a line for each list: {}", lists.len());
    let mut checked = 0;
    for row in metrics.iter().filter(|row| row["against"].is_null()) {
        if let Some((value, users)) = recomputed(row, &lists) {
            let found = row["estimate"].as_f64().context("no estimate")?;
            ensure!((found - value).abs() < 1e-12 && row["n"] == users, "{row}, expected {value} of {users}");
            let (low, high) = (row["low"].as_f64(), row["high"].as_f64());
            ensure!(low <= Some(found) && Some(found) <= high, "outside its interval: {row}");
            checked += 1;
        }
    }
    ensure!(checked > 200, "only {checked} metrics were recomputed");

    let has = |wanted: &dyn Fn(&Value) -> bool| metrics.iter().any(wanted);
    let cut = |row: &Value, metric: &str, k: u64| row["metric"] == metric && row["k"] == k;
    ensure!(!has(&|row| row["negatives"] == 9 && cut(row, "HR", 10)), "a certain hit is not reported");
    ensure!(has(&|row| row["negatives"] == 19 && cut(row, "HR", 10)), "no HR@10 of 20");
    let generated = |row: &Value| row["ranking"] == "generated";
    ensure!(!has(&|row| generated(row) && cut(row, "NDCG", 5)), "a list of three has no NDCG@5");
    for policy in ["random", "popularity", "item-kNN", "best possible"] {
        ensure!(has(&|row| row["policy"] == policy && cut(row, "NDCG", 10)), "no {policy}");
    }
    for list in &lists {
        if let Some(random) = ranker(list, "random", "baseline") {
            ensure!(
                random["first"] == list["candidates"][0],
                "the order of the list is the random ranker: {list}"
            );
        }
    }

    let mut itself = 0;
    for row in metrics.iter().filter(|row| row["against"] == "demo/start (2)") {
        let nothing = ["estimate", "low", "high"].iter().all(|name| row[*name] == 0.0);
        ensure!(nothing && row["p_value"] == 1.0, "a policy differs from itself: {row}");
        itself += 1;
    }
    ensure!(itself > 20, "only {itself} comparisons with itself");
    let knn = metrics.iter().find(|row| {
        generated(row) && row["negatives"] == 19 && row["against"] == "item-kNN" && cut(row, "HR", 1)
    });
    // The embedded policy was not trained on twenty candidates.
    let knn = knn.context("no comparison with item-kNN")?;
    ensure!(knn["high"].as_f64() < Some(0.0) && knn["p_value"].as_f64() < Some(0.01), "{knn}");

    let csv = fs::read_to_string(results.join("metrics.csv"))?;
    ensure!(csv.lines().count() == metrics.len() + 1, "a row for each metric and a header");
    ensure!(csv.lines().skip(1).all(|line| line.ends_with(",test")), "each row names its part");
    for (line, row) in csv.lines().skip(1).zip(&metrics) {
        let estimate: f64 = line.split(',').nth(7).context("a short row")?.parse()?;
        ensure!(Some(estimate) == row["estimate"].as_f64(), "{line} is not {row}");
    }
    let page = fs::read_to_string(results.join("report.html"))?;
    for part in [
        "9 negatives, test users",
        "19 negatives, test users",
        "item-kNN",
        "Position of the first choice",
        "<svg",
    ] {
        ensure!(page.contains(part), "the page lacks {part}");
    }
    Ok(())
}

#[test]
fn results_depend_only_on_their_key() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let short = ["--draws", "1", "--reversed", "0", "--rankings", "generated"];
    let (_, results) = prepared.evaluate(&start, "out", &short)?;
    let lists = fs::read(results.join("lists.jsonl"))?;

    // The same policy under another name.
    let renamed = prepared.path("demo/renamed");
    copy(&start, &renamed)?;
    let (said, other) = prepared.evaluate(&renamed, "out", &short)?;
    ensure!(said.contains("reusing 1 of 1 parts"), "{said}");
    ensure!(parts(&prepared.path("out"))?.len() == 1, "the same answers under two names");
    ensure!(other != results, "results name the policies");

    let (said, again) = prepared.evaluate(&start, "out", &short)?;
    ensure!(said.contains("reusing 1 of 1 parts") && again == results, "{said}");
    ensure!(fs::read(again.join("lists.jsonl"))? == lists, "the second result differs");

    // One more sample: the first is reused.
    let (said, more) =
        prepared.evaluate(&start, "out", &["--draws", "2", "--reversed", "0", "--rankings", "generated"])?;
    ensure!(said.contains("reusing 1 of 2 parts") && more != results, "{said}");
    ensure!(fs::read(results.join("lists.jsonl"))? == lists, "earlier results are unchanged");

    // A changed byte of the policy, other data, another setting.
    let config = renamed.join("tokenizer_config.json");
    fs::write(&config, fs::read_to_string(&config)? + "\n")?;
    let mut known = parts(&prepared.path("out"))?.len();
    let (_, changed) = prepared.evaluate(&renamed, "out", &short)?;
    ensure!(changed != other, "a policy with other bytes has the same key");
    let world: Vec<&str> = short.into_iter().chain(["--set", "world.test_users=30"]).collect();
    let (_, data) = prepared.evaluate(&start, "out", &world)?;
    let length: Vec<&str> = short.into_iter().chain(["--set", "rollout.max_new_tokens=15"]).collect();
    let (_, setting) = prepared.evaluate(&start, "out", &length)?;
    let validation: Vec<&str> = short.into_iter().chain(["--part", "validation"]).collect();
    let (said, part) = prepared.evaluate(&start, "out", &validation)?;
    ensure!(said.contains(&format!("{USERS} validation users")), "{said}");
    let users = |results: &Path| -> Result<Vec<Value>> {
        Ok(rows(&results.join("lists.jsonl"))?.iter().map(|list| list["user"].clone()).collect())
    };
    ensure!(users(&part)? != users(&results)?, "validation and test have the same users");
    let keys: BTreeSet<&PathBuf> = [&results, &data, &setting, &part].into();
    ensure!(keys.len() == 4, "different evaluations have the same key");
    known += 4;
    ensure!(parts(&prepared.path("out"))?.len() == known, "one part for each of the four");

    // Answers that do not belong to the data are refused.
    let evaluation: Value = serde_json::from_slice(&fs::read(results.join("evaluation.json"))?)?;
    let part = Path::new(evaluation["parts"][0]["answers"].as_str().context("no part is listed")?);
    let text = fs::read_to_string(part)?;
    fs::write(part, text.split_once('\n').context("a part without lines")?.1)?;
    let said = prepared.start(&start, "out", &short)?.wait_for_failure()?;
    ensure!(said.contains(path_text(part)) && said.contains("remove it and evaluate again"), "{said}");
    Ok(())
}

#[test]
fn a_killed_evaluation_resumes_after_the_finished_parts() -> Result<()> {
    let prepared = Prepared::new()?;
    let start = prepared.start_policy();
    let arguments = ["--negatives", "9", "--draws", "3", "--reversed", "0"];
    let (_, undisturbed) = prepared.evaluate(&start, "undisturbed", &arguments)?;

    let process = prepared.start(&start, "killed", &arguments)?;
    let (began, out) = (Instant::now(), prepared.path("killed"));
    while parts(&out).map_or(0, |parts| parts.len()) == 0 {
        ensure!(began.elapsed() < PATIENCE, "no part was finished: {}", process.output());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    process.signal(Signal::SIGKILL)?;
    drop(process);
    let finished: Vec<(PathBuf, u64)> = parts(&out)?
        .into_values()
        .map(|path| Ok((path.clone(), fs::metadata(path)?.ino())))
        .collect::<Result<_>>()?;
    ensure!(finished.len() < 3, "it finished before it was killed");

    let (said, results) = prepared.evaluate(&start, "killed", &arguments)?;
    let kept = format!("reusing {} of 3 parts", finished.len());
    ensure!(said.contains(&kept), "expected {kept:?} in {said}");
    for (path, inode) in finished {
        ensure!(fs::metadata(&path)?.ino() == inode, "{} was answered again", path.display());
    }
    let lists = |results: &Path| fs::read_to_string(results.join("lists.jsonl"));
    ensure!(lists(&results)? == lists(&undisturbed)?, "the answers changed after the interruption");
    ensure!(results.file_name() == undisturbed.file_name(), "the key changed after the interruption");
    Ok(())
}

#[test]
fn trained_baselines_rank_the_same_lists() -> Result<()> {
    let prepared = Prepared::new()?;
    let (start, run_file) = (prepared.start_policy(), prepared.path("demo/run.toml"));
    let (data, baselines) = (prepared.path("data"), prepared.path("baselines"));
    let curator = |name: &str, arguments: &[&str]| {
        Process::spawn(name, "podium-curator", arguments, prepared.folder.path())?.wait_for_success()
    };
    curator("data", &["embedded", "--out", path_text(&data), "--run-file", path_text(&run_file)])?;
    let train = ["baselines", "--data", path_text(&data), "--train", path_text(&baselines)];
    curator("train", &[&train[..], &["--models", "ease", "--threads", "1", "--users", "10"]].concat())?;

    let short = ["--draws", "2", "--reversed", "0", "--rankings", "generated"];
    let (_, without) = prepared.evaluate(&start, "out", &short)?;
    let with = [&short[..], &["--baselines", path_text(&baselines)]].concat();
    let (said, results) = prepared.evaluate(&start, "out", &with)?;
    ensure!(said.contains("reusing 2 of 2 parts") && results != without, "{said}");
    ensure!(said.contains("generated less EASE"), "{said}");
    let lists = rows(&results.join("lists.jsonl"))?;
    ensure!(lists.iter().all(|list| ranker(list, "EASE", "baseline").is_some()), "a list without EASE");
    let mut checked = 0;
    for row in metrics(&results)?.iter().filter(|row| row["policy"] == "EASE" && row["against"].is_null()) {
        if let Some((value, _)) = recomputed(row, &lists) {
            let found = row["estimate"].as_f64().context("no estimate")?;
            ensure!((found - value).abs() < 1e-12, "{row}, expected {value}");
            checked += 1;
        }
    }
    ensure!(checked > 10, "only {checked} metrics of EASE");
    let others = |policy: &str| -> Result<Vec<Value>> {
        Ok(metrics(&without)?.into_iter().filter(|row| row["policy"] == policy).collect())
    };
    for row in others("item-kNN")?.iter().chain(&others("demo/start")?) {
        ensure!(metrics(&results)?.contains(row), "{row} differs beside trained baselines");
    }

    // Baselines of other interactions.
    let world: Vec<&str> = with.iter().copied().chain(["--set", "world.test_users=30"]).collect();
    let said = prepared.start(&start, "out", &world)?.wait_for_failure()?;
    ensure!(said.contains("were trained on other interactions"), "{said}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        fs::copy(&path, to.join(path.file_name().context("a file has a name")?))?;
    }
    Ok(())
}
