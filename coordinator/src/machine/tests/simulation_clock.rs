//! Waiting times of workers and learner, on a simulated clock without failures.

use super::*;

const WORKERS: usize = 2;
/// Time of a worker for a block, and of the learner for a step of four blocks.
const BLOCK: u64 = 10;
const STEP: u64 = 20;

/// Returns the length of a run, and the fraction of it that workers wait.
fn run(max_policy_lag: u64) -> (u64, f64) {
    let schedule = Schedule {
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
    let mut machine = Machine::restore(schedule, Recovered::default());
    let id = |worker: usize| Uuid::from_u128(worker as u128);
    for worker in 0..WORKERS {
        machine.register_worker(Millis(0), id(worker));
    }
    let learner = id(WORKERS);
    machine.join(Millis(0), Join { learner, rank: 0, world_size: 1, ..Join::default() }).reply.unwrap();
    let (mut sampling, mut waited): ([Option<(u64, Lease)>; WORKERS], u64) = Default::default();
    let (mut training, mut next) = (None, Step(0));
    for now in 0_u64.. {
        if training == Some(now) {
            machine.version_published(Millis(now), next.produces());
            machine.step_committed(Millis(now), next);
            (training, next) = (None, next.next());
        }
        for (worker, sampling) in sampling.iter_mut().enumerate() {
            if let Some((_, lease)) = sampling.take_if(|(until, _)| *until == now) {
                machine.results_stored(
                    Millis(now),
                    (id(worker), Some(lease.id)),
                    &filled(&lease.slots, false),
                );
            }
        }
        if training.is_none() {
            match machine.request_batch(Millis(now), 0, learner, next).reply.unwrap() {
                BatchReply::Ready { .. } => training = Some(now + STEP),
                BatchReply::RunOver(_) => return (now, waited as f64 / (now * WORKERS as u64) as f64),
                _ => {}
            }
        }
        for (worker, sampling) in sampling.iter_mut().enumerate().filter(|(_, sampling)| sampling.is_none()) {
            match machine.request_lease(Millis(now), id(worker)).reply.unwrap() {
                LeaseReply::Granted(lease) => *sampling = Some((now + BLOCK, lease)),
                _ => waited += 1,
            }
        }
    }
    unreachable!("the run ends")
}

#[test]
fn one_step_ahead_workers_do_not_wait_for_the_learner() {
    // Four blocks on two workers take as long as a step of the learner: each side waits half of the time.
    assert_eq!(run(0), (20 * (2 * BLOCK + STEP), 0.5));
    let (length, waited) = run(1);
    assert_eq!(length, 2 * BLOCK + 20 * STEP, "but for the first step's groups, sampling is hidden");
    assert!(waited < 0.06, "workers wait for {waited} of the time: while the last step is trained");
}
