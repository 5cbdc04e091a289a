//! The training loop of one learner rank (`podium-learner train`).
//!
//! For each step the rank receives its share of groups and takes one update together with the other ranks. Rank 0 then
//! writes the new policy version, a checkpoint if one is due, and the commit. A restarted rank continues from rank 0's
//! newest checkpoint; later steps are repeated on the same groups and produce the same bits.
//!
//! On SIGTERM a rank finishes its step and rank 0 writes a checkpoint. Unsent reports are sent when the run resumes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::{PolicyVersion, Step};
use podium_model::{DeviceThread, device_thread};
use podium_service::logs;
use podium_transfer::connection::{Coordinator, Limits};
use podium_transfer::{Place, fetch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::batch::Share;
use crate::collective::choice::{Agreed, Offer};
use crate::collective::nccl::Nccl;
use crate::collective::star::{Hello, Star};
use crate::collective::tcp::Tcp;
use crate::collective::{Alone, Collective};
use crate::rank::{self, Position, Rank};
use crate::session::{Identity, Next, RankGroup, Rendezvous, Session};
use crate::update::{self, Metrics, Unusable};

pub use error::Error;
use gate::Gate;
use publishing::Republished;

mod alive;
mod aside;
mod error;
mod gate;
mod publishing;
mod room;

/// Maximum time of one job of the device thread.
const DEVICE_DEADLINE: Duration = Duration::from_secs(3600);
/// Identifies the sources of this build.
const CODE_VERSION: &str = env!("PODIUM_CODE_VERSION");
/// Maximum number of consecutive rendezvous without a finished step.
const MAX_FRUITLESS_EPOCHS: u32 = 3;

/// A rank's command-line options.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the coordinator.
    pub coordinator: Place,
    /// Folder for checkpoints and policy files; each rank uses its own subfolder.
    pub state: PathBuf,
    /// This rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// `cpu`, `cuda`, `cuda:1` or `auto`.
    pub device: String,
    /// host:port where rank 0 listens for the other ranks.
    pub collective_listen: String,
    /// HOST or HOST:PORT by which the other ranks reach rank 0; see [`podium_service::advertise::address`].
    pub collective_advertise: Option<String>,
    /// Time limit for submitting the finished step during a graceful shutdown.
    pub shutdown_deadline: Duration,
    /// The advertised host:port of this process's metrics.
    pub metrics_address: String,
}

/// Outcome of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The run is over.
    RunOver,
    /// The process shut down on request; the run resumes from its checkpoint at the next start.
    Stopped,
}

