//! The devices of this machine with the processes that use them.

use std::fmt::{self, Display, Formatter};

use podium_config::RunFile;
use podium_service::gpus::{self, Machine};

use super::assign::{self, Assignment, Error, Request, Sharing};
use super::placement::Placement;
use super::rows::{Device, processes, rows};

/// Name of the process that is rank 0 and worker 1.
pub(crate) const ONE_PROCESS: &str = "learner-0+worker-1";

/// The device of every worker and learner rank.
#[derive(Debug)]
pub(crate) struct Table {
    machine: Option<Machine>,
    ranks: Vec<Device>,
    workers: Vec<Device>,
    sharing: Sharing,
}

impl Table {
    /// Assigns the devices of this machine to the processes of a run.
    pub(crate) fn of_run(run: &RunFile) -> Result<Self, Error> {
        Self::new(&Request::of_run(run), Machine::detect())
    }

    /// Assigns a device of this machine to a stage: one process, which is rank 0 of the table.
    pub(crate) fn of_stage(run: &RunFile) -> Result<Self, Error> {
        Self::new(&Request::of_stage(run), Machine::detect())
    }

    /// `machine`: `None` without a driver. Its error only matters if a process is to use a GPU.
    fn new(request: &Request, machine: Result<Option<Machine>, gpus::Error>) -> Result<Self, Error> {
        let machine = match machine {
            Err(_) if !request.wants_gpus() => None,
            machine => machine?,
        };
        let Assignment { ranks, workers, sharing } = assign::assign(request, machine.as_ref())?;
        Ok(Self { machine, ranks, workers, sharing })
    }

    /// The table of a machine with this number of GPUs.
    #[cfg(test)]
    pub(crate) fn with_gpus(run: &RunFile, count: u32) -> Self {
        let machine = (count > 0).then(|| tests::machine(count, podium_service::gpus::REQUIRED_CUDA));
        Self::new(&Request::of_run(run), Ok(machine)).expect("enough GPUs")
    }

    /// Returns the number of workers.
    pub(crate) fn workers(&self) -> u32 {
        self.workers.len() as u32
    }

    /// Returns the number of learner ranks.
    pub(crate) fn ranks(&self) -> u32 {
        self.ranks.len() as u32
    }

    /// Returns whether several processes may use one GPU.
    pub(crate) fn shares(&self) -> bool {
        self.sharing == Sharing::Gpu
    }

    /// Returns whether the only learner rank and the only worker are one process.
    pub(crate) fn is_one_process(&self) -> bool {
        self.sharing == Sharing::Process
    }

    /// Returns the device of a worker, numbered from 1.
    pub(crate) fn worker(&self, number: u32) -> Placement {
        self.placement(self.workers[number as usize - 1])
    }

    /// Returns the device of a learner rank, numbered from 0.
    pub(crate) fn rank(&self, rank: u32) -> Placement {
        self.placement(self.ranks[rank as usize])
    }

    fn processes(&self) -> Vec<(String, Device)> {
        if self.is_one_process() {
            return vec![(ONE_PROCESS.to_owned(), self.ranks[0])];
        }
        processes(&self.ranks, &self.workers)
    }

    fn placement(&self, device: Device) -> Placement {
        match (device, &self.machine) {
            (Device::Gpu(index), Some(machine)) => {
                let workers = if self.is_one_process() { &[] } else { &self.workers[..] };
                let all = self.ranks.iter().chain(workers);
                Placement::gpu(&machine.gpus[index], all.filter(|other| **other == device).count())
            }
            _ => Placement::cpu(),
        }
    }

    /// Whether the machine has visible GPUs, so that the table is worth printing.
    pub(crate) fn has_gpus(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| !machine.gpus.is_empty())
    }
}

impl Display for Table {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Some(machine) = &self.machine else { return formatter.write_str("devices: no GPU") };
        write!(formatter, "devices: driver {}, CUDA {}", machine.driver, machine.cuda)?;
        formatter.write_str(&rows(machine, &self.processes()))
    }
}

#[cfg(test)]
mod tests {
    use podium_service::environment::ALLOCATOR;
    use podium_service::gpus::{Cuda, DriverError, Gpu, REQUIRED_CUDA};

    use super::*;

