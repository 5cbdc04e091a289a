//! A whole run in one thread and on a simulated clock: workers that crash, ranks that restart, a coordinator that
//! forgets everything but its store, calls whose request or answer is lost, repeated late or out of order.

use std::ops::Range;

use podium_grpo::rng::Stream;

use super::*;

const MOST_TURNS: u32 = 200_000;
const CHECKPOINT_EVERY: u64 = 2;

fn plan() -> Plan {
    Plan {
        steps: 7,
        prompts_per_step: 7,
        prompts_per_lease: 3,
        evaluate_every_steps: 3,
        evaluation_prompts: 5,
        evaluation_prompts_per_lease: 2,
        lease_deadline: Millis(1_000),
    }
}

/// What the coordinator's store holds.
#[derive(Default)]
struct Disk {
    recovered: Recovered,
    contents: BTreeMap<Slot, u64>,
}

/// What a worker computes for a slot: it depends on the whole batch that the lease names.
fn content(work: Work, indices: &Range<u32>, index: u32) -> u64 {
    let kind = u64::from(matches!(work, Work::Training(_)));
    let key = [kind, work.version().0, indices.start.into(), indices.end.into(), index.into()];
    Stream::new(1, "content", &key).next_u64()
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

struct Simulation {
    chance: Stream,
    now: u64,
    disk: Disk,
    machine: Machine,
    workers: Vec<(Uuid, Option<Lease>)>,
    ranks: Vec<Rank>,
    late: Vec<Results>,
    /// What was trained, by step; a step trained again has to be the same.
    trained: BTreeMap<u64, Vec<u64>>,
    commits: Vec<u64>,
    processes: u128,
}

impl Simulation {
    fn new(seed: u64, workers: usize, ranks: usize) -> Self {
        let mut simulation = Self {
            chance: Stream::new(seed, "simulation", &[]),
            now: 0,
            disk: Disk::default(),
            machine: Machine::restore(plan(), Recovered::default()),
            workers: Vec::new(),
            ranks: Vec::new(),
            late: Vec::new(),
            trained: BTreeMap::new(),
            commits: Vec::new(),
            processes: 0,
        };
        for _ in 0..workers {
            let id = simulation.process();
            simulation.workers.push((id, None));
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
                Action::EvaluationComplete(version) => self.disk.recovered.evaluated.push(*version),
                Action::DropGroups { before } => {
                    self.disk.recovered.kept_from = before.0;
                    let gone =
                        |slot: &Slot| matches!(Work::of(*slot).0, Work::Training(step) if step < *before);
                    self.disk.contents.retain(|slot, _| !gone(slot));
                }
                _ => {}
            }
        }
        actions.into_iter().next()
    }

    fn coordinator_restarts(&mut self) {
        let mut recovered = self.disk.recovered.clone();
        recovered.filled = self.disk.contents.keys().copied().collect();
        // As a file would bring it back.
        recovered.world = serde_json::from_str(&serde_json::to_string(&recovered.world).unwrap()).unwrap();
        self.machine = Machine::restore(plan(), recovered);
    }

    fn submit(&mut self, results: Results) {
        let Results { worker, lease } = results;
        let wanted: Vec<u32> = lease
            .indices
            .clone()
            .filter(|&i| self.machine.verdict(lease.work.slot(i), lease.work.version()) == Verdict::Wanted)
            .collect();
        let mut slots = Vec::new();
        for index in wanted {
            let slot = lease.work.slot(index);
            let before = self.disk.contents.insert(slot, content(lease.work, &lease.indices, index));
            assert_eq!(before, None, "{slot:?} was filled twice");
            slots.push(slot);
        }
        self.event(Event::Scored { worker, lease: Some(lease.id), slots });
    }

    fn worker_turn(&mut self, which: usize) {
        let (id, lease) = self.workers[which].clone();
        if self.happens(25) {
            // SIGKILL; another process takes its place.
            self.workers[which] = (self.process(), None);
            return;
        }
        let Some(lease) = lease else {
            match self.call(Event::LeaseWanted { worker: id }) {
                Some(Action::Grant(lease)) => self.workers[which].1 = Some(lease),
                Some(Action::Refuse(_)) => drop(self.call(Event::WorkerRegistered { worker: id })),
                _ => {}
            }
            return;
        };
        if self.happens(3) {
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
        self.workers[which].1 = None;
    }

    fn rank_turn(&mut self, which: usize) {
        if self.happens(30) {
            let id = self.process();
            let checkpoints = std::mem::take(&mut self.ranks[which].checkpoints);
            self.ranks[which] = Rank { id, checkpoints, ..Rank::default() };
            return;
        }
        if let Some(step) = self.ranks[which].finishing {
            self.finish(which, step);
            return;
        }
        let learner = self.ranks[which].id;
        let Some((generation, next)) = self.ranks[which].in_world else {
            self.join(which);
            return;
        };
        let batch = Event::BatchWanted { rank: which as u32, learner, step: Step(next) };
        if !self.ranks[which].has_batch {
            if let Some(missed) = self.machine.missed_commit(which as u32, learner, Step(next)) {
                self.commit(missed.0);
            }
            match self.call(batch) {
                Some(Action::ServeBatch) => self.ranks[which].has_batch = true,
                Some(Action::Rejoin) => self.ranks[which].in_world = None,
                Some(Action::Refuse(error)) => panic!("rank {which} was refused: {error}"),
                _ => {}
            }
            return;
        }
        // The collective: all ranks of the generation have their shares, or one is missing.
        if self.ranks.iter().any(|rank| rank.in_world.is_none_or(|(other, _)| other != generation)) {
            self.ranks[which] = Rank {
                id: learner,
                checkpoints: std::mem::take(&mut self.ranks[which].checkpoints),
                ..Rank::default()
            };
        } else if self.ranks.iter().all(|rank| rank.has_batch && rank.in_world == Some((generation, next))) {
            let groups = 0..plan().prompts_per_step;
            let slot = |index| Work::Training(Step(next)).slot(index);
            let batch: Vec<u64> = groups.map(|index| self.disk.contents[&slot(index)]).collect();
            assert_eq!(self.trained.entry(next).or_insert_with(|| batch.clone()), &batch);
            for rank in &mut self.ranks {
                rank.has_batch = false;
                rank.finishing = Some(next);
            }
        }
    }

    fn join(&mut self, which: usize) {
        let Rank { id: learner, checkpoints, .. } = &self.ranks[which];
        let (learner, next_step) = (*learner, checkpoints[checkpoints.len() - 1]);
        let world_size = self.ranks.len() as u32;
        let address = if which == 0 { learner.to_string() } else { String::new() };
        let join = Join { learner, rank: which as u32, world_size, address, next_step };
        if let Some(Action::Standing(Standing { complete: true, generation, .. })) =
            self.call(Event::RankJoined(join))
        {
            let newest = |rank: &Rank| rank.checkpoints[rank.checkpoints.len() - 1];
            // The ranks agree through the collective; those that have the generation already said where they start.
            let agreed = self.ranks.iter().filter_map(|rank| rank.in_world).find(|(g, _)| *g == generation);
            let start =
                agreed.map_or_else(|| self.ranks.iter().map(newest).min().unwrap(), |(_, start)| start);
            self.ranks[which].in_world = Some((generation, start));
        }
    }

    fn finish(&mut self, which: usize, step: u64) {
        if which == 0 {
            let version = Step(step).produces();
            if self.machine.check_publish(version).is_err() || self.happens(10) {
                return;
            }
            self.disk.recovered.latest = self.disk.recovered.latest.max(version.0);
            self.event(Event::VersionPublished { version });
        }
        let checkpoint = (step + 1).is_multiple_of(CHECKPOINT_EVERY) || step + 1 == plan().steps;
        let rank = &mut self.ranks[which];
        if checkpoint && rank.checkpoints.last() != Some(&(step + 1)) {
            rank.checkpoints.retain(|&kept| kept < step + 1);
            rank.checkpoints.push(step + 1);
            let older = rank.checkpoints.len().saturating_sub(2);
            rank.checkpoints.drain(..older);
        }
        if self.happens(8) {
            // Died between checkpoint and commit, or the request was lost.
            return;
        }
        match self.machine.check_commit(self.ranks[which].id, Step(step)) {
            Ok((_, fresh)) => {
                if fresh {
                    self.commit(step);
                }
                if checkpoint {
                    let kept = self.disk.recovered.checkpoints.entry(which as u32).or_insert(Step(0));
                    *kept = (*kept).max(Step(step + 1));
                    self.event(Event::CheckpointKept { rank: which as u32, step: Step(step + 1) });
                }
                let rank = &mut self.ranks[which];
                rank.finishing = None;
                rank.in_world = rank.in_world.map(|(generation, _)| (generation, step + 1));
            }
            Err(Error::UnknownLearner { .. }) => {
                self.ranks[which].finishing = None;
                self.ranks[which].in_world = None;
            }
            Err(Error::StepAhead { .. }) => {}
            Err(error) => panic!("rank {which} could not commit: {error}"),
        }
    }

    fn commit(&mut self, step: u64) {
        self.commits.push(step);
        self.disk.recovered.committed = step + 1;
        self.event(Event::StepCommitted { step: Step(step) });
    }

    fn run(mut self) -> (BTreeMap<u64, Vec<u64>>, BTreeMap<Slot, u64>) {
        for _ in 0..MOST_TURNS {
            if self.machine.is_complete() {
                let steps: Vec<u64> = (0..plan().steps).collect();
                assert_eq!(self.commits, steps, "every step is committed once, in order");
                let evaluations = self
                    .disk
                    .contents
                    .into_iter()
                    .filter(|(slot, _)| matches!(slot, Slot::Evaluation { .. }));
                return (self.trained, evaluations.collect());
            }
            self.now += self.chance.below(40);
            match self.chance.below(40) {
                0 => self.coordinator_restarts(),
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

#[test]
fn every_schedule_gives_the_same_batches_and_gets_to_the_end() {
    let expected = Simulation::new(0, 1, 1).run();
    assert_eq!(expected.0.len(), 7);
    assert_eq!(expected.1.len(), 5 * 4, "versions 0, 3, 6 and 7 are evaluated");
    for seed in 1..=150 {
        let (workers, ranks) = (1 + seed as usize % 5, 1 + seed as usize % 3);
        assert_eq!(Simulation::new(seed, workers, ranks).run(), expected, "seed {seed}");
    }
}
