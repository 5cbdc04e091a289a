//! How long workers wait for the learner, and the learner for workers, on a simulated clock on which nothing goes wrong.

use super::*;

const WORKERS: usize = 2;
/// Time that a worker takes for a block, and the learner for a step of four.
const BLOCK: u64 = 10;
const STEP: u64 = 20;

/// The length of a run, and the share of it that workers wait.
fn run(max_policy_lag: u64) -> (u64, f64) {
    let plan = Plan {
        steps: 20,
        prompts_per_step: 8,
        prompts_per_lease: 2,
        refill_attempts: 0,
        max_policy_lag,
        evaluate_every_steps: 0,
        evaluation_prompts: 0,
        evaluation_prompts_per_lease: 1,
        evaluations_may_end: false,
        lease_deadline: Millis(1_000),
    };
    let mut machine = Machine::restore(plan, Recovered::default());
    let id = |worker: usize| Uuid::from_u128(worker as u128);
    let mut step = |now, event| machine.step(Millis(now), event).into_iter().next();
    for worker in 0..WORKERS {
        step(0, Event::WorkerRegistered { worker: id(worker) });
    }
    let learner = id(WORKERS);
    step(0, Event::RankJoined(Join { learner, rank: 0, world_size: 1, ..Join::default() }));
    let (mut sampling, mut waited): ([Option<(u64, Lease)>; WORKERS], u64) = Default::default();
    let (mut training, mut next) = (None, Step(0));
    for now in 0.. {
        if training == Some(now) {
            step(now, Event::VersionPublished { version: next.produces() });
            step(now, Event::StepCommitted { step: next });
            (training, next) = (None, next.next());
        }
        for (worker, sampling) in sampling.iter_mut().enumerate() {
            if let Some((_, lease)) = sampling.take_if(|(until, _)| *until == now) {
                let filled = lease.slots.iter().map(|&slot| Filled { slot, zero_variance: false }).collect();
                step(now, Event::Scored { worker: id(worker), lease: Some(lease.id), filled });
            }
        }
        if training.is_none() {
            match step(now, Event::BatchWanted { rank: 0, learner, step: next }) {
                Some(Action::ServeBatch) => training = Some(now + STEP),
                Some(Action::Leave { .. }) => return (now, waited as f64 / (now * WORKERS as u64) as f64),
                _ => {}
            }
        }
        for (worker, sampling) in sampling.iter_mut().enumerate().filter(|(_, sampling)| sampling.is_none()) {
            match step(now, Event::LeaseWanted { worker: id(worker) }) {
                Some(Action::Grant(lease)) => *sampling = Some((now + BLOCK, lease)),
                _ => waited += 1,
            }
        }
    }
    unreachable!("the run ends")
}

#[test]
fn one_step_ahead_nobody_waits_for_the_learner() {
    // Four blocks over two workers take as long as a step of the learner: each waits for the other half of the time.
    assert_eq!(run(0), (20 * (2 * BLOCK + STEP), 0.5));
    let (length, waited) = run(1);
    assert_eq!(length, 2 * BLOCK + 20 * STEP, "but for the first step's groups, sampling is hidden");
    assert!(waited < 0.06, "workers wait for {waited} of the time: while the last step is trained");
}