    pub(super) fn machine(count: u32, cuda: Cuda) -> Machine {
        let gpus = (0..count).map(|index| Gpu {
            index: Some(index),
            uuid: format!("GPU-{index}"),
            name: "H100".into(),
            memory_bytes: Some(80 << 30),
        });
        let driver = "580.65.06".into();
        Machine { driver, cuda, installed: count as usize, selection: None, gpus: gpus.collect() }
    }

    fn request(settings: &[&str]) -> Request {
        let flags: Vec<_> = settings.iter().map(|setting| setting.parse().unwrap()).collect();
        Request::of_run(&RunFile::parse("", "test", &flags).unwrap())
    }

    fn table(settings: &[&str], machine: Option<Machine>) -> Result<Table, Error> {
        Table::new(&request(settings), Ok(machine))
    }

    /// Returns the devices of ranks and workers with `count` GPUs.
    fn devices(settings: &[&str], count: u32) -> (Vec<Device>, Vec<Device>) {
        let table = table(settings, Some(machine(count, REQUIRED_CUDA))).unwrap();
        (table.ranks, table.workers)
    }

    fn refusal(settings: &[&str], count: u32) -> String {
        table(settings, Some(machine(count, REQUIRED_CUDA))).unwrap_err().to_string()
    }

    fn gpus<const N: usize>(indices: [usize; N]) -> Vec<Device> {
        indices.map(Device::Gpu).to_vec()
    }

    const CPU: &[&str] = &["launch.rollout_device=cpu", "launch.learner_device=cpu"];
    const CUDA: &[&str] = &["launch.rollout_device=cuda", "launch.learner_device=cuda"];

    #[test]
    fn without_gpus_auto_is_the_cpu_and_cuda_an_error() {
        for machine in [None, Some(machine(0, REQUIRED_CUDA))] {
            let auto = table(&[], machine.clone()).unwrap();
            assert_eq!(
                (auto.ranks.as_slice(), auto.workers.as_slice()),
                (&[Device::Cpu][..], &[Device::Cpu; 2][..])
            );
            assert!(!auto.has_gpus());
            table(CPU, machine.clone()).unwrap();
            let error = table(CUDA, machine).unwrap_err().to_string();
            assert!(error.contains("launch.learner_device is \"cuda\""), "{error}");
        }
        let error = table(CUDA, None).unwrap_err().to_string();
        assert!(error.contains("no NVIDIA driver"), "{error}");
    }

    #[test]
    fn one_gpu_is_shared_by_one_worker_and_one_rank() {
        for settings in [&[][..], CUDA, &["launch.workers=1"], &["launch.rollout_device='cuda:0'"]] {
            let table = table(settings, Some(machine(1, REQUIRED_CUDA))).unwrap();
            assert_eq!((&table.ranks, &table.workers), (&gpus([0]), &gpus([0])), "{settings:?}");
            assert!(
                table.shares() && table.to_string().ends_with("learner-0, worker-1: 47 % of the memory each")
            );
        }
        let refused = refusal(&["launch.colocate=none"], 1);
        assert!(refused.contains("2 processes require a GPU each, and 1 GPU is visible"), "{refused}");
        assert!(!table(&["run.steps=0"], Some(machine(1, REQUIRED_CUDA))).unwrap().shares());
        assert_eq!(devices(&["launch.rollout_device=cpu"], 1), (gpus([0]), vec![Device::Cpu; 2]));
    }

    #[test]
    fn one_process_uses_one_gpu_without_a_share_of_its_memory() {
        let settings = ["launch.colocate=process", "lora.rank=4", "rollout.threads=2"];
        for count in [1, 4] {
            let table = table(&settings, Some(machine(count, REQUIRED_CUDA))).unwrap();
            assert_eq!((&table.ranks, &table.workers), (&gpus([0]), &gpus([0])));
            assert!(table.is_one_process() && !table.shares());
            let text = table.to_string();
            assert!(text.contains("80.0 GiB  learner-0+worker-1"), "{text}");
            assert!(!format!("{:?}", table.rank(0)).contains("memory_fraction"));
        }
        let named =
            [&settings[..], &["launch.rollout_device='cuda:2'", "launch.learner_device='cuda:2'"]].concat();
        assert_eq!(devices(&named, 4), (gpus([2]), gpus([2])));
        assert_eq!(devices(&[&settings[..], &["run.steps=0"]].concat(), 2), (vec![], gpus([0, 1])));
    }

