//! Assigns devices to processes. Pure: the list of GPUs goes in, a device for each process or an error comes out.
//!
//! Named GPUs are assigned first. The other processes, ranks before workers, receive the least used GPU, the first one
//! of several. If the run file sets no number of workers, the GPUs that the ranks leave determine it.

use podium_config::{CollectiveChoice, Colocate, Devices, RunFile};
use podium_service::gpus::{self, Machine};

use super::rows::{Device, processes, rows};

/// Workers on the CPU if the run file sets no number.
const CPU_WORKERS: usize = 2;

/// The reasons why the processes of a run cannot have devices.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Gpus(#[from] gpus::Error),
    #[error("{key} is {value:?}, and {found}: expected a visible GPU, or {key} = \"cpu\"")]
    NoGpu { key: &'static str, value: String, found: String },
    #[error(
        "CUDA_VISIBLE_DEVICES is {selection:?}, which selects none of the {installed} GPUs of this machine: correct it, \
         unset it to use all, or set it to an empty text to use none"
    )]
    Selection { selection: String, installed: usize },
    #[error("{key} names cuda:{index}, and {}: expected cuda:0 to cuda:{}", visible(*count), count - 1)]
    Index { key: &'static str, index: usize, count: usize },
    #[error(
        "{key} lists {listed} GPU{} for {processes} {kind}s: expected one for each, {key} = \"cuda\" for any, or \
         launch.colocate = \"share\"", plural(*listed)
    )]
    Count { key: &'static str, listed: usize, processes: usize, kind: &'static str },
    #[error("{headline}:{rows}\n{remedy}")]
    TooFew { headline: String, rows: String, remedy: String },
    #[error(
        "learner ranks {first} and {second} use cuda:{gpu}, and NCCL requires a GPU for each rank: set \
         launch.learner_ranks to at most the number of GPUs, or network.collective = \"tcp\""
    )]
    Nccl { first: usize, second: usize, gpu: usize },
}

/// The processes of one kind.
#[derive(Debug, Clone)]
struct Group {
    key: &'static str,
    kind: &'static str,
    value: String,
    devices: Devices,
    processes: usize,
}

impl Group {
    fn new(key: &'static str, kind: &'static str, value: &str, processes: u32) -> Self {
        let devices = Devices::parse(value).expect("the run file is validated");
        Self { key, kind, value: value.to_owned(), devices, processes: processes as usize }
    }

    fn wants_gpus(&self) -> bool {
        self.processes > 0 && self.devices != Devices::Cpu
    }
}

/// The processes that need devices.
#[derive(Debug)]
pub(super) struct Request {
    ranks: Group,
    /// One worker stands for any number unless the run file counts them.
    workers: Group,
    /// Whether the run file sets the number of workers.
    counts_workers: bool,
    colocate: Colocate,
    collective: CollectiveChoice,
}

/// The devices of the processes of a run.
#[derive(Debug)]
pub(super) struct Assignment {
    pub(super) ranks: Vec<Device>,
    pub(super) workers: Vec<Device>,
    pub(super) sharing: Sharing,
}

/// The way in which worker and ranks share a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sharing {
    /// Each process has a GPU of its own, or uses the CPU.
    None,
    /// Several processes may use one GPU.
    Gpu,
    /// One rank and one worker are one process.
    Process,
}

impl Request {
    /// The processes of a run. Without steps there are no ranks.
    pub(super) fn of_run(run: &RunFile) -> Self {
        let launch = &run.launch;
        let ranks = if run.run.steps > 0 { launch.learner_ranks } else { 0 };
        let workers = launch.workers.unwrap_or(1);
        Self {
            ranks: Group::new("launch.learner_device", "learner rank", &launch.learner_device, ranks),
            workers: Group::new("launch.rollout_device", "worker", &launch.rollout_device, workers),
            counts_workers: launch.workers.is_some(),
            colocate: launch.colocate,
            collective: run.network.collective,
        }
    }

