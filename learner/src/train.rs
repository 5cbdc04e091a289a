//! The training loop of one learner rank (`podium-learner train`).
//!
//! For each step: the rank's share of groups, one update together with the other ranks, and then, by rank 0, the new
//! policy version, a checkpoint where one is due, and the commit. A rank that starts again continues from rank 0's
//! newest checkpoint; steps after it are trained again on the same groups, to the same bits.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use podium_config::RunFile;
use podium_grpo::{PolicyVersion, Step};
use podium_model::{DeviceThread, device_thread};
use podium_proto::v1;
use podium_runtime::{durable, logs};
use podium_transfer::connection::{self, Coordinator, Limits};
use podium_transfer::{fetch, manifest, publish};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::adamw;
use crate::checkpoint;
use crate::collective::choice::{self, Agreed, Offer};
use crate::collective::nccl::Nccl;
use crate::collective::star::{self, Hello, Star};
use crate::collective::tcp::Tcp;
use crate::collective::{self, Alone, Collective};
use crate::rank::{self, Position, Rank};
use crate::session::{self, Identity, Next, Rendezvous, Session, World};
use crate::update::{self, Metrics};

/// One job of the device thread may not take longer.
const DEVICE_DEADLINE: Duration = Duration::from_secs(3600);
/// Says which sources this program was built from.
const CODE_VERSION: &str = env!("PODIUM_CODE_VERSION");
/// Times in a row that the world may come together without getting through one step.
const FRUITLESS_WORLDS: u32 = 3;

