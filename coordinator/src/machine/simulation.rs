//! Simulates a whole run in one thread with a simulated clock.
//!
//! Workers crash, ranks restart, and the coordinator crashes between any two writes and transitions. Writes
//! fail. Requests and replies are lost, and calls are repeated late or out of order. Dynamic sampling
//! replaces results, and no rank can train on some results. Leases take as long as their completions. Closes
//! of steps and evaluations take long.
//!
//! The coordinator is the [`Sequencer`] that the actor drives, over a simulated disk.

mod closing;
mod content;
mod disk;
mod ranks;
mod runs;

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use podium_grpo::rng::Stream;
use podium_proto::convert::Slot;

use super::blocks::AttemptState;
use super::sequencer::{Sequencer, Submission};
use super::*;
use crate::results::{Results, SampledBy};
use closing::Closing;
use content::{Content, content, prompt};
use disk::{Disk, Fault};

const MAX_TURNS: u32 = 200_000;
const CHECKPOINT_EVERY: u64 = 2;

fn schedule() -> Schedule {
    Schedule {
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

/// Results that a worker submits.
#[derive(Clone)]
struct Sampled {
    worker: Uuid,
    lease: Lease,
}

#[derive(Default)]
struct Rank {
    id: Uuid,
    checkpoints: Vec<u64>,
    /// The rendezvous epoch that it joined and the next step in it; none before joining.
    joined: Option<(u64, u64)>,
    has_batch: bool,
    /// The trained step that it has yet to publish and commit.
    finishing: Option<u64>,
}

struct Worker {
    id: Uuid,
    lease: Option<Lease>,
    /// Time at which its lease is sampled.
    busy_until: u64,
    /// Time per token.
    time_per_token: u64,
}

struct Simulation {
    schedule: Schedule,
    /// The evaluation that ends the run, if any.
    ends: Option<PolicyVersion>,
    chance: Stream,
    /// One in this many results is unusable; 0: none.
    unusable_one_in: u64,
    set_aside: u32,
    restarts: u64,
    now: u64,
    run: Sequencer<Disk>,
    closing: Closing,
    workers: Vec<Worker>,
    ranks: Vec<Rank>,
    late: Vec<Sampled>,
    /// Trained contents by step; a repeated step must have the same content.
    trained: BTreeMap<u64, Vec<Content>>,
    processes: u128,
}

/// Returns the output of a future that does not wait.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the simulated disk replies at once"),
    }
}

impl Simulation {
    fn new(schedule: Schedule, seed: u64, workers: u64, ranks: usize) -> Self {
        let machine = Machine::restore(schedule.clone(), Recovered::default());
        let mut simulation = Self {
            schedule,
            ends: None,
            chance: Stream::new(seed, "simulation", &[]),
            unusable_one_in: 0,
            set_aside: 0,
            restarts: 0,
            now: 0,
            run: Sequencer::new(machine, Disk::new(seed)),
            closing: Closing::default(),
            workers: Vec::new(),
            ranks: Vec::new(),
            late: Vec::new(),
            trained: BTreeMap::new(),
            processes: 0,
        };
        for time_per_token in 1..=workers {
            let id = simulation.process();
            simulation.workers.push(Worker { id, lease: None, busy_until: 0, time_per_token });
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

    /// Makes a call that reaches the coordinator; `None` if a write fails or the coordinator crashes before
    /// it replies.
    fn ask<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Sequencer<Disk>, Millis) -> Result<T, Fault>,
    ) -> Option<Result<T, Error>> {
        let reply = ready(call(&mut self.run, Millis(self.now)));
        let (_, failures) = self.run.take_effects();
        let has_failed = !failures.is_empty() || matches!(reply, Err(Fault::Failed));
        if has_failed || self.happens(16) {
            self.assert_durable();
        }
        if self.run.storage().has_crashed() {
            self.coordinator_restarts();
            return None;
        }
        match reply {
            Ok(reply) => Some(Ok(reply)),
            Err(Fault::Refused(error)) => Some(Err(error)),
            Err(Fault::Failed) => None,
        }
    }