/// Trains until the run is over or `stop` is cancelled. Calls `ready` once all ranks are connected.
pub async fn run(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<Ending, Error> {
    match train(file, options, stop, ready).await {
        Ok(()) => Ok(Ending::RunOver),
        Err(error) if error.is_stop() => {
            tracing::info!("shut down before the end of the run, on request: {error}");
            Ok(Ending::Stopped)
        }
        Err(error) => Err(error),
    }
}

async fn train(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<(), Error> {
    let coordinator = Coordinator::at(options.coordinator.clone(), Limits::of(&file.network), stop.clone())?;
    let closing = coordinator.until(some_time_after(stop.clone(), options.shutdown_deadline));
    // Ranks on one machine may share a folder.
    let state = options.state.join(format!("rank-{}", options.rank));
    durable::remove_leftovers(&state)?;
    let into = state.join("policy");
    let fetch = async || Ok(fetch::fetch(&coordinator, Some(PolicyVersion::START), &into).await?);
    let (manifest, start) = room::wait("fetch the first policy version", &stop, fetch).await?;
    let identity = Identity {
        learner_id: Uuid::now_v7(),
        run_hash: file.hash(),
        model_fingerprint: manifest.model_fingerprint,
        rank: options.rank,
        world_size: options.world_size,
        metrics_address: options.metrics_address.clone(),
        code_version: CODE_VERSION,
    };
    let every = Duration::from_millis(file.network.heartbeat_interval_ms);
    let alive = tokio::spawn(alive::report(coordinator.clone(), identity.learner_id, every));
    let gate = Gate::open(options)?;
    let outgoing = state.join("outgoing");
    durable::remove_folder(&outgoing)?;
    let weights = reward_weights(file);
    let learner = Learner {
        session: Session::new(coordinator, closing.clone(), identity.clone(), weights),
        device: start_device(file, options, &state, &start).await?,
        start,
        outgoing,
        closing,
        stop,
        identity,
        file,
    };
    let mut result = learner.train(gate.as_ref(), ready).await;
    if result.as_ref().is_err_and(Error::is_stop)
        && let Err(error) = learner.on_device("write a checkpoint", Rank::shut_down).await
    {
        result = Err(error);
    }
    if let Err(error) = &result
        && !error.is_stop()
    {
        learner.session.fail(error.failure(), logs::describe(error)).await;
    }
    alive.abort();
    // Tensors are dropped before the process exits, on the thread that owns them. A failed thread has dropped them
    // already.
    let _ = learner.device.call("release the policy", DEVICE_DEADLINE, |rank| drop(rank.take())).await;
    result
}

/// Returns a token that is cancelled `pause` after another.
fn some_time_after(stop: CancellationToken, pause: Duration) -> CancellationToken {
    let later = CancellationToken::new();
    let cancelled = later.clone();
    tokio::spawn(async move {
        stop.cancelled_owned().await;
        tokio::time::sleep(pause).await;
        cancelled.cancel();
    });
    later
}

fn reward_weights(file: &RunFile) -> Vec<f64> {
    file.reward.terms.iter().map(|term| term.weight).collect()
}

/// State of the device thread; `None` after shutdown.
type OnDevice = Option<Rank>;

async fn start_device(
    file: &RunFile,
    options: &Options,
    state: &Path,
    start: &Path,
) -> Result<DeviceThread<OnDevice>, Error> {
    let (file, start, device) = (file.clone(), start.to_owned(), options.device.clone());
    let checkpoints = (options.rank == 0).then(|| state.join("checkpoints"));
    let build = move || Rank::build(&file, &start, checkpoints.as_deref(), &device).map(Some);
    DeviceThread::start("learner", 1, build).await.map_err(|error| match error {
        device_thread::StartError::Spawn { source, .. } => Error::Thread { source },
        device_thread::StartError::State(error) => error.into(),
        device_thread::StartError::Failed(error) => error.into(),
    })
}

/// Reason why a rank group ends.
enum End {
    RunOver,
    /// A new rendezvous is necessary, after this many steps.
    Rejoin {
        steps: u64,
    },
    /// This rank must repeat the steps since its newest checkpoint to recompute a lost version.
    RollBack {
        version: PolicyVersion,
    },
}

struct Learner<'a> {
    file: &'a RunFile,
    session: Session,
    identity: Identity,
    /// The client for reports of the current step, which continues during a graceful shutdown.
    closing: Coordinator,
    stop: CancellationToken,
    device: DeviceThread<OnDevice>,
    /// Folder of version 0.
    start: PathBuf,
    /// Folder in which rank 0 writes each new version for publication.
    outgoing: PathBuf,
}

impl Learner<'_> {
    async fn train(&self, gate: Option<&Gate>, ready: impl Fn()) -> Result<(), Error> {
        let address = gate.map(|gate| gate.address.clone()).unwrap_or_default();
        let (choice, world_size) = (self.file.network.collective, self.identity.world_size);
        let offer = self
            .on_device("look for NCCL", move |rank| Offer::find(choice, rank.device(), world_size))
            .await?;
        let (mut fruitless, mut reason, mut goes_back) = (0, String::new(), false);
        loop {
            let disconnect: fn(&mut Rank) -> _ = if goes_back { Rank::roll_back } else { Rank::shut_down };
            let newest = self.on_device("disconnect from the rank group", disconnect).await?;
            goes_back = false;
            let rendezvous = Rendezvous {
                collective_address: address.clone(),
                next_step: newest,
                nccl: offer.nccl(),
                reason: std::mem::take(&mut reason),
                nccl_id: if self.identity.rank == 0 { self.new_nccl_id(&offer).await? } else { Vec::new() },
            };
            let group = self.session.join(rendezvous).await?;
            let dropped = group.dropped.clone();
            self.on_device("remove void checkpoints", move |rank| rank.forget(dropped)).await?;
            let agreed = offer.agree(group.nccl_id.clone(), &group.without_nccl)?;
            let outcome = match self.enter(&group, agreed, gate).await {
                Ok(position) => {
                    ready();
                    self.steps(position).await
                }
                Err(error) => Err(error),
            };
            let steps = match outcome {
                Ok(End::RunOver) => return Ok(()),
                Ok(End::Rejoin { steps }) => {
                    tracing::info!("another rank restarted: joining again");
                    steps
                }
                Ok(End::RollBack { version }) => {
                    reason = format!("the steps that make {version} are repeated, since it was lost");
                    tracing::warn!("{reason}");
                    goes_back = true;
                    1
                }
                Err(error) if error.may_be_resolved_by_rendezvous() && fruitless < MAX_FRUITLESS_EPOCHS => {
                    tracing::warn!("{error}: joining again");
                    reason = error.to_string();
                    0
                }
                Err(error) => return Err(error),
            };
            crate::metrics::rejoined();
            fruitless = if steps > 0 { 0 } else { fruitless + 1 };
        }
    }

    async fn new_nccl_id(&self, offer: &Offer) -> Result<Vec<u8>, Error> {
        let offer = offer.clone();
        self.on_device("make an id for NCCL", move |_| offer.new_id()).await
    }

    /// Connects to the other ranks and receives the common state.
    async fn enter(&self, group: &RankGroup, agreed: Agreed, gate: Option<&Gate>) -> Result<Position, Error> {
        let deadline = Duration::from_millis(self.file.network.collective_timeout_ms);
        let hello = Hello {
            run_hash: self.identity.run_hash.clone(),
            generation: group.generation,
            rank: self.identity.rank,
            world_size: self.identity.world_size,
            code_version: CODE_VERSION.to_owned(),
            collective: agreed.name().to_owned(),
        };
        let address = group.collective_address.clone();
        let own = gate.and_then(|gate| gate.listener.try_clone().ok());
        let name = agreed.name();
        let connect = move |device| -> Result<Box<dyn Collective>, Error> {
            let star = match own {
                _ if hello.world_size == 1 => Star::alone(deadline),
                Some(listener) => Star::gather(&listener, &hello, deadline)?,
                None => Star::connect(&address, &hello, deadline)?,
            };
            Ok(match agreed {
                Agreed::Nccl { library, id } => Box::new(Nccl::set_up(star, &library, &id, device)?),
                Agreed::Tcp if hello.world_size == 1 => Box::new(Alone),
                Agreed::Tcp => Box::new(Tcp::new(star)),
            })
        };
        let position = self.on_device("connect the ranks", move |rank| match connect(rank.device()) {
            Ok(collective) => rank.enter(collective).map_err(Error::from),
            Err(error) => Err(error),
        });
        let position = position.await?;
        tracing::info!(
            "all ranks are connected ({} over {name}): next is {}",
            self.identity.world_size,
            position.next_step
        );
        Ok(position)
    }

    /// Takes steps until the rank group ends.
    async fn steps(&self, position: Position) -> Result<End, Error> {
        let first = position.next_step;
        let mut step = first;
        if let (Some(metrics), Some(before)) = (&position.metrics, first.0.checked_sub(1)) {
            // The checkpoint was written before its policy was published: the published version may be missing or
            // differ; the coordinator then replaces or refuses it.
            self.publish_current(first).await?;
            // The commit of the step before the checkpoint may have been lost; repeating it is harmless.
            self.session.commit(Step(before), metrics, Some(first)).await?;
        }
        let mut lost = Vec::new();
        loop {
            let asked = Instant::now();
            let (share, unusable) = match self.session.next(step, &lost).await? {
                Next::Share { share, unusable } => (share, unusable),
                Next::Republish(wanted) => {
                    match self.republish(wanted).await? {
                        Republished::Done => {}
                        Republished::AfterSteps => return Ok(End::RollBack { version: wanted.version }),
                        Republished::Impossible => lost.push(wanted.version),
                    }
                    continue;
                }
                Next::Rejoin => return Ok(End::Rejoin { steps: step.0 - first.0 }),
                Next::RunOver(reason) => {
                    tracing::info!("the run is over: {reason}");
                    return Ok(End::RunOver);
                }
            };
            crate::metrics::waited(asked.elapsed().as_secs_f64());
            match self.step(step, share, unusable).await {
                Ok(true) => return Ok(End::RunOver),
                Ok(false) => step = step.next(),
                Err(Error::Rank(rank::Error::Update(update::Error::Unusable { groups, .. }))) => {
                    self.set_aside(step, &groups).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one step and reports it; returns `true` if it ends the run. `unusable`: groups that
    /// were removed from the share.
    async fn step(&self, step: Step, share: Share, unusable: Vec<Unusable>) -> Result<bool, Error> {
        let leader = self.identity.rank == 0;
        let metrics = self
            .on_device("take a step", move |rank| {
                rank.check(&share, unusable)?;
                let metrics = rank.step(&share)?;
                crate::metrics::stepped(&share, &metrics);
                Ok::<_, rank::Error>(metrics)
            })
            .await?;
        if leader {
            self.save_policy().await?;
        }
        let done = step.next();
        let due =
            done.0.is_multiple_of(self.file.learner.checkpoint_every_steps) || done.0 == self.file.run.steps;
        if due || self.stop.is_cancelled() {
            // Checkpoint first: a shutdown may have a short deadline.
            let write = || self.on_device("write a checkpoint", |rank| rank.write_checkpoint());
            room::wait("write a checkpoint", &self.stop, write).await?;
        }
        if leader {
            self.publish(step.produces()).await?;
        }
        let metrics = if leader { metrics } else { Metrics::new() };
        Ok(self.session.commit(step, &metrics, due.then_some(done)).await?)
    }

    async fn on_device<R: Send + 'static, E: Send + 'static>(
        &self,
        what: &'static str,
        job: impl FnOnce(&mut Rank) -> Result<R, E> + Send + 'static,
    ) -> Result<R, Error>
    where
        Error: From<E>,
    {
        let job = move |rank: &mut OnDevice| job(rank.as_mut().expect("the rank exists until shutdown"));
        Ok(self.device.call(what, DEVICE_DEADLINE, job).await??)
    }
}