    /// The process of a stage, which computes on the device of rank 0.
    pub(super) fn of_stage(run: &RunFile) -> Self {
        let mut request = Self::of_run(run);
        (request.ranks.processes, request.workers.processes) = (1, 0);
        request.counts_workers = true;
        if let Devices::Listed(listed) = &mut request.ranks.devices {
            listed.truncate(1);
        }
        request
    }

    pub(super) fn wants_gpus(&self) -> bool {
        self.ranks.wants_gpus() || self.workers.wants_gpus()
    }

    /// Returns the workers of a machine with this number of GPUs.
    fn workers(&self, gpus: usize) -> Group {
        let ranks = if self.ranks.wants_gpus() { self.ranks.processes } else { 0 };
        let processes = match &self.workers.devices {
            _ if self.counts_workers => self.workers.processes,
            Devices::Listed(listed) => listed.len(),
            Devices::Auto | Devices::Cuda if gpus > 0 => gpus.saturating_sub(ranks).max(1),
            Devices::Auto | Devices::Cuda | Devices::Cpu => CPU_WORKERS,
        };
        Group { processes, ..self.workers.clone() }
    }

    /// Returns the way in which processes share the devices of a machine with this number of GPUs.
    fn sharing(&self, workers: &Group, gpus: usize) -> Sharing {
        let is_pair = self.ranks.wants_gpus()
            && workers.wants_gpus()
            && (self.ranks.processes, workers.processes) == (1, 1);
        match self.colocate {
            Colocate::Process if self.ranks.processes > 0 => Sharing::Process,
            Colocate::Share => Sharing::Gpu,
            Colocate::Auto if gpus == 1 && is_pair => Sharing::Gpu,
            Colocate::Auto | Colocate::None | Colocate::Process => Sharing::None,
        }
    }
}

/// Returns the devices of ranks and workers. `machine`: `None` without a driver.
pub(super) fn assign(request: &Request, machine: Option<&Machine>) -> Result<Assignment, Error> {
    if let Some(machine) = machine.filter(|_| request.wants_gpus()) {
        check(machine)?;
    }
    let gpus = machine.map_or(0, |machine| machine.gpus.len());
    let group = request.workers(gpus);
    let sharing = request.sharing(&group, gpus);
    let shares = sharing != Sharing::None;
    let mut ranks = named(&request.ranks, machine, shares)?;
    // The worker of one process uses the device of its rank.
    let mut workers =
        if sharing == Sharing::Process { ranks.clone() } else { named(&group, machine, shares)? };
    let Some(machine) = machine else { return Ok(Assignment { ranks, workers, sharing }) };

    let mut users = vec![0; gpus];
    for device in ranks.iter().chain(&workers) {
        if let Device::Gpu(gpu) = device {
            users[*gpu] += 1;
        }
    }
    for device in ranks.iter_mut().chain(&mut workers).filter(|device| **device == Device::Missing) {
        let least = (0..users.len()).min_by_key(|gpu| users[*gpu]);
        if let Some(gpu) = least.filter(|gpu| shares || users[*gpu] == 0) {
            users[gpu] += 1;
            *device = Device::Gpu(gpu);
        }
    }
    if !shares && (users.iter().any(|count| *count > 1) || ranks.iter().chain(&workers).any(is_missing)) {
        return Err(too_few(request, machine, &ranks, &workers));
    }
    if sharing == Sharing::Process {
        workers.clone_from(&ranks);
    }
    if request.collective != CollectiveChoice::Tcp {
        require_own(&ranks)?;
    }
    Ok(Assignment { ranks, workers, sharing })
}

fn is_missing(device: &Device) -> bool {
    *device == Device::Missing
}