/// Why training ended before the run did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator did not answer, or refused.
    #[error(transparent)]
    Connection(#[from] connection::Error),
    /// The policy of version 0 could not be brought.
    #[error(transparent)]
    Fetch(#[from] podium_transfer::fetch::Error),
    /// A policy folder cannot be described.
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
    /// The conversation with the coordinator ended.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The rank cannot do its work.
    #[error(transparent)]
    Rank(#[from] rank::Error),
    /// The device thread failed.
    #[error(transparent)]
    Device(#[from] device_thread::Error),
    /// The device thread cannot be started.
    #[error("cannot start the device thread: {source}")]
    Thread {
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] durable::Error),
    /// The ranks did not come together.
    #[error(transparent)]
    Connect(#[from] star::ConnectError),
    /// The ranks came together, but not as a world that can sum.
    #[error(transparent)]
    Collective(#[from] collective::Error),
    /// The collective that the run file asks for cannot be had.
    #[error(transparent)]
    Choice(#[from] choice::Error),
}

impl Error {
    /// Whether this process was asked to leave.
    const fn is_stop(&self) -> bool {
        match self {
            Self::Connection(connection::Error::Stopped { .. })
            | Self::Fetch(podium_transfer::fetch::Error::Connection(connection::Error::Stopped { .. })) => {
                true
            }
            Self::Session(error) => error.is_stop(),
            _ => false,
        }
    }
}

impl Error {
    /// What people are told that it is.
    const fn failure(&self) -> v1::Failure {
        match self {
            Self::Rank(rank::Error::Update(update::Error::Optimizer {
                source: adamw::Error::NotFinite { .. },
                ..
            })) => v1::Failure::NotFinite,
            Self::Rank(rank::Error::Update(update::Error::Memory { .. })) => v1::Failure::OutOfMemory,
            Self::Rank(rank::Error::Collective(_))
            | Self::Connect(_)
            | Self::Collective(_)
            | Self::Choice(_) => v1::Failure::Collective,
            _ => v1::Failure::Unspecified,
        }
    }
}

/// What a rank is told on its command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// host:port of the coordinator.
    pub coordinator: String,
    /// Folder for checkpoints and policy files; each rank keeps to its own folder in it.
    pub state: PathBuf,
    /// From 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// `cpu`, `cuda`, `cuda:1` or `auto`.
    pub device: String,
    /// host:port where rank 0 listens for the other ranks.
    pub collective_listen: String,
    /// host:port of this process's metrics, as others are to be told.
    pub metrics_address: String,
}

/// Trains until the run is over or `stop` is cancelled. `ready` is called once all ranks are there.
pub async fn run(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<(), Error> {
    match train(file, options, stop, ready).await {
        Err(error) if error.is_stop() => {
            tracing::info!("left before the end of the run");
            Ok(())
        }
        result => result,
    }
}

async fn train(
    file: &RunFile,
    options: &Options,
    stop: CancellationToken,
    ready: impl Fn(),
) -> Result<(), Error> {
    let coordinator = Coordinator::new(&options.coordinator, Limits::of(&file.network), stop)?;
    // Ranks on one machine may be given one folder.
    let state = options.state.join(format!("rank-{}", options.rank));
    let (manifest, start) =
        fetch::fetch(&coordinator, Some(PolicyVersion::START), &state.join("policy")).await?;
    let identity = Identity {
        learner_id: Uuid::now_v7(),
        run_hash: file.hash(),
        model_fingerprint: manifest.model_fingerprint,
        rank: options.rank,
        world_size: options.world_size,
        metrics_address: options.metrics_address.clone(),
        code_version: CODE_VERSION,
    };
    let listener = listen(options)?;
    let outgoing = state.join("outgoing");
    checkpoint::remove_folder(&outgoing)?;
    let learner = Learner {
        session: Session::new(coordinator.clone(), identity.clone(), reward_weights(file)),
        device: start_device(file, options, &state, &start).await?,
        outgoing,
        coordinator,
        identity,
        file,
    };
    let result = learner.train(listener.as_ref(), ready).await;
    if let Err(error) = &result
        && !error.is_stop()
    {
        learner.session.fail(error.failure(), logs::describe(error)).await;
    }
    // Tensors go before the process does, on the thread that owns them. A thread that failed has none left.
    let _ = learner.device.call("let go of the policy", DEVICE_DEADLINE, |rank| drop(rank.take())).await;
    result
}

fn reward_weights(file: &RunFile) -> Vec<f64> {
    file.reward.terms.iter().map(|term| term.weight).collect()
}

/// Rank 0's listener, if there is anybody to listen to.
fn listen(options: &Options) -> Result<Option<TcpListener>, Error> {
    if options.rank != 0 || options.world_size == 1 {
        return Ok(None);
    }
    let address = &options.collective_listen;
    let listener = TcpListener::bind(address);
    Ok(Some(listener.map_err(|source| star::ConnectError::Address { address: address.clone(), source })?))
}

/// The device thread's state; gone at the very end.
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

/// How a world ended.
enum End {
    RunOver,
    /// The ranks have to come together again, after so many steps.
    Rejoin {
        steps: u64,
    },
}

struct Learner<'a> {
    file: &'a RunFile,
    session: Session,
    identity: Identity,
    coordinator: Coordinator,
    device: DeviceThread<OnDevice>,
    /// Where rank 0 puts each new version for publication.
    outgoing: PathBuf,
}

impl Learner<'_> {
    async fn train(&self, listener: Option<&TcpListener>, ready: impl Fn()) -> Result<(), Error> {
        let address = listener.and_then(|listener| listener.local_addr().ok());
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let (choice, world_size) = (self.file.network.collective, self.identity.world_size);
        let offer = self
            .on_device("look for NCCL", move |rank| Offer::find(choice, rank.device(), world_size))
            .await?;
        let (mut fruitless, mut reason) = (0, String::new());
        loop {
            let newest = self.on_device("leave the world", Rank::leave).await?;
            let rendezvous = Rendezvous {
                collective_address: address.clone(),
                next_step: newest,
                nccl: offer.nccl(),
                reason: std::mem::take(&mut reason),
                nccl_id: if self.identity.rank == 0 { self.new_nccl_id(&offer).await? } else { Vec::new() },
            };
            let world = self.session.join(rendezvous).await?;
            let agreed = offer.agree(world.nccl_id.clone(), &world.without_nccl)?;
            let outcome = match self.enter(&world, agreed, listener).await {
                Ok(position) => {
                    ready();
                    self.steps(position).await
                }
                Err(error) => Err(error),
            };
            let steps = match outcome {
                Ok(End::RunOver) => return Ok(()),
                Ok(End::Rejoin { steps }) => {
                    tracing::info!("another rank came back: joining again");
                    steps
                }
                Err(error) if may_be_gone_in_another_world(&error) && fruitless < FRUITLESS_WORLDS => {
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

    /// Connects to the other ranks and gets the state that all continue from.
    async fn enter(
        &self,
        world: &World,
        agreed: Agreed,
        listener: Option<&TcpListener>,
    ) -> Result<Position, Error> {
        let deadline = Duration::from_millis(self.file.network.collective_timeout_ms);
        let hello = Hello {
            run_hash: self.identity.run_hash.clone(),
            generation: world.generation,
            rank: self.identity.rank,
            world_size: self.identity.world_size,
            code_version: CODE_VERSION.to_owned(),
            collective: agreed.name().to_owned(),
        };
        let address = world.collective_address.clone();
        let own = listener.and_then(|listener| listener.try_clone().ok());
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
        let position = self.on_device("come together", move |rank| match connect(rank.device()) {
            Ok(collective) => rank.enter(collective).map_err(Error::from),
            Err(error) => Err(error),
        });
        let position = position.await?;
        tracing::info!(
            "all ranks are here ({} over {name}): next is {}",
            self.identity.world_size,
            position.next_step
        );
        Ok(position)
    }

    /// Takes steps for as long as the world holds together.
    async fn steps(&self, position: Position) -> Result<End, Error> {
        let first = position.next_step;
        let mut step = first;
        if let (Some(metrics), Some(before)) = (&position.metrics, first.0.checked_sub(1)) {
            // The commit of the step before the checkpoint may have been lost; repeating it does no harm.
            self.session.commit(Step(before), metrics, Some(first)).await?;
        }
        loop {
            let asked = Instant::now();
            let share = match self.session.next(step).await? {
                Next::Share(share) => share,
                Next::Rejoin => return Ok(End::Rejoin { steps: step.0 - first.0 }),
                Next::RunOver(reason) => {
                    tracing::info!("the run is over: {reason}");
                    return Ok(End::RunOver);
                }
            };
            crate::metrics::waited(asked.elapsed().as_secs_f64());
            if self.step(step, share).await? {
                return Ok(End::RunOver);
            }
            step = step.next();
        }
    }

    /// Takes one step and reports it; `true` if the run is over with it.
    async fn step(&self, step: Step, share: crate::batch::Share) -> Result<bool, Error> {
        let checked = share.check_lag(self.file.rollout.max_policy_lag);
        checked.map_err(|source| rank::Error::Update(update::Error::Share { step: step.0, source }))?;
        let leader = self.identity.rank == 0;
        let folder = leader.then(|| self.outgoing.clone());
        let metrics = self
            .on_device("take a step", move |rank| {
                let metrics = rank.step(&share)?;
                crate::metrics::stepped(&share, &metrics);
                folder.iter().try_for_each(|folder| rank.save_policy(folder))?;
                Ok::<_, rank::Error>(metrics)
            })
            .await?;
        if leader {
            let start = Instant::now();
            let Identity { run_hash, model_fingerprint, .. } = &self.identity;
            let manifest = manifest::describe(&self.outgoing, step.produces(), run_hash, model_fingerprint)?;
            publish::publish(&self.coordinator, &manifest, &self.outgoing).await?;
            crate::metrics::published(start.elapsed().as_secs_f64());
        }
        let done = step.next();
        let due =
            done.0.is_multiple_of(self.file.learner.checkpoint_every_steps) || done.0 == self.file.run.steps;
        if due && leader {
            // After publication, so that a version that a checkpoint continues from is always there.
            let metrics = metrics.clone();
            self.on_device("write a checkpoint", move |rank| rank.write_checkpoint(&metrics)).await?;
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
        let job =
            move |rank: &mut OnDevice| job(rank.as_mut().expect("the rank is there until the very end"));
        Ok(self.device.call(what, DEVICE_DEADLINE, job).await??)
    }
}

/// Whether the error may be gone once all ranks have come together again.
fn may_be_gone_in_another_world(error: &Error) -> bool {
    match error {
        Error::Connect(_) | Error::Collective(_) => true,
        Error::Rank(error) => error.is_collective(),
        Error::Session(error) => error.is_unknown_rank(),
        _ => false,
    }
}