    /// Makes a call over a network that loses requests and replies.
    fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut Sequencer<Disk>, Millis) -> Result<T, Fault>,
    ) -> Option<Result<T, Error>> {
        if self.happens(12) {
            return None;
        }
        let reply = self.ask(call);
        if self.happens(12) { None } else { reply }
    }

    /// Checks that the machine's state is durable: a restart finds the same state on disk.
    fn assert_durable(&mut self) {
        let restored = Machine::restore(self.schedule.clone(), self.run.storage().recover());
        let machine = self.run.machine();
        assert!(machine.committed <= restored.committed, "a step is committed that is not stored");
        assert!(machine.latest <= restored.latest, "a version is published that is not stored");
        let to_close = |machine: &Machine| machine.next_evaluation.map_or(u64::MAX, |version| version.0);
        assert!(to_close(machine) <= to_close(&restored), "an evaluation is closed that is not stored");
        for version in &machine.evaluated {
            let is_answered = restored.open.get(&Work::Evaluation(*version)).is_some_and(Blocks::is_full);
            assert!(
                is_answered || restored.evaluated.contains(version),
                "answers to {version} are not stored"
            );
        }
        for (&work, blocks) in &machine.open {
            let is_done = matches!(work, Work::Training(step) if step < restored.committed);
            let Some(stored) = restored.open.get(&work).filter(|_| !is_done) else { continue };
            for (index, attempt) in (0..blocks.len()).flat_map(|index| [(index, 0), (index, 1), (index, 2)]) {
                let is_filled =
                    |blocks: &Blocks| blocks.attempt_state(index, attempt) == AttemptState::Filled;
                // A crash may occur after the results of a slot are removed and before the machine is
                // notified.
                let is_reopened = restored.was_reopened(work, blocks.block_of(index));
                let slot = work.slot(index, attempt);
                assert!(!is_filled(blocks) || is_filled(stored) || is_reopened, "{slot} is not stored");
            }
        }
    }

    fn coordinator_restarts(&mut self) {
        let disk = self.run.storage().restarted();
        let mut machine = Machine::restore(self.schedule.clone(), disk.recover());
        self.restarts += 1;
        machine.leases.number_from(self.restarts * 1_000_000);
        self.run = Sequencer::new(machine, disk);
        self.closing = Closing::default();
    }

    /// Submits results, sometimes together with late ones.
    fn submit(&mut self, sampled: Sampled) {
        let mut submissions = vec![self.submission(sampled)];
        while !self.late.is_empty() && self.happens(3) {
            let late = self.take_late();
            submissions.push(self.submission(late));
        }
        self.ask(async |run, now| run.submit(now, submissions).await);
    }

    fn take_late(&mut self) -> Sampled {
        let which = self.chance.below(self.late.len() as u64) as usize;
        self.late.swap_remove(which)
    }

    fn submission(&mut self, sampled: Sampled) -> Submission {
        let Sampled { worker, lease } = sampled;
        let mut results = Results::default();
        for &slot in &lease.slots {
            let mut content = content(&lease, slot);
            let may_be_unusable = self.unusable_one_in > 0 && matches!(slot, Slot::Training(_));
            if may_be_unusable && self.happens(self.unusable_one_in) {
                content = Content { bits: 0, unusable: true, ..content };
            }
            match slot {
                Slot::Training(_) => results.groups.push(content.group()),
                Slot::Evaluation { version, index } => {
                    results.answers.push((version, index, content.answer()));
                }
            }
        }
        let (version, id) = (lease.version, Some(lease.id));
        let worker = SampledBy { worker, name: String::new() };
        Submission { worker, lease: id, version, is_current: true, results }
    }

    fn worker_turn(&mut self, which: usize) {
        let Worker { id, ref lease, busy_until, time_per_token } = self.workers[which];
        let lease = lease.clone();
        if self.happens(25) {
            // SIGKILL: another process replaces it.
            let id = self.process();
            self.workers[which] = Worker { id, lease: None, busy_until: 0, time_per_token };
            return;
        }
        let Some(lease) = lease else {
            let request = async |run: &mut Sequencer<Disk>, now| {
                Ok(run.apply(|machine| machine.request_lease(now, id)).await?)
            };
            match self.call(request) {
                Some(Ok(LeaseReply::Granted(lease))) => {
                    let tokens: u64 = lease.slots.iter().map(|&slot| prompt(slot).0).sum();
                    self.workers[which].busy_until = self.now + tokens * time_per_token;
                    self.workers[which].lease = Some(lease);
                }
                Some(Err(_)) => {
                    self.call(async |run, now| {
                        run.apply(|machine| machine.register_worker(now, id)).await;
                        Ok(())
                    });
                }
                _ => {}
            }
            return;
        };
        if self.now < busy_until || self.happens(3) {
            self.call(async |run, now| {
                Ok(run.apply(|machine| machine.heartbeat(now, id, &[lease.id])).await?)
            });
            return;
        }
        let sampled = Sampled { worker: id, lease };
        if self.happens(4) {
            self.late.push(sampled.clone());
        }
        if !self.happens(6) {
            self.submit(sampled);
        }
        self.workers[which].lease = None;
    }

    /// Runs to the end. Returns the trained contents by step, and all answers to held-out prompts.
    fn run(self) -> (BTreeMap<u64, Vec<Content>>, Vec<Content>) {
        let (trained, answers, _) = self.run_counting();
        (trained, answers)
    }

    /// Like [`Self::run`], and also returns the number of groups that were set aside.
    fn run_counting(mut self) -> (BTreeMap<u64, Vec<Content>>, Vec<Content>, u32) {
        for _ in 0..MAX_TURNS {
            if self.run.machine().is_complete() {
                let steps: Vec<u64> = (0..self.run.machine().last_version().0).collect();
                let disk = self.run.storage();
                assert_eq!(disk.commits(), steps, "every step is committed once, in order");
                return (self.trained, disk.answers(), self.set_aside);
            }
            self.now += self.chance.below(40);
            match self.chance.below(40) {
                0 => self.coordinator_restarts(),
                15..=17 => self.closing_turn(),
                1..=4 if !self.late.is_empty() => {
                    let results = self.take_late();
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
        let machine = self.run.machine();
        panic!("the run is stuck at step {} in {:?}", machine.committed().0, machine.phase());
    }
}
