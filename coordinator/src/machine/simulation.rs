//! A whole run in one thread and on a simulated clock: workers that crash, ranks that restart, a coordinator that
//! forgets everything but its store, calls whose request or answer is lost, repeated late or out of order, results that
//! dynamic sampling does not keep, results that no rank can train on, and leases that take as long as their completions.

mod content;
mod ranks;
mod runs;

use podium_grpo::rng::Stream;
use podium_proto::convert::Slot;

use super::*;
use content::{Content, Disk, content, prompt};

const MOST_TURNS: u32 = 200_000;
const CHECKPOINT_EVERY: u64 = 2;

fn plan() -> Plan {
    Plan {
        steps: 7,
        prompts_per_step: 7,
        prompts_per_lease: 3,
        refill_attempts: 2,
        max_policy_lag: 0,
        evaluate_every_steps: 3,
        evaluation_prompts: 5,
        evaluation_prompts_per_lease: 2,
        evaluations_may_end: false,
        lease_deadline: Millis(1_000),
    }
}

#[derive(Clone)]
struct Results {
    worker: Uuid,
    lease: Lease,
}

#[derive(Default)]
struct Rank {
    id: Uuid,
    checkpoints: Vec<u64>,
    /// Generation joined and the step that comes next in it; none before joining.
    in_world: Option<(u64, u64)>,
    has_batch: bool,
    /// Trained, and to be published and committed.
    finishing: Option<u64>,
}

struct Worker {
    id: Uuid,
    lease: Option<Lease>,
    /// When its lease is sampled.
    busy_until: u64,
    /// Time that it takes for a token.
    pace: u64,
}

struct Simulation {
    plan: Plan,
    /// The evaluation that ends the run, if one does.
    ends: Option<PolicyVersion>,
    /// Evaluations that are answered and not closed.
    answered: BTreeSet<PolicyVersion>,
    chance: Stream,
    /// Of so many results one is unusable; 0: none is.
    unusable_one_in: u64,
    set_aside: u32,
    restarts: u64,
    now: u64,
    disk: Disk,
    machine: Machine,
    workers: Vec<Worker>,
    ranks: Vec<Rank>,
    late: Vec<Results>,
    /// What was trained, by step; a step trained again has to be the same.
    trained: BTreeMap<u64, Vec<Content>>,
    commits: Vec<u64>,
    processes: u128,
}

impl Simulation {
    fn new(plan: Plan, seed: u64, workers: u64, ranks: usize) -> Self {
        let mut simulation = Self {
            machine: Machine::restore(plan.clone(), Recovered::default()),
            plan,
            ends: None,
            answered: BTreeSet::new(),
            chance: Stream::new(seed, "simulation", &[]),
            unusable_one_in: 0,
            set_aside: 0,
            restarts: 0,
            now: 0,
            disk: Disk::default(),
            workers: Vec::new(),
            ranks: Vec::new(),
            late: Vec::new(),
            trained: BTreeMap::new(),
            commits: Vec::new(),
            processes: 0,
        };
        for pace in 1..=workers {
            let id = simulation.process();
            simulation.workers.push(Worker { id, lease: None, busy_until: 0, pace });
        }
        for _ in 0..ranks {
            let id = simulation.process();
            simulation.ranks.push(Rank { id, checkpoints: vec![0], ..Rank::default() });
        }
        simulation
    }

    fn process(&mut self) -> Uuid {
        self.processes += 1;
        Uuid::from_u128(self.processes)
    }

    fn happens(&mut self, one_in: u64) -> bool {
        self.chance.below(one_in) == 0
    }

    /// One call: `None` if the request or the answer is lost.
    fn call(&mut self, event: Event) -> Option<Action> {
        if self.happens(12) {
            return None;
        }
        let answer = self.event(event);
        if self.happens(12) { None } else { answer }
    }

    fn event(&mut self, event: Event) -> Option<Action> {
        let actions = self.machine.step(Millis(self.now), event);
        for action in &actions {
            match action {
                Action::KeepWorld => self.disk.recovered.world = self.machine.world().clone(),
                Action::EvaluationComplete(version) => drop(self.answered.insert(*version)),
                Action::DropGroups { before } => {
                    self.disk.recovered.kept_from = before.0;
                    let gone = |work: Work| matches!(work, Work::Training(step) if step < *before);
                    self.disk.contents.retain(|(work, _), _| !gone(*work));
                }
                _ => {}
            }
        }
        actions.into_iter().next()
    }

    fn coordinator_restarts(&mut self) {
        let mut recovered = self.disk.recovered.clone();
        recovered.filled = self.disk.contents.values().map(Content::filled).collect();
        // As a file would bring it back.
        recovered.world = serde_json::from_str(&serde_json::to_string(&recovered.world).unwrap()).unwrap();
        let step = self.disk.recovered.committed;
        recovered.reopened = self.disk.reopened.range((step, 0)..(step + 1, 0)).map(|slot| slot.1).collect();
        self.machine = Machine::restore(self.plan.clone(), recovered);
        self.restarts += 1;
        self.machine.leases.number_from(self.restarts * 1_000_000);
        self.answered.clear();
    }

