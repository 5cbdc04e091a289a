//! The device's end of a worker: makes sure of the policy version and has leases sampled on the device's thread.
//!
//! Only leases, token ids, floats, text and paths pass to and from that thread; the tensors stay on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podium_config::Model;
use podium_files::durable;
use podium_model::DeviceThread;
use podium_model::device_thread;
use podium_service::logs;
use podium_tokenizer::Variables;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::lease::{Lease, Outcome};
use crate::policy_cache::{self, PolicyCache, Source};
use crate::sampler::{self, Sampler};
use crate::{metrics, session};

/// Jobs that may wait for the device. One lease is sampled at a time, so that more would be a mistake.
const MAILBOX: usize = 1;

/// How long a worker whose disk is full waits before it tries again.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(5);

/// Longest wait for a policy to be read, by any disk.
const LOAD_DEADLINE: Duration = Duration::from_secs(900);

/// Longest wait for a lease. None that fits a device takes as long: whatever does, hangs.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(3600);

/// Why a lease could not be sampled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The policy version is not there.
    #[error(transparent)]
    Cache(#[from] policy_cache::Error),
    /// Loading or sampling failed.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
    /// The device's thread could not be started.
    #[error(transparent)]
    Start(#[from] device_thread::StartError<sampler::Error>),
    /// The device's thread failed or hangs.
    #[error(transparent)]
    Thread(#[from] device_thread::Error),
}

/// A handle on the device.
#[derive(Clone)]
pub(crate) struct Engine {
    thread: DeviceThread<Sampler>,
    cache: Arc<Mutex<PolicyCache>>,
}

impl Engine {
    /// Starts the device's thread. No policy is loaded yet.
    pub(crate) async fn start(
        device: &str,
        model: &Model,
        threads: usize,
        cache: PolicyCache,
    ) -> Result<Self, Error> {
        let (name, dtype, variables) = (
            device.to_owned(),
            model.dtype,
            Variables::prompt(model.enable_thinking, &model.template_variables),
        );
        let build = move || Sampler::new(&name, dtype, threads, variables);
        let thread = DeviceThread::start("device", MAILBOX, build).await?;
        Ok(Self { thread, cache: Arc::new(Mutex::new(cache)) })
    }

    /// `cpu`, `cuda:0`, …
    pub(crate) async fn device_name(&self) -> Result<String, Error> {
        Ok(self.thread.call("name the device", LOAD_DEADLINE, |sampler| sampler.device_name()).await?)
    }

    /// Makes the coordinator's latest version the one that samples, and says where its model lies. Waits for room where
    /// this host's disk is full.
    pub(crate) async fn ensure_latest(&self) -> Result<PathBuf, Error> {
        loop {
            let latest = self.cache.lock().await.latest().await?;
            match self.ensure(latest).await {
                Err(error) if durable::is_full(&error) => {
                    tracing::warn!("{}: waiting for room", logs::describe(&error));
                    tokio::time::sleep(WAIT_FOR_ROOM).await;
                }
                ready => return ready,
            }
        }
    }

    /// Makes a version the one that samples, and says where its model lies.
    async fn ensure(&self, source: Source) -> Result<PathBuf, Error> {
        let place = self.cache.lock().await.ensure(source).await?;
        let model = place.model.clone();
        let load = move |sampler: &mut Sampler| {
            let began = (sampler.source() != Some(source)).then(Instant::now);
            sampler.load(source, &place)?;
            sampler.check_stop_tokens()?;
            Ok::<_, sampler::Error>(began.map(|began| began.elapsed()))
        };
        if let Some(took) = self.thread.call("load a policy version", LOAD_DEADLINE, load).await?? {
            metrics::loaded(took);
        }
        Ok(model)
    }
}

impl session::Sample for Engine {
    type Error = Error;

    async fn sample(&self, lease: Arc<Lease>, stop: CancellationToken) -> Result<Option<Outcome>, Error> {
        // Fetching can be stopped between two chunks and goes on there another time.
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            ready = self.ensure(lease.source) => match ready {
                // Others have sampled it, the version was superseded, or the coordinator waits for it to be published again.
                Err(Error::Cache(error)) if error.is_gone() => {
                    tracing::warn!("lease {} is dropped: {}", lease.id, logs::describe(&error));
                    return Ok(None);
                }
                // The lease goes to a worker with room, or comes back to this one.
                Err(error) if durable::is_full(&error) => {
                    tracing::warn!("lease {} is dropped, waiting for room: {}", lease.id, logs::describe(&error));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(WAIT_FOR_ROOM) => {}
                    }
                    return Ok(None);
                }
                ready => { ready?; }
            },
        }
        let sample = move |sampler: &mut Sampler| sampler.sample(&lease, &|| stop.is_cancelled());
        Ok(self.thread.call("sample a lease", SAMPLE_DEADLINE, sample).await??)
    }

    async fn failed(&self) -> Error {
        self.thread.failed().await.into()
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::PolicyVersion;

    use super::*;
    use crate::fake_coordinator::{FakeCoordinator, connect};
    use crate::lease::tests::training;
    use crate::session::Sample;
    use crate::tiny;

    fn lease(fake: &FakeCoordinator, step: u64) -> Arc<Lease> {
        let lease = Lease::try_from(training(step, &["a b", "c"])).unwrap();
        let known = fake.state().policies.contains_key(&step);
        Arc::new(if known { Lease { source: fake.source(step), ..lease } } else { lease })
    }

    #[tokio::test]
    async fn each_lease_is_sampled_by_the_version_it_names() {
        let (fake, versions) = (FakeCoordinator::new(), [tiny::folder(1), tiny::folder(2)]);
        for (version, folder) in (0..).zip(&versions) {
            fake.change(|state| _ = state.policies.insert(version, folder.path().to_owned()));
        }
        let server = fake.serve("127.0.0.1:0").await;
        let folder = tempfile::tempdir().unwrap();
        let cache = PolicyCache::new(connect(&server.address), "cafe", folder.path()).unwrap();
        let engine = Engine::start("cpu", &Model::default(), 1, cache).await.unwrap();
        assert_eq!(engine.device_name().await.unwrap(), "cpu");
        assert_eq!(engine.ensure_latest().await.unwrap(), folder.path().join("1"));

        let mut results = Vec::new();
        for step in [0, 1, 0] {
            let outcome = engine.sample(lease(&fake, step), CancellationToken::new()).await.unwrap().unwrap();
            assert_eq!(outcome.source, fake.source(step));
            results.push(outcome.results.into_iter().map(|result| result.completions).collect::<Vec<_>>());
        }
        assert_eq!(results[0], results[2]);
        assert_ne!(results[0], results[1]);

        let stop = CancellationToken::new();
        stop.cancel();
        assert!(engine.sample(lease(&fake, 1), stop).await.unwrap().is_none());

        let outdated = engine.sample(lease(&fake, 7), CancellationToken::new()).await.unwrap();
        assert!(outdated.is_none(), "nobody has version 7 any more");
        let source = Source { version: PolicyVersion(1), ..fake.source(0) };
        let superseded = Arc::new(Lease { source, ..Lease::clone(&lease(&fake, 1)) });
        assert!(engine.sample(superseded, CancellationToken::new()).await.unwrap().is_none());

        let panic = |_: &mut Sampler| -> () { panic!("out of memory") };
        engine.thread.call("panic", LOAD_DEADLINE, panic).await.unwrap_err();
        assert!(engine.failed().await.to_string().contains("out of memory"));
    }
}
