//! External rewards, over real processes: faults of the program change no bit of the result, answers are requested once,
//! and a run that waits names the term.

mod server;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use podium_proto::v1;
use podium_tests::launched::{podium, status};
use podium_tests::scrape::Scrape;
use podium_tests::{Process, Run, binary, path_text, rows};

use server::{Conduct, Server, reward};

const STEPS: u64 = 2;
const SETTINGS: [&str; 7] = [
    "run.steps=2",
    "run.seed=17",
    "run.record_groups=true",
    "rollout.prompts_per_step=6",
    "rollout.prompts_per_lease=3",
    "evaluation.users=8",
    "evaluation.every_steps=0",
];

/// A setting of external rewards: a term with the range 0 to 1.
fn term(name: &str, program: &str, keys: &str) -> String {
    format!("reward.external=[{{name=\"{name}\",weight=0.3,min=0.0,max=1.0,{program},backoff_ms=5{keys}}}]")
}

fn at(server: &Server, keys: &str) -> String {
    term("judge", &format!("url=\"{}\"", server.url), keys)
}

fn with(external: &str) -> Result<Run> {
    Run::embedded(&[&SETTINGS[..], &[external]].concat())
}

/// Runs all processes to the end and returns the hash of the final weights.
fn finish(run: &Run) -> Result<String> {
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    run.weights_hash(STEPS)
}