    /// Closes the evaluation whose turn it is, as the actor does between other things.
    fn close_evaluation(&mut self) {
        let Some(version) = self.machine.to_judge().filter(|version| self.answered.remove(version)) else {
            return;
        };
        let reason = "nothing gets better".to_owned();
        let end = self.ends.filter(|ends| *ends == version).map(|_| reason.clone());
        self.disk.recovered.evaluated.push(version);
        if end.is_some() {
            self.disk.recovered.ended_by = Some((version, reason));
        }
        // Not if the coordinator dies in between: it is restored with what the disk says.
        if self.happens(4) {
            self.coordinator_restarts();
        } else {
            self.event(Event::EvaluationJudged { version, end });
        }
    }

    fn submit(&mut self, results: Results) {
        let Results { worker, lease } = results;
        let wanted = |slot: &&Slot| {
            self.machine.verdict_under(**slot, lease.version, Some(lease.id)) == Verdict::Wanted
        };
        let wanted: Vec<Slot> = lease.slots.iter().filter(wanted).copied().collect();
        let mut filled = Vec::new();
        for &slot in &wanted {
            let (work, index, attempt) = Work::of(slot);
            let mut content = content(&lease, slot);
            let may_be_unusable = self.unusable_one_in > 0 && matches!(work, Work::Training(_));
            if may_be_unusable && self.happens(self.unusable_one_in) {
                content = Content { bits: 0, unusable: true, ..content };
            }
            filled.push(content.filled());
            let before = self.disk.contents.insert((work, index), content);
            let replaced = before.map(|before| before.slot);
            let expected = attempt.checked_sub(1).map(|attempt| work.slot(index, attempt));
            assert_eq!(replaced, expected, "{slot:?} was filled twice, or out of turn");
            assert!(replaced.is_none_or(|slot| prompt(slot).1), "{replaced:?} was to be kept");
        }
        self.event(Event::Scored { worker, lease: Some(lease.id), filled });
    }

    fn worker_turn(&mut self, which: usize) {
        let Worker { id, ref lease, busy_until, pace } = self.workers[which];
        let lease = lease.clone();
        if self.happens(25) {
            // SIGKILL; another process takes its place.
            let id = self.process();
            self.workers[which] = Worker { id, lease: None, busy_until: 0, pace };
            return;
        }
        let Some(lease) = lease else {
            match self.call(Event::LeaseWanted { worker: id }) {
                Some(Action::Grant(lease)) => {
                    let tokens: u64 = lease.slots.iter().map(|&slot| prompt(slot).0).sum();
                    self.workers[which].busy_until = self.now + tokens * pace;
                    self.workers[which].lease = Some(lease);
                }
                Some(Action::Refuse(_)) => drop(self.call(Event::WorkerRegistered { worker: id })),
                _ => {}
            }
            return;
        };
        if self.now < busy_until || self.happens(3) {
            let beat = Event::Heartbeat { worker: id, leases: vec![lease.id] };
            self.call(beat);
            return;
        }
        let results = Results { worker: id, lease };
        if self.happens(4) {
            self.late.push(results.clone());
        }
        if !self.happens(6) {
            self.submit(results);
        }
        self.workers[which].lease = None;
    }

    /// Runs to the end: what was trained, by step, and every answer to a held-out prompt.
    fn run(self) -> (BTreeMap<u64, Vec<Content>>, Vec<Content>) {
        let (trained, answers, _) = self.run_counting();
        (trained, answers)
    }

    /// The same, and how many groups were set aside.
    fn run_counting(mut self) -> (BTreeMap<u64, Vec<Content>>, Vec<Content>, u32) {
        for _ in 0..MOST_TURNS {
            if self.machine.is_complete() {
                let steps: Vec<u64> = (0..self.machine.last_version().0).collect();
                assert_eq!(self.commits, steps, "every step is committed once, in order");
                let answers = self.disk.contents.into_values();
                let answers = answers.filter(|content| matches!(content.slot, Slot::Evaluation { .. }));
                return (self.trained, answers.collect(), self.set_aside);
            }
            self.now += self.chance.below(40);
            match self.chance.below(40) {
                0 => self.coordinator_restarts(),
                15 => self.close_evaluation(),
                1..=4 if !self.late.is_empty() => {
                    let which = self.chance.below(self.late.len() as u64) as usize;
                    let results = self.late.swap_remove(which);
                    self.submit(results);
                }
                5..=14 => {
                    let which = self.chance.below(self.ranks.len() as u64) as usize;
                    self.rank_turn(which);
                }
                _ => {
                    let which = self.chance.below(self.workers.len() as u64) as usize;
                    self.worker_turn(which);
                }
            }
        }
        panic!("the run is stuck at step {} in {:?}", self.machine.committed().0, self.machine.phase());
    }
}
