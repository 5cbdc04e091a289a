//! Starts a coordinator: from a run file and an output folder to a listening service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use podium_config::RunFile;
use podium_files::durable;
use podium_grpo::PolicyVersion;
use podium_recsys::synthetic::{self, Oracle};
use podium_recsys::{Dataset, Task, dataset, task};
use podium_service::advertise;
use podium_tokenizer::{Chat, Variables};
use podium_transfer::{Secret, secret};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::actor::{self, Clock, Parts, Records, blocking};
use crate::announcement::{self, Announcement};
use crate::curriculum::{self, Curriculum};
use crate::discovery::Discovery;
use crate::external::{self, ExternalRewards};
use crate::grading::{Border, SamplingByWork};
use crate::identity::Identity;
use crate::machine::{Machine, Recovered, Schedule};
use crate::policies::{self, Policies, Start};
use crate::reports::answers::Answers;
use crate::reports::recording::Recording;
use crate::reports::summary::Baselines;
use crate::reports::watch::Watch;
use crate::service::{self, Context, Submissions, Uploads};
use crate::store::{self, Store};

pub use crate::actor::ExitReason;

/// The reasons why a coordinator could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or does not belong to this host.
    #[error(
        "cannot listen on {address}; stop the process that uses it, or choose another address with --listen (port 0 lets the \
         system choose)"
    )]
    Listen {
        /// The address.
        address: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The address to advertise is invalid.
    #[error("--advertise cannot be used")]
    Advertise(#[from] advertise::Error),
    /// The secret of the run cannot be read or created.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// The output folder cannot be used.
    #[error(transparent)]
    Folder(#[from] durable::Error),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The initial policy or a stored version cannot be used.
    #[error(transparent)]
    Policy(#[from] policies::Error),
    /// The policy's tokenizer or chat template cannot be read. They determine the length and the end of
    /// prompts.
    #[error(transparent)]
    Tokenizer(#[from] podium_tokenizer::Error),
    /// The policy's configuration cannot be used. Results are checked against it.
    #[error("cannot check results against the policy to start from")]
    Config(#[from] podium_checkpoint::config::Error),
    /// The embedded data set cannot be written.
    #[error("cannot generate the embedded data set")]
    World(#[from] synthetic::Error),
    /// The data set cannot be read.
    #[error(transparent)]
    Data(#[from] dataset::Error),
    /// The data set and the run file do not define a task.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The data set has no training cases.
    #[error(transparent)]
    Curriculum(#[from] curriculum::Error),
    /// An external reward cannot be used.
    #[error(transparent)]
    External(#[from] external::SetupError),
    /// The actor did not start.
    #[error(transparent)]
    Actor(#[from] actor::Error),
    /// The server failed.
    #[error("the server failed")]
    Server(#[from] tonic::transport::Error),
    /// A task of the coordinator panicked.
    #[error("a task of the coordinator ended unexpectedly")]
    Ended(#[from] tokio::task::JoinError),
}

impl Error {
    /// Returns whether the error may disappear once the disk has free space.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store(store::Error::Full { .. })) || durable::is_full(self)
    }
}

/// Inputs and addresses of a coordinator.
#[derive(Debug, Clone)]
pub struct Options {
    /// The run file.
    pub file: RunFile,
    /// Base folder of relative paths of prompt templates: the folder of the run file.
    pub base: PathBuf,
    /// The output folder.
    pub out: PathBuf,
    /// The address to listen on; by default the run file's address, or the port of the previous coordinator.
    pub listen: Option<String>,
    /// HOST or HOST:PORT at which others reach it; see [`advertise::address`].
    pub advertise: Option<String>,
    /// Address of this process's metrics.
    pub metrics_address: Option<SocketAddr>,
    /// The list of processes to scrape; the coordinator updates it.
    pub discovery: Discovery,
}

/// A running coordinator.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    supervisor: JoinHandle<Result<ExitReason, Error>>,
}

impl Running {
    /// Returns the address that it listens on.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the run is over and all workers and ranks have disconnected, or until it is stopped.
    pub async fn finished(self) -> Result<ExitReason, Error> {
        self.supervisor.await?
    }
}

/// Starts a coordinator, or continues from the state of the previous one. When `stop` is cancelled, the
/// coordinator stops serving and exits; a later start in the same folder continues the run.
pub async fn start(options: Options, stop: CancellationToken) -> Result<Running, Error> {
    let Options { file, base, out, listen, advertise, metrics_address, discovery } = options;
    durable::create_folder(&out)?;
    let secret = Secret::of_run(&out, &file.network)?;
    let named = listen.as_deref().unwrap_or(&file.network.listen);
    let listener = match bind(&listen_address(&out, named)).await {
        // Another process uses the earlier port; processes that follow coordinator.json find the new one.
        Err(Error::Listen { address, source })
            if address != named && source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            bind(named).await?
        }
        bound => bound?,
    };
    let Prepared { parts, machine, curriculum, border } = {
        let (file, out) = (file.clone(), out.clone());
        blocking(move || prepare(&file, &base, out, discovery)).await?
    };
    let (policies, store, timeline) = (parts.policies.clone(), parts.store.clone(), parts.timeline.clone());
    let external = parts.external.clone();
    let identity = parts.identity.clone();
    let dropped_versions = store.dropped_versions()?;
    let run_id = identity.run_id.to_string();
    let (actor_stop, server_stop) = (CancellationToken::new(), stop.child_token());
    let (handle, actor) = actor::start(parts, machine, actor_stop.clone());
    let context = Arc::new(Context {
        sampling: SamplingByWork::of(&file),
        border,
        network: file.network.clone(),
        incarnation: uuid::Uuid::new_v4().as_u64_pair().0,
        uploads: Uploads::default(),
        submissions: Submissions::default(),
        external,
        dropped_versions,
        computations: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from))),
        stop: server_stop.clone(),
        identity,
        handle,
        curriculum,
        policies,
        store,
        timeline,
    });
    let address = listener.local_addr().map_err(|source| Error::Listen { address: String::new(), source })?;
    let server = tokio::spawn(service::serve(listener, context, secret));
    let advertised = advertise::address(address, advertise.as_deref())?;
    let announcement = Announcement::new(&out, &advertised, address, metrics_address, &run_id);
    announcement.write(None)?;
    tracing::info!("serving run {:?} on {address}, for others {advertised}", file.run.name);
    let supervisor = tokio::spawn(async move {
        let outcome = tokio::select! {
            outcome = supervise(actor, server, actor_stop, server_stop) => outcome,
            never = announcement.keep() => match never {},
        };
        announcement.end(&outcome);
        outcome
    });
    Ok(Running { address, supervisor })
}

/// Waits for the server and the actor. The server stops before the actor, so that open calls get their
/// replies.
async fn supervise(
    mut actor: JoinHandle<ExitReason>,
    mut server: JoinHandle<Result<(), tonic::transport::Error>>,
    actor_stop: CancellationToken,
    server_stop: CancellationToken,
) -> Result<ExitReason, Error> {
    tokio::select! {
        outcome = &mut actor => {
            server_stop.cancel();
            server.await??;
            Ok(outcome?)
        }
        served = &mut server => {
            actor_stop.cancel();
            let outcome = actor.await;
            served??;
            Ok(outcome?)
        }
    }
}

/// The parts of a coordinator.
struct Prepared {
    parts: Parts,
    machine: Machine,
    curriculum: Arc<Curriculum>,
    border: Border,
}

fn prepare(file: &RunFile, base: &Path, out: PathBuf, discovery: Discovery) -> Result<Prepared, Error> {
    let run_hash = file.hash();
    durable::remove_leftovers(&out)?;
    let store = Store::open(&out, &run_hash)?;
    let data = data_folder(file, &out)?;
    let dataset = Dataset::load(data.dir.as_deref().unwrap_or(&out), &data)?;
    let oracle = data.dir.as_deref().map(Oracle::open).transpose()?.flatten();
    let start = Start { model: file.model.path.clone(), adapter: file.lora.adapter.clone() };
    let policies = Policies::open(&out.join("policy"), &run_hash, start, &store)?;
    let folder = policies.folder(PolicyVersion::START)?;
    let variables = Variables::prompt(file.model.enable_thinking, &file.model.template_variables);
    let chat = Arc::new(Chat::load(&folder, variables)?);
    chat.tokenizer().check_for_training()?;
    let border = Border::open(file, &folder, chat.clone())?;
    let task = rendered(Task::new(dataset, &file.task(), file.run.seed, base)?, &chat);
    task.check_thinking()?;
    tracing::info!("the reward is {}", task.rewards().extremes());
    for violation in task.rewards().violations() {
        tracing::warn!(
            "the reward violates an ordering rule: {violation}; it is accepted because of reward.check = \"warn\""
        );
    }
    let part = file.evaluation.part;
    let (dataset, users) = (task.dataset(), task.dataset().held_out(part).len());
    let source = dataset.validation_source;
    tracing::info!(
        "{} training users; {} validation users, {source}",
        dataset.train.len(),
        dataset.validation.len()
    );
    if users == 0 {
        tracing::warn!(
            "the data set has no {part} users: no version is evaluated, and there is no best version"
        );
    }
    let schedule = Schedule::of(file, users);
    let curriculum = Curriculum::new(task, file.rollout.prompts_per_step, file.rollout.refill_attempts)?
        .evaluating(part, file.evaluation.draw, file.evaluation.reversed);
    if let Some(warning) = age_warning(file) {
        tracing::warn!("{warning}");
    }
    let users = schedule.evaluation_prompts;
    let baselines = Baselines::of(&curriculum, users, file.evaluation.likelihood, oracle.as_ref())?;
    let identity = Identity {
        run_id: store.run_id()?,
        run_name: file.run.name.clone(),
        run_hash,
        model_fingerprint: policies.fingerprint().to_owned(),
    };
    let watch = Watch::new(&file.watch, curriculum.task());
    let ended_by = watch.findings(&store.evaluations()?).ended_by;
    let machine = Machine::restore(schedule, Recovered { ended_by, ..store.recover()? });
    if machine.committed().0 > 0 || machine.latest() > PolicyVersion::START {
        tracing::info!("continuing: {} of {} steps are done", machine.committed().0, file.run.steps);
    }
    let recording = |curriculum: &Curriculum| {
        let weights = curriculum.task().rewards().weights();
        Recording::open(out.join("groups.jsonl"), weights, machine.committed())
    };
    let recording = file.run.record_groups.then(|| recording(&curriculum)).transpose()?;
    let (store, curriculum) = (Arc::new(store), Arc::new(curriculum));
    let closer = Records {
        store: store.clone(),
        curriculum: curriculum.clone(),
        watch: watch.clone(),
        recording,
        answers: file.evaluation.record_answers.then(|| Answers::new(&out)),
    };
    // An evaluation grades no training completion.
    let terms = if file.run.steps > 0 { file.reward.external.as_slice() } else { &[] };
    let external = Arc::new(ExternalRewards::open(terms, base, store.clone())?);
    let parts = Parts {
        identity,
        store,
        policies: Arc::new(policies),
        closer: Arc::new(closer),
        watch,
        baselines,
        discovery,
        clock: Clock::monotonic(),
        timeline: Arc::default(),
        external,
        out,
    };
    Ok(Prepared { parts, machine, curriculum, border })
}

/// Returns the warning about a run with older versions' groups whose clipping counts the age of groups as
/// drift of the policy.
fn age_warning(file: &RunFile) -> Option<String> {
    let lag = file.rollout.max_policy_lag;
    (lag > 0 && !file.grpo.renews_old()).then(|| {
        format!(
            "rollout.max_policy_lag is {lag} and grpo.importance_sampling_correction \"none\": clipping treats the age \
             of groups as drift of the policy; \"token_truncate\" distinguishes the two"
        )
    })
}

/// Returns the task with the policy's own tokenizer and chat template, which count the tokens of prompts and
/// may open or close the think block.
fn rendered(task: Task, chat: &Arc<Chat>) -> Task {
    let (ends, lengths) = (chat.clone(), chat.clone());
    let task = task.ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?)));
    task.measured_with(Arc::new(move |prompt| Ok(lengths.length(prompt.messages())?)))
}

/// Returns the folder of the data set. The embedded data set is generated if the run file sets no folder.
fn data_folder(file: &RunFile, out: &Path) -> Result<dataset::Options, Error> {
    if file.data.dir.is_some() {
        return Ok(file.data.clone());
    }
    let folder = out.join("data");
    synthetic::write_data(&file.world, &folder)?;
    Ok(synthetic::data_options(&file.world, &folder))
}

/// Returns the address to listen on: `named` if it has a port, else the port of the previous coordinator,
/// else any port.
fn listen_address(out: &Path, named: &str) -> String {
    if !named.ends_with(":0") {
        return named.to_owned();
    }
    match (announcement::port_of_before(out), named.rsplit_once(':')) {
        (Some(port), Some((host, _))) => format!("{host}:{port}"),
        _ => named.to_owned(),
    }
}

async fn bind(address: &str) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address: address.to_owned(), source })
}