    #[test]
    fn workers_use_the_gpus_that_the_ranks_leave() {
        assert_eq!(devices(&[], 2), (gpus([0]), gpus([1])));
        assert_eq!(devices(&[], 4), (gpus([0]), gpus([1, 2, 3])));
        assert_eq!(devices(&["launch.learner_ranks=4"], 8), (gpus([0, 1, 2, 3]), gpus([4, 5, 6, 7])));
        assert_eq!(devices(&["run.steps=0"], 4), (vec![], gpus([0, 1, 2, 3])));
        assert_eq!(devices(&["launch.learner_device=cpu"], 2), (vec![Device::Cpu], gpus([0, 1])));
        let error = refusal(&["launch.learner_ranks=2"], 2);
        assert!(
            error.contains("3 processes require a GPU each") && error.contains("launch.learner_ranks = 1"),
            "{error}"
        );
    }

    #[test]
    fn one_gpu_holds_one_process_unless_they_may_share() {
        let error = refusal(&["launch.workers=2"], 1);
        assert!(error.contains("3 processes require a GPU each, and 1 GPU is visible"), "{error}");
        assert!(error.contains("\n  cuda:0  GPU 0, H100, 80.0 GiB  learner-0"), "{error}");
        assert!(error.contains("\n  no GPU                         worker-1, worker-2"), "{error}");
        assert!(error.contains("set launch.workers = 1, which shares the GPU"), "{error}");
        assert!(error.contains("launch.colocate = \"share\""), "{error}");
        assert_eq!(devices(&["launch.colocate=share", "launch.workers=2"], 1), (gpus([0]), gpus([0, 0])));
        assert_eq!(devices(&["run.steps=0", "launch.workers=1"], 1), (vec![], gpus([0])));
    }

    #[test]
    fn processes_on_one_gpu_have_a_share_of_its_memory() {
        let allocator = |settings: &[&str]| {
            let table = table(settings, Some(machine(1, REQUIRED_CUDA))).unwrap();
            let rank = table.rank(0).environment.into_iter();
            let value = rank.filter(|(name, _)| *name == ALLOCATOR).map(|(_, value)| value).next();
            (value, table.to_string())
        };
        let (value, text) = allocator(&["launch.colocate=share", "launch.workers=2"]);
        assert_eq!(value.as_deref(), Some("expandable_segments:True,per_process_memory_fraction:0.31"));
        assert!(text.ends_with("learner-0, worker-1, worker-2: 31 % of the memory each"), "{text}");
        let (value, text) = allocator(&["launch.rollout_device=cpu"]);
        assert_eq!(value.as_deref(), Some("expandable_segments:True"));
        assert!(!text.contains("of the memory"), "{text}");
    }

    #[test]
    fn two_gpus_hold_a_rank_and_a_worker() {
        assert_eq!(devices(&["launch.workers=1"], 2), (gpus([0]), gpus([1])));
        assert_eq!(devices(&[CUDA, &["launch.workers=1"]].concat(), 2), (gpus([0]), gpus([1])));
        let error = refusal(&["launch.workers=2"], 2);
        assert!(error.contains("launch.workers = 1"), "{error}");
        assert_eq!(devices(&["launch.colocate=share", "launch.workers=3"], 2), (gpus([0]), gpus([1, 0, 1])));
    }

    #[test]
    fn eight_gpus_are_given_to_ranks_first() {
        let settings = ["launch.learner_ranks=2", "launch.workers=5"];
        assert_eq!(devices(&settings, 8), (gpus([0, 1]), gpus([2, 3, 4, 5, 6])));
        let text = table(&settings, Some(machine(8, REQUIRED_CUDA))).unwrap().to_string();
        assert!(text.starts_with("devices: driver 580.65.06, CUDA 13.0\n  cuda:0  GPU 0, H100"), "{text}");
        assert!(
            text.contains("learner-1\n") && text.ends_with("cuda:7  GPU 7, H100, 80.0 GiB  not used"),
            "{text}"
        );
    }

