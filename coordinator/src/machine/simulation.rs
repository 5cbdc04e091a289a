//! A whole run in one thread and on a simulated clock: workers that crash, ranks that restart, a coordinator that
//! forgets everything but its store, calls whose request or answer is lost, repeated late or out of order, results that
//! dynamic sampling does not keep, and leases that take as long as their completions.

use podium_grpo::GroupId;
use podium_grpo::rng::Stream;
use podium_proto::convert::Slot;

use super::*;

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

/// What the coordinator's store holds.
#[derive(Default)]
struct Disk {
    recovered: Recovered,
    contents: BTreeMap<(Work, u32), Content>,
}

/// What a worker computes for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    slot: Slot,
    version: PolicyVersion,
    /// It depends on the version and on the whole batch that the lease names.
    bits: u64,
}

fn content(lease: &Lease, slot: Slot) -> Content {
    let key = |slot: &Slot| match *slot {
        Slot::Training(GroupId { step, index, attempt }) => [1, step.0, index.into(), attempt.into()],
        Slot::Evaluation { version, index } => [0, version.0, index.into(), 0],
    };
    let whole: Vec<u64> =
        [lease.version.0].into_iter().chain(key(&slot)).chain(lease.slots.iter().flat_map(key)).collect();
    Content { slot, version: lease.version, bits: Stream::new(1, "content", &whole).next_u64() }
}

/// What a prompt's completions are like under any version: their tokens, and whether all earn the same.
fn prompt(slot: Slot) -> (u64, bool) {
    let Slot::Training(GroupId { step, index, attempt }) = slot else { return (5, false) };
    let mut stream = Stream::new(1, "prompt", &[step.0, index.into(), attempt.into()]);
    (1 + stream.below(30), stream.below(3) == 0)
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
        recovered.filled = self.disk.contents.values().map(|content| filled(content.slot)).collect();
        // As a file would bring it back.
        recovered.world = serde_json::from_str(&serde_json::to_string(&recovered.world).unwrap()).unwrap();
        self.machine = Machine::restore(self.plan.clone(), recovered);
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
        let wanted = |slot: &&Slot| self.machine.verdict(**slot, lease.version) == Verdict::Wanted;
        let wanted: Vec<Slot> = lease.slots.iter().filter(wanted).copied().collect();
        for &slot in &wanted {
            let (work, index, attempt) = Work::of(slot);
            let before = self.disk.contents.insert((work, index), content(&lease, slot));
            let replaced = before.map(|before| before.slot);
            let expected = attempt.checked_sub(1).map(|attempt| work.slot(index, attempt));
            assert_eq!(replaced, expected, "{slot:?} was filled twice, or out of turn");
            assert!(replaced.is_none_or(|slot| prompt(slot).1), "{replaced:?} was to be kept");
        }
        let filled = wanted.into_iter().map(filled).collect();
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
            let group = |index| self.disk.contents[&(Work::Training(Step(next)), index)].clone();
            let batch: Vec<Content> = (0..self.plan.prompts_per_step).map(group).collect();
            assert!(batch.iter().all(|group| self.plan.allows(Step(next), group.version)), "{batch:?}");
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
        let join = Join { learner, rank: which as u32, world_size, address, next_step, ..Join::default() };
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
        let checkpoint = (step + 1).is_multiple_of(CHECKPOINT_EVERY) || step + 1 == self.plan.steps;
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

    /// Runs to the end: what was trained, by step, and every answer to a held-out prompt.
    fn run(mut self) -> (BTreeMap<u64, Vec<Content>>, Vec<Content>) {
        for _ in 0..MOST_TURNS {
            if self.machine.is_complete() {
                let steps: Vec<u64> = (0..self.machine.last_version().0).collect();
                assert_eq!(self.commits, steps, "every step is committed once, in order");
                let answers = self.disk.contents.into_values();
                let answers = answers.filter(|content| matches!(content.slot, Slot::Evaluation { .. }));
                return (self.trained, answers.collect());
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

fn filled(slot: Slot) -> Filled {
    Filled { slot, zero_variance: prompt(slot).1 }
}

/// How old the groups of a run were, and over how many tokens they went.
fn lags(trained: &BTreeMap<u64, Vec<Content>>) -> impl Iterator<Item = u64> {
    trained.iter().flat_map(|(step, groups)| groups.iter().map(move |group| step - group.version.0))
}

fn slots(trained: &BTreeMap<u64, Vec<Content>>) -> Vec<Slot> {
    trained.values().flatten().map(|group| group.slot).collect()
}

#[test]
fn every_schedule_gives_the_same_batches_and_gets_to_the_end() {
    let expected = Simulation::new(plan(), 0, 1, 1).run();
    assert_eq!(expected.0.len(), 7);
    assert_eq!(expected.1.len(), 5 * 4, "versions 0, 3, 6 and 7 are evaluated");
    let attempts: BTreeSet<u32> = slots(&expected.0).into_iter().map(|slot| Work::of(slot).2).collect();
    assert_eq!(attempts, [0, 1, 2].into(), "groups of equal rewards were replaced");
    for seed in 1..=150 {
        let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
        assert_eq!(Simulation::new(plan(), seed, workers, ranks).run(), expected, "seed {seed}");
    }
}

#[test]
fn ahead_of_the_learner_the_bound_holds_and_what_is_trained_does_not_depend_on_how_long_it_took() {
    let synchronous = Simulation::new(plan(), 0, 1, 1).run();
    for max_policy_lag in 1..=3 {
        let plan = Plan { max_policy_lag, ..plan() };
        let mut seen = BTreeSet::new();
        for seed in 1..=60 {
            let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
            let (trained, answers) = Simulation::new(plan.clone(), seed, workers, ranks).run();
            // The same prompts whoever was slow, so the same lengths: no long completion lost its place to a short one.
            assert_eq!(slots(&trained), slots(&synchronous.0), "seed {seed}");
            assert_eq!(answers, synchronous.1, "an evaluation is of one version");
            seen.extend(lags(&trained));
        }
        assert_eq!(seen, (0..=max_policy_lag).collect(), "every allowed lag occurs");
    }
}

#[test]
fn an_evaluation_that_ends_the_run_ends_every_schedule_at_the_same_step() {
    let simulation = |seed: u64, max_policy_lag| {
        let plan = Plan { evaluations_may_end: true, max_policy_lag, ..plan() };
        let (workers, ranks) = (1 + seed % 5, 1 + seed as usize % 3);
        Simulation { ends: Some(PolicyVersion(0)), ..Simulation::new(plan, seed, workers, ranks) }
    };
    let expected = simulation(0, 0).run();
    assert_eq!(expected.0.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(expected.1.len(), 5 * 2, "versions 0 and 3 are evaluated");
    for seed in 1..=60 {
        assert_eq!(simulation(seed, 0).run(), expected, "seed {seed}");
        // Ahead of the learner the versions that sample may differ, the steps do not.
        let (trained, answers) = simulation(seed, 2).run();
        assert_eq!(slots(&trained), slots(&expected.0), "seed {seed}");
        assert_eq!(answers, expected.1, "seed {seed}");
    }
}
