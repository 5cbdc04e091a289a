//! The device of a worker: fetches and loads the policy version and samples leases on the device's thread.
//!
//! Only leases, token ids, floats, text and paths are exchanged with that thread; the tensors stay on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use podium_config::{Colocate, RunFile};
use podium_files::durable;
use podium_model::{DeviceThread, SharedDevice, device_thread, memory};
use podium_proto::v1::Activity;
use podium_service::logs;
use podium_tokenizer::Variables;
use podium_transfer::Activities;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::lease::{Lease, Outcome};
use crate::policy_cache::{self, PolicyCache};
use crate::sampler::{self, Sampler};
use crate::source::Source;
use crate::{metrics, session};

/// Number of queued jobs. One lease is sampled at a time, so a longer queue is not needed.
const MAILBOX: usize = 1;

/// Interval between retries while this host's disk is full.
const DISK_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Maximum time to load a policy, from any disk.
const LOAD_DEADLINE: Duration = Duration::from_secs(900);

/// Maximum time to sample a lease. A job that takes longer is considered hung.
const SAMPLE_DEADLINE: Duration = Duration::from_secs(3600);

/// The reasons why a lease could not be sampled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The policy version is unavailable.
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

/// A handle to the device.
#[derive(Clone)]
pub(crate) struct Engine {
    thread: DeviceThread<Sampler>,
    cache: Arc<Mutex<PolicyCache>>,
    /// Whether others use the same GPU.
    shares_gpu: bool,
    /// The device, if a learner of this process uses it too.
    shared: Option<SharedDevice>,
}

impl Engine {
    /// Starts the device's thread. No policy is loaded yet.
    pub(crate) async fn start(
        device: &str,
        run: &RunFile,
        shared: Option<SharedDevice>,
        cache: PolicyCache,
    ) -> Result<Self, Error> {
        let (name, model, rollout) = (device.to_owned(), run.model.clone(), run.rollout.clone());
        let variables = Variables::prompt(run.model.enable_thinking, &run.model.template_variables);
        let device = shared.clone();
        let build = move || Ok(Sampler::new(&name, &model, &rollout, variables)?.sharing(device));
        let thread = DeviceThread::start("device", MAILBOX, build).await?;
        let shares_gpu = run.launch.colocate == Colocate::Share || shared.is_some();
        Ok(Self { thread, cache: Arc::new(Mutex::new(cache)), shares_gpu, shared })
    }

    /// `cpu`, `cuda:0`, …
    pub(crate) async fn device_name(&self) -> Result<String, Error> {
        Ok(self.thread.call("name the device", LOAD_DEADLINE, |sampler| sampler.device_name()).await?)
    }

    /// Loads the coordinator's latest version and returns the folder of its model. Waits for free disk space if this
    /// host's disk is full.
    pub(crate) async fn ensure_latest(&self) -> Result<PathBuf, Error> {
        loop {
            let latest = self.cache.lock().await.latest().await?;
            match self.ensure(latest, &Activities::default()).await {
                Err(error) if durable::is_full(&error) => {
                    tracing::warn!("{}: waiting for free disk space", logs::describe(&error));
                    tokio::time::sleep(DISK_RETRY_INTERVAL).await;
                }
                ready => return ready,
            }
        }
    }

    /// Loads a version and returns the folder of its model.
    async fn ensure(&self, source: Source, activities: &Activities) -> Result<PathBuf, Error> {
        let place = {
            let _fetching = activities.begin(Activity::Fetch);
            self.cache.lock().await.ensure(source).await?
        };
        let model = place.model.clone();
        let (shared, activities) = (self.shared.clone(), activities.clone());
        let load = move |sampler: &mut Sampler| {
            let _turn = shared.as_ref().map(SharedDevice::turn);
            let _loading = activities.begin(Activity::Load);
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

    async fn sample(
        &self,
        lease: Arc<Lease>,
        stop: CancellationToken,
        activities: Activities,
    ) -> Result<Option<Outcome>, Error> {
        // A download can be stopped between two chunks and continues there at the next attempt.
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            ready = self.ensure(lease.source, &activities) => match ready {
                // Other workers have sampled it, the version was superseded, or the coordinator waits for its
                // republication.
                Err(Error::Cache(error)) if error.is_gone() => {
                    tracing::warn!("dropping lease {}: {}", lease.id, logs::describe(&error));
                    return Ok(None);
                }
                // The lease is assigned to a worker with free disk space, or to this one again.
                Err(error) if durable::is_full(&error) => {
                    tracing::warn!("dropping lease {} and waiting for free disk space: {}", lease.id, logs::describe(&error));
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(DISK_RETRY_INTERVAL) => {}
                    }
                    return Ok(None);
                }
                ready => { ready?; }
            },
        }
        let (shares_gpu, shared) = (self.shares_gpu, self.shared.clone());
        let sample = move |sampler: &mut Sampler| {
            let _turn = shared.as_ref().map(SharedDevice::turn);
            let _sampling = activities.begin(lease.activity());
            let outcome = sampler.sample(&lease, &|| stop.is_cancelled());
            if shares_gpu {
                memory::release_cache();
            }
            outcome
        };
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
        let engine = Engine::start("cpu", &RunFile::default(), None, cache).await.unwrap();
        assert_eq!(engine.device_name().await.unwrap(), "cpu");
        assert_eq!(engine.ensure_latest().await.unwrap(), folder.path().join(fake.source(1).folder_name()));

        let sample = |lease, stop| engine.sample(lease, stop, Activities::default());
        let mut results = Vec::new();
        for step in [0, 1, 0] {
            let outcome = sample(lease(&fake, step), CancellationToken::new()).await.unwrap().unwrap();
            assert_eq!(outcome.source, fake.source(step));
            results.push(outcome.results.into_iter().map(|result| result.completions).collect::<Vec<_>>());
        }
        assert_eq!(results[0], results[2]);
        assert_ne!(results[0], results[1]);

        let stop = CancellationToken::new();
        stop.cancel();
        assert!(sample(lease(&fake, 1), stop).await.unwrap().is_none());

        let outdated = sample(lease(&fake, 7), CancellationToken::new()).await.unwrap();
        assert!(outdated.is_none(), "version 7 is not available any more");
        let source = Source { version: PolicyVersion(1), ..fake.source(0) };
        let superseded = Arc::new(Lease { source, ..Lease::clone(&lease(&fake, 1)) });
        assert!(sample(superseded, CancellationToken::new()).await.unwrap().is_none());

        let panic = |_: &mut Sampler| -> () { panic!("out of memory") };
        engine.thread.call("panic", LOAD_DEADLINE, panic).await.unwrap_err();
        assert!(engine.failed().await.to_string().contains("out of memory"));
    }
}