/// Checks that the recorded rewards of a term are those of a function of the text, and 0 for malformed completions.
fn check_recorded(run: &Run, name: &str, expected: impl Fn(&str) -> f64) -> Result<usize> {
    let mut values = 0;
    for row in rows(&run.out().join("groups.jsonl"))? {
        let terms = row["reward_terms"].as_array().context("a row has terms")?;
        let place = terms.iter().position(|one| one == name).context("the term is recorded")?;
        let form = terms.iter().position(|one| one == "form").context("the form is recorded")?;
        for completion in row["completions"].as_array().context("a row has completions")? {
            let parts = &completion["terms"];
            let text = completion["text"].as_str().context("a completion has a text")?;
            let expected = if parts[form] == 1.0 { expected(text) } else { 0.0 };
            let found = parts[place].as_f64().context("a reward is a number")?;
            ensure!((found - expected).abs() < 1e-12, "{text:?} has {found}, expected {expected}");
            values += usize::from(expected > 0.0);
        }
    }
    ensure!(values > 0, "no completion has a reward: nothing is tested");
    Ok(values)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_a_server_change_no_bit() -> Result<()> {
    let steady = Server::start(|_, _| Conduct::Answer).await?;
    let undisturbed = with(&at(&steady, ",batch_size=3"))?;
    let weights = finish(&undisturbed)?;
    check_recorded(&undisturbed, "judge", reward)?;
    let asked = steady.log();
    ensure!(asked.answered.values().all(|&times| times == 1), "a request was repeated: {:?}", asked.answered);

    let faults = [
        Conduct::Status(503),
        Conduct::Stall,
        Conduct::Break,
        Conduct::NotJson,
        Conduct::NaN,
        Conduct::Null,
        Conduct::OutOfRange,
        Conduct::TooFew,
        Conduct::OtherId,
    ];
    let shaky = Server::start(move |before, total| match before {
        0 => faults[total % faults.len()],
        1 => faults[(total + 4) % faults.len()],
        _ => Conduct::Answer,
    })
    .await?;
    let disturbed = with(&at(&shaky, ",batch_size=3,timeout_ms=1000"))?;
    ensure!(finish(&disturbed)? == weights, "faults of the server changed the weights");
    let log = shaky.log();
    // An answer that is late on a busy machine is requested once more.
    ensure!(log.answered.keys().eq(asked.answered.keys()), "other requests than without faults");
    ensure!(log.received.values().all(|&times| times >= 3), "a request had no fault: {:?}", log.received);
    let groups = |run: &Run| fs::read(run.out().join("groups.jsonl"));
    ensure!(groups(&disturbed)? == groups(&undisturbed)?, "the recorded groups differ");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_coordinator_repeats_no_answered_request() -> Result<()> {
    let steady = Server::start(|_, _| Conduct::Answer).await?;
    let weights = finish(&with(&at(&steady, ",batch_size=2"))?)?;

    // From the sixth request on, the server fails: some requests of a lease are answered and some are not.
    let open = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (decides, token) = (open.clone(), "sk-a-token-that-nobody-may-see");
    let server = Server::start(move |_, total| {
        let answers = total < 5 || decides.load(std::sync::atomic::Ordering::Relaxed);
        if answers { Conduct::Answer } else { Conduct::Status(500) }
    })
    .await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("token");
    fs::write(&file, token)?;
    let keys = format!(",batch_size=2,retries=1,token_file=\"{}\"", path_text(&file));
    let run = with(&at(&server, &keys))?;
    let coordinator = run.coordinator("coordinator")?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    let waiting = "the run waits for the reward term `judge`";
    run.wait_until("a warning, and the answers before it in the store", |status| {
        status.phase() == v1::RunPhase::Training
            && status.warnings.iter().any(|line| line.contains(waiting))
            && status.rewards[0].answered_requests == 5
    })
    .await?;
    let (code, page) = status(&run)?;
    for told in [
        "waiting for a reward",
        "reward      judge: waiting for its program",
        "after 1 retries: request",
        &server.url,
        "group 0.",
        "500 Internal Server Error: no rewards for Bearer [key]",
    ] {
        ensure!(code == Some(0) && page.contains(told), "{told:?} is not in the status:\n{page}");
    }
    let scrape = Scrape::of(&run.metrics_address()?)?;
    let value =
        |name: &str| scrape.samples.iter().filter(|one| one.name == name).map(|one| one.value).sum::<f64>();
    ensure!(value("podium_coordinator_reward_requests_waiting") > 0.0, "no request waits");
    coordinator.signal(Signal::SIGKILL)?;
    let told = coordinator.output();
    drop(coordinator);

    open.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut coordinator = run.coordinator("coordinator again")?;
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    ensure!(run.weights_hash(STEPS)? == weights, "the failures and the kill changed the weights");
    let log = server.log();
    ensure!(log.answered == steady.log().answered, "an answered request was repeated: {:?}", log.answered);
    ensure!(log.authorization.as_deref() == Some(&*format!("Bearer {token}")), "the token was not sent");
    for text in [told, coordinator.output()] {
        ensure!(!text.contains(token), "the token is in the log:\n{text}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_are_restarted_and_change_no_bit() -> Result<()> {
    let example = binary("examples/brevity");
    let keys = ",timeout_ms=2000,concurrency=2,batch_size=2";
    let command = |command: &str| term("brevity", &format!("command=[{command}]"), keys);
    let steady = with(&command(&format!("\"{}\", \"20\"", path_text(&example))))?;
    let weights = finish(&steady)?;
    let brevity = |text: &str| {
        let reasoning = text.split_once("</think>").map_or("", |(before, _)| before);
        let words = reasoning.trim_start().trim_start_matches("<think>").split_whitespace().count();
        (1.0 - words as f64 / 20.0).clamp(0.0, 1.0)
    };
    check_recorded(&steady, "brevity", brevity)?;

    // Every process answers two requests; then it exits, is silent, or prints something else.
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("shaky.py");
    fs::write(&script, SHAKY)?;
    let count = folder.path().join("count");
    let shaky = with(&command(&format!(
        "\"python3\", \"{}\", \"{}\", \"{}\"",
        path_text(&script),
        path_text(&count),
        path_text(&example)
    )))?;
    ensure!(finish(&shaky)? == weights, "restarts of the program changed the weights");
    ensure!(fs::read(&count)?.len() > 3, "the program was not restarted");
    let output = fs::read_to_string(shaky.folder().join("coordinator.log"))?;
    for told in [
        "the program ended before its answer (exit status: 3)",
        "out of luck",
        "did not answer within 2000 ms",
    ] {
        ensure!(output.contains(told), "{told:?} is not in the log:\n{output}");
    }
    Ok(())
}

/// Starts the program of the last argument and fails after two requests, each process in another way.
const SHAKY: &str = r#"
import subprocess, sys, time
with open(sys.argv[1], "a+") as count:
    count.write("x")
    count.flush()
    started = count.tell()
program = subprocess.Popen([sys.argv[2], "20"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for number, line in enumerate(sys.stdin):
    if number == 2:
        if started % 3 == 0:
            time.sleep(60)
        if started % 3 == 1:
            sys.exit("not now")
        print("out of luck", file=sys.stderr, flush=True)
        sys.exit(3)
    program.stdin.write(line)
    program.stdin.flush()
    print(program.stdout.readline(), end="", flush=True)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_in_python_asks_an_endpoint() -> Result<()> {
    let (url, _serving) = server::judge().await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rewards/judge.py");
    let directory = script.parent().context("the script is in a folder")?;
    let program = format!("command=[\"python3\",\"judge.py\"],directory=\"{}\"", path_text(directory));
    let run = with(&term("judge", &program, ""))?;
    let arguments =
        ["--run-file", run.run_file(), "--out", &*run.out().display().to_string()].map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut command = Process::prepare("podium-coordinator", &arguments);
    command.env("JUDGE_URL", url).env("JUDGE_MODEL", "stand-in");
    let mut coordinator = Process::start("coordinator", command, run.folder())?;
    let (mut learner, mut worker) = (run.learner("learner", 0, 1)?, run.worker("worker")?);
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    let metrics = rows(&run.out().join("metrics.jsonl"))?;
    let mean = metrics[0]["rewards/judge/mean"].as_f64().context("the term has a metric")?;
    ensure!(mean > 0.0 && mean < 1.0, "the mean reward is {mean}");
    Ok(())
}

#[test]
fn invalid_external_rewards_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.toml");
    let check = |keys: &str| -> Result<(Option<i32>, String)> {
        fs::write(&file, format!("[[reward.external]]\n{keys}\n"))?;
        podium(&["check-config", path_text(&file)])
    };
    let base = "name = 'judge'\nmin = 0.0\nmax = 1.0\nweight = 0.3\n";
    let (code, output) = check(&format!("{base}url = 'http://127.0.0.1:1/reward?key=hidden'"))?;
    ensure!(code == Some(0), "{output}");
    ensure!(
        output.contains("external reward judge: 0 to 1, weight 0.3, http://127.0.0.1:1/reward"),
        "{output}"
    );
    ensure!(!output.contains("hidden") && output.contains("1.4000 at best"), "{output}");
    let url = "url = 'http://127.0.0.1:1'\n";
    for (keys, told) in [
        (format!("{base}{url}").replace("judge", "ndcg@3"), "letters, digits, - and _"),
        (format!("{base}{url}").replace("judge", "hit"), "another name than those of built-in terms"),
        (format!("{base}{url}[[reward.external]]\n{base}{url}"), "`judge` is listed twice"),
        (format!("{base}{url}").replace("max = 1.0", "max = 0.0"), "`max` of the term \"judge\" is 0"),
        (format!("{base}{url}").replace("0.3", "0.9"), "expected a wrong ranking to earn less"),
        (base.to_owned(), "one of `url` and `command`"),
        (format!("{base}{url}command = ['x']"), "one of `url` and `command`"),
        (format!("{base}url = 'http://me:pass@host'"), "without user name and password"),
        (format!("{base}command = ['x']\ntoken_file = 'y'"), "inherits the coordinator's environment"),
        (
            format!("{base}{url}token_file = 'y'\ntoken_variable = 'Z'"),
            "one of `token_file` and `token_variable`",
        ),
        (
            format!("{base}{url}concurrency = 0"),
            "`concurrency` of the term \"judge\" is 0, expected 1 to 256",
        ),
        (
            format!("{base}{url}backoff_ms = 0"),
            "`backoff_ms` of the term \"judge\" is 0, expected at least 1",
        ),
        (format!("{base}{url}deadline = 3"), "deadline"),
    ] {
        let (code, output) = check(&keys)?;
        ensure!(
            code == Some(1) && output.contains(told),
            "{told:?} is not in the output for {keys}:\n{output}"
        );
    }
    // Detected by the coordinator when it starts.
    let run = with(&term("judge", "command=[\"no-such-program\"]", ""))?;
    let failed =
        run.coordinator("coordinator").map(drop).err().context("the program does not exist")?.to_string();
    ensure!(
        failed.contains("`command` of the reward term `judge`") && failed.contains("no-such-program"),
        "{failed}"
    );
    Ok(())
}
