//! A policy version whose transfer takes longer than any timeout, over a slow link that breaks. `make large-versions` sets
//! the size to 8 GB.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_proto::{PROTOCOL_VERSION, v1};
use podium_tests::link::Link;
use podium_tests::{Process, Run};
use podium_transfer::publish::upload;
use podium_transfer::{Coordinator, Limits, Manifest, fetch, manifest};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Environment variable with the size of the version in MiB.
const SIZE: &str = "PODIUM_LARGE_VERSION_MB";
const DEFAULT_MB: u64 = 96;
/// Of the link, in each direction.
const BYTES_PER_SECOND: f64 = 50e6;
/// Less than the time of a transfer.
const TIMEOUT: &str = "network.request_timeout_ms=1000";
/// Additional memory that a process may use for a transfer, in KiB. Less than the size of the version.
const MEMORY_KIB: u64 = 48 << 10;
const VERSION: PolicyVersion = PolicyVersion(1);

fn size() -> Result<u64> {
    let megabytes = std::env::var(SIZE).map_or(Ok(DEFAULT_MB), |text| text.parse());
    Ok(megabytes.with_context(|| format!("{SIZE} is not a number of MiB"))? << 20)
}

/// Writes a sparse file of weights with a number at every MiB, so that exchanged parts change its hash.
fn write_weights(folder: &Path, size: u64) -> Result<()> {
    let mut file = File::create(folder.join("model.safetensors"))?;
    file.set_len(size)?;
    for offset in (0..size).step_by(1 << 20) {
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&(offset + 1).to_le_bytes())?;
    }
    Ok(())
}

/// Returns the most memory that a process has used, in KiB.
fn peak_memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.and_then(|peak| peak.split_whitespace().next()).context("no VmHWM")?;
    Ok(number.parse()?)
}

/// A rank 0 behind the link.
struct Rank {
    coordinator: Coordinator,
    id: Uuid,
    file: RunFile,
}

impl Rank {
    async fn join(run: &Run, link: &Link) -> Result<Self> {
        let file = RunFile::load(Path::new(run.run_file()), &[])?;
        let limits = Limits { reconnect_for: Duration::from_secs(30), ..Limits::of(&file.network) };
        let coordinator = Coordinator::new(link.address(), limits, CancellationToken::new())?
            .with_credentials(run.credentials());
        let rank = Self { coordinator, id: Uuid::now_v7(), file };
        let request = v1::JoinRequest {
            learner_id: rank.id.to_string(),
            run_hash: rank.file.hash(),
            protocol: PROTOCOL_VERSION,
            world_size: 1,
            wait_ms: 100,
            ..v1::JoinRequest::default()
        };
        let joined = rank.coordinator.call("join the run", || {
            let (mut client, request) = (rank.coordinator.learner(), request.clone());
            async move { client.join(request).await }
        });
        ensure!(joined.await?.complete, "the rank group is incomplete");
        Ok(rank)
    }

    /// Describes the version in `folder`, with the fingerprint of version 0.
    async fn describe(&self, folder: &Path) -> Result<Manifest> {
        let start = self.coordinator.call("get a manifest", || {
            let mut client = self.coordinator.policy();
            async move { client.get_manifest(v1::GetManifestRequest { policy_version: Some(0) }).await }
        });
        Ok(manifest::describe(folder, VERSION, &self.file.hash(), &start.await?.model_fingerprint)?)
    }
}

/// Cuts the link after a third of the bytes, and freezes it after two thirds.
async fn disturb(link: &Link, passed: fn(&Link) -> u64, size: u64) {
    let before = passed(link);
    for (third, fault) in [(1, Link::cut as fn(&Link)), (2, Link::freeze)] {
        while passed(link) - before < third * size / 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        fault(link);
    }
}

/// Runs a transfer over the disturbed link and checks its time and its bytes.
async fn over_the_link<T>(
    what: &str,
    link: &Link,
    passed: fn(&Link) -> u64,
    size: u64,
    transfer: impl Future<Output = Result<T>>,
) -> Result<T> {
    let (start, before, disturbed) = (Instant::now(), passed(link), Cell::new(false));
    let faults = async {
        disturb(link, passed, size).await;
        disturbed.set(true);
        std::future::pending::<()>().await;
    };
    let outcome = tokio::select! {
        outcome = transfer => outcome?,
        () = faults => unreachable!("they never end"),
    };
    let (seconds, bytes) = (start.elapsed().as_secs_f64(), passed(link) - before);
    eprintln!("{what}: {bytes} bytes for {size} in {seconds:.1} s");
    ensure!(disturbed.get(), "the transfer ended before the faults of the link");
    ensure!(seconds > 0.8 * size as f64 / BYTES_PER_SECOND, "the link is too fast");
    ensure!(bytes >= size, "{what}: only {bytes} bytes passed");
    ensure!((bytes as f64) < 1.1 * size as f64, "{what}: {bytes} bytes passed, so parts were sent again");
    Ok(outcome)
}

/// Checks that a process has not used much more memory than `before`.
fn check_memory(name: &str, process: u32, before: u64) -> Result<()> {
    let added = peak_memory(process)?.saturating_sub(before);
    eprintln!("{name}: {added} KiB of memory for both transfers");
    ensure!(added < MEMORY_KIB, "{name} used {added} KiB more than before, expected at most {MEMORY_KIB}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_version_is_published_and_downloaded_over_a_slow_link_that_breaks() -> Result<()> {
    let size = size()?;
    let run = Run::embedded(&["run.steps=3", TIMEOUT])?;
    let coordinator: Process = run.coordinator("coordinator")?;
    let link = Link::open(&run.address()?, BYTES_PER_SECOND).await?;
    let rank = Rank::join(&run, &link).await?;
    let (weights, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    write_weights(weights.path(), size)?;
    let manifest = rank.describe(weights.path()).await?;
    let processes = [("the coordinator", coordinator.id()), ("the test", std::process::id())];
    let before = processes.map(|(_, process)| peak_memory(process));

    let id = rank.id.to_string();
    let publishing = async { Ok(upload(&rank.coordinator, &id, &manifest, weights.path(), None).await?) };
    over_the_link("publishing", &link, Link::up, size, publishing).await?;
    let published = run.out().join("policy/1/model.safetensors");
    ensure!(durable::sha256(&published)? == manifest.files[0].sha256, "the published version differs");

    let served = fetch::served(&rank.coordinator, Some(VERSION)).await?.without_origin();
    ensure!(*served.manifest() == manifest, "another version is served");
    let folder = cache.path().join("1");
    let fetching = async { Ok(fetch::ensure(&rank.coordinator, &served, &folder, None).await?) };
    over_the_link("downloading", &link, Link::down, size, fetching).await?;
    manifest.verify(&folder)?;
    for ((name, process), before) in processes.into_iter().zip(before) {
        check_memory(name, process, before?)?;
    }
    Ok(())
}
