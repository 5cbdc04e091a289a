//! Tests of submissions that are stored together.

use podium_grpo::GroupId;
use podium_proto::convert::Slot;

use super::*;
use crate::machine::{Lease, LeaseReply, Recovered, Schedule};

/// A storage that records its writes, or fails.
#[derive(Debug, Default)]
struct Recorder {
    writes: Vec<Write>,
    is_full: bool,
}

#[derive(Debug)]
enum Failure {
    Full,
    Refused,
}

impl From<Error> for Failure {
    fn from(_: Error) -> Self {
        Self::Refused
    }
}

impl Storage for Recorder {
    type Error = Failure;

    async fn write(&mut self, write: Write) -> Result<(), Failure> {
        if self.is_full {
            return Err(Failure::Full);
        }
        self.writes.push(write);
        Ok(())
    }

    async fn set_aside(&mut self, _: Step) -> Result<Vec<SetAside>, Failure> {
        Ok(Vec::new())
    }

    async fn sampled_by(
        &mut self,
        _: Step,
        _: u32,
    ) -> Result<(Option<SampledBy>, Option<PolicyVersion>), Failure> {
        Ok((None, None))
    }
}

const NOW: Millis = Millis(0);
const WORKERS: [Uuid; 2] = [Uuid::from_u128(1), Uuid::from_u128(2)];

/// Returns a run in which two workers hold the leases on slots 0 and 1.
async fn leased() -> (Sequencer<Recorder>, [Lease; 2]) {
    let schedule = Schedule {
        steps: 3,
        prompts_per_step: 4,
        prompts_per_lease: 1,
        refill_attempts: 0,
        max_policy_lag: 0,
        evaluate_every_steps: 0,
        evaluation_prompts: 0,
        evaluation_prompts_per_lease: 1,
        evaluations_may_end: false,
        lease_deadline: Millis(1_000),
    };
    let mut run = Sequencer::new(Machine::restore(schedule, Recovered::default()), Recorder::default());
    let mut leases = Vec::new();
    for worker in WORKERS {
        run.apply(|machine| machine.register_worker(NOW, worker)).await;
        match run.apply(|machine| machine.request_lease(NOW, worker)).await {
            Ok(LeaseReply::Granted(lease)) => leases.push(lease),
            other => panic!("no lease but {other:?}"),
        }
    }
    (run, leases.try_into().unwrap())
}

fn submission(worker: Uuid, lease: &Lease) -> Submission {
    let group = |&slot: &Slot| match slot {
        Slot::Training(GroupId { step, index, attempt }) => {
            v1::ScoredGroup { step: step.0, index, attempt, ..v1::ScoredGroup::default() }
        }
        Slot::Evaluation { .. } => panic!("{slot} instead of a training slot"),
    };
    let results = Results { groups: lease.slots.iter().map(group).collect(), answers: vec![] };
    let worker = SampledBy { worker, name: String::new() };
    Submission { worker, lease: Some(lease.id), version: lease.version, is_current: true, results }
}

fn accepted(outcome: &Result<Submitted, Error>) -> (u32, u32, u32) {
    let counts = outcome.as_ref().unwrap().training;
    (counts.accepted, counts.repeated, counts.refused)
}

#[tokio::test]
async fn submissions_are_stored_in_one_write_and_have_their_own_outcomes() {
    let (mut run, [first, second]) = leased().await;
    let stranger = Uuid::from_u128(9);
    let submissions = vec![
        submission(WORKERS[0], &first),
        submission(stranger, &second),
        submission(WORKERS[1], &first),
        submission(WORKERS[1], &second),
    ];
    let outcomes = run.submit(NOW, submissions).await.unwrap();
    assert_eq!(outcomes[1], Err(Error::UnknownWorker { worker: stranger }));
    assert_eq!([0, 2, 3].map(|at| accepted(&outcomes[at])), [(1, 0, 0), (0, 1, 0), (1, 0, 0)]);
    let [Write::Results(stored)] = run.storage().writes.as_slice() else { panic!("not one write") };
    let stored: Vec<_> = stored.iter().map(|(results, by)| (results.groups[0].index, by.worker)).collect();
    assert_eq!(stored, [(0, WORKERS[0]), (1, WORKERS[1])]);
    assert_eq!((run.machine().sampling().ready, run.machine().busy_workers()), (2, 0));
}

#[tokio::test]
async fn a_failed_write_accepts_no_submission() {
    let (mut run, [first, second]) = leased().await;
    let submissions = || vec![submission(WORKERS[0], &first), submission(WORKERS[1], &second)];
    run.storage_mut().is_full = true;
    assert!(matches!(run.submit(NOW, submissions()).await, Err(Failure::Full)));
    assert_eq!((run.machine().sampling().ready, run.machine().busy_workers()), (0, 2));
    run.storage_mut().is_full = false;
    let outcomes = run.submit(NOW, submissions()).await.unwrap();
    assert_eq!(outcomes.iter().map(accepted).collect::<Vec<_>>(), [(1, 0, 0), (1, 0, 0)]);
}