    #[test]
    fn named_devices_are_used_and_the_others_given_to_the_rest() {
        assert_eq!(
            devices(&["launch.learner_device='cuda:3'", "launch.workers=4"], 8),
            (gpus([3]), gpus([0, 1, 2, 4]))
        );
        assert_eq!(devices(&["launch.rollout_device='cuda:0,cuda:2'"], 4), (gpus([1]), gpus([0, 2])));
        assert_eq!(devices(&["launch.rollout_device='cuda:1'"], 4), (gpus([0]), gpus([1])));
        let error = refusal(&["launch.rollout_device='cuda:1'", "launch.workers=2"], 4);
        assert!(
            error.contains("launch.rollout_device lists 1 GPU for 2 workers: expected one for each"),
            "{error}"
        );
        let error = refusal(&["launch.rollout_device='cuda:1,cuda:4'"], 4);
        assert!(error.contains("launch.rollout_device names cuda:4, and 4 GPUs are visible"), "{error}");
        let error = refusal(&["launch.rollout_device='cuda:1,cuda:1'"], 4);
        assert!(error.contains("worker-1, worker-2") && error.contains("launch.colocate"), "{error}");
        let shared = ["launch.colocate=share", "launch.rollout_device='cuda:1'", "launch.workers=2"];
        assert_eq!(devices(&shared, 4), (gpus([0]), gpus([1, 1])));
    }

    #[test]
    fn ranks_on_one_gpu_cannot_use_nccl() {
        let shared = ["launch.colocate=share", "launch.learner_ranks=2"];
        let error = refusal(&shared, 1);
        assert!(error.contains("learner ranks 0 and 1 use cuda:0"), "{error}");
        assert!(error.contains("network.collective = \"tcp\""), "{error}");
        let tcp = [&shared[..], &["network.collective=tcp"]].concat();
        assert_eq!(devices(&tcp, 1), (gpus([0, 0]), gpus([0])));
    }

    #[test]
    fn an_old_driver_is_an_error_unless_everything_uses_the_cpu() {
        let old = || Some(machine(8, Cuda { major: 12, minor: 8 }));
        for settings in [&[][..], CUDA, &["launch.learner_device=cpu"]] {
            let error = table(settings, old()).unwrap_err().to_string();
            assert!(error.contains("CUDA up to 12.8: expected CUDA 13.0"), "{error}");
        }
        table(CPU, old()).unwrap();
    }

    #[test]
    fn an_invalid_selection_is_an_error_and_an_empty_one_is_not() {
        let selected = |text: &str| {
            let hidden =
                Machine { selection: Some(text.into()), gpus: Vec::new(), ..machine(2, REQUIRED_CUDA) };
            table(&[], Some(hidden))
        };
        assert_eq!(selected("").unwrap().ranks, [Device::Cpu]);
        let error = selected("7").unwrap_err().to_string();
        assert!(error.contains("CUDA_VISIBLE_DEVICES is \"7\"") && error.contains("2 GPUs"), "{error}");
    }

    #[test]
    fn a_broken_driver_matters_only_to_gpus() {
        let broken = || Err(gpus::Error::Query { what: "its version".into(), source: DriverError::Unknown });
        Table::new(&request(CPU), broken()).unwrap();
        let error = Table::new(&request(&[]), broken()).unwrap_err().to_string();
        assert!(error.contains("does not report its version"), "{error}");
    }

    #[test]
    fn a_stage_uses_the_first_gpu_of_the_ranks() {
        let stage = |settings: &[&str], count| {
            let flags: Vec<_> = settings.iter().map(|setting| setting.parse().unwrap()).collect();
            let request = Request::of_stage(&RunFile::parse("", "test", &flags).unwrap());
            Table::new(&request, Ok(Some(machine(count, REQUIRED_CUDA)))).unwrap().ranks
        };
        assert_eq!(stage(&["launch.workers=7"], 1), gpus([0]));
        assert_eq!(stage(&["launch.learner_ranks=2", "launch.learner_device='cuda:3,cuda:2'"], 4), gpus([3]));
        assert_eq!(stage(&["run.steps=0", "launch.learner_device=cpu"], 1), [Device::Cpu]);
    }

    #[test]
    fn a_process_sees_its_own_gpu_alone() {
        let table = table(&["launch.workers=1"], Some(machine(2, REQUIRED_CUDA))).unwrap();
        assert_eq!((table.rank(0).device, table.worker(1).device), ("cuda", "cuda"));
        let visible = |placement: Placement| placement.environment[0].clone();
        assert_eq!(visible(table.rank(0)), ("CUDA_VISIBLE_DEVICES", "GPU-0".to_owned()));
        assert_eq!(visible(table.worker(1)), ("CUDA_VISIBLE_DEVICES", "GPU-1".to_owned()));
    }
}