/// Requires a usable driver and, unless GPUs are hidden on purpose, a visible GPU.
fn check(machine: &Machine) -> Result<(), Error> {
    if !machine.gpus.is_empty() {
        return Ok(machine.require_cuda()?);
    }
    match &machine.selection {
        Some(selection) if machine.installed > 0 && !machine.is_hidden() => {
            Err(Error::Selection { selection: selection.clone(), installed: machine.installed })
        }
        _ => Ok(()),
    }
}

/// Returns the devices that the run file determines; [`Device::Missing`] stands for any GPU.
fn named(group: &Group, machine: Option<&Machine>, shares: bool) -> Result<Vec<Device>, Error> {
    let Group { key, kind, processes, .. } = *group;
    let count = machine.map_or(0, |machine| machine.gpus.len());
    match &group.devices {
        _ if processes == 0 => Ok(Vec::new()),
        Devices::Cpu => Ok(vec![Device::Cpu; processes]),
        Devices::Auto if count == 0 => Ok(vec![Device::Cpu; processes]),
        Devices::Cuda | Devices::Listed(_) if count == 0 => {
            Err(Error::NoGpu { key, value: group.value.clone(), found: nothing(machine) })
        }
        Devices::Cuda | Devices::Auto => Ok(vec![Device::Missing; processes]),
        Devices::Listed(listed) => {
            if let Some(&index) = listed.iter().find(|index| **index >= count) {
                return Err(Error::Index { key, index, count });
            }
            if listed.len() != processes && !shares {
                return Err(Error::Count { key, listed: listed.len(), processes, kind });
            }
            Ok(listed.iter().cycle().take(processes).map(|index| Device::Gpu(*index)).collect())
        }
    }
}

/// Describes a machine without a visible GPU.
fn nothing(machine: Option<&Machine>) -> String {
    match machine {
        None => "this machine has no NVIDIA driver".to_owned(),
        Some(machine) if machine.installed == 0 => {
            format!("the NVIDIA driver {} finds no GPU", machine.driver)
        }
        Some(machine) => format!("CUDA_VISIBLE_DEVICES hides all {} GPUs", machine.installed),
    }
}

fn too_few(request: &Request, machine: &Machine, ranks: &[Device], workers: &[Device]) -> Error {
    let on_gpus = |devices: &[Device]| devices.iter().filter(|device| **device != Device::Cpu).count();
    let (count, ranks_on_gpus) = (machine.gpus.len(), on_gpus(ranks));
    let needed = ranks_on_gpus + on_gpus(workers);
    let mut remedies = Vec::new();
    let headline = if needed > count {
        if count > ranks_on_gpus {
            remedies.push(format!("launch.workers = {}", count - ranks_on_gpus));
        } else if count > 1 {
            remedies.push(format!("launch.learner_ranks = {}", count - 1));
        } else if ranks_on_gpus == 1 && request.colocate == Colocate::Auto {
            remedies.push("launch.workers = 1, which shares the GPU with the learner rank".to_owned());
        }
        format!("{needed} processes require a GPU each, and {}", visible(count))
    } else {
        remedies.push("another device for each process".to_owned());
        "several processes use the same GPU".to_owned()
    };
    remedies.push("launch.rollout_device = \"cpu\"".to_owned());
    remedies.push("launch.colocate = \"share\" to let several processes use a GPU".to_owned());
    let remedy = format!("set {}", remedies.join(", or "));
    Error::TooFew { headline, rows: rows(machine, &processes(ranks, workers)), remedy }
}

/// Requires that no two ranks use the same GPU.
fn require_own(ranks: &[Device]) -> Result<(), Error> {
    for (second, device) in ranks.iter().enumerate() {
        let earlier = ranks[..second].iter().position(|other| other == device);
        if let (Some(first), Device::Gpu(gpu)) = (earlier, *device) {
            return Err(Error::Nccl { first, second, gpu });
        }
    }
    Ok(())
}

fn visible(count: usize) -> String {
    format!("{count} GPU{} visible", if count == 1 { " is" } else { "s are" })
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
