use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use podium_grpo::GroupId;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use serde_json::json;

use super::*;
use crate::results::SetAside;

fn group(step: u64, index: u32) -> v1::ScoredGroup {
    v1::ScoredGroup { step, index, policy_version: step, prompt_ids: vec![1, 2], ..Default::default() }
}

const fn slot(step: u64, index: u32, attempt: u32) -> Slot {
    Slot::Training(GroupId { step: Step(step), index, attempt })
}

fn groups(groups: &[(u64, u32)]) -> Results {
    let groups = groups.iter().map(|&(step, index)| group(step, index)).collect();
    Results { groups, answers: vec![] }
}

fn worker() -> SampledBy {
    SampledBy { worker: Uuid::from_u128(7), name: "worker 7".into() }
}

fn row(value: &serde_json::Value) -> Row {
    value.as_object().unwrap().clone()
}

#[test]
fn a_restart_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "cafe").unwrap();
    let run_id = store.run_id().unwrap();
    store.put_results(&[(groups(&[(0, 1), (0, 0), (1, 0), (1, 3)]), worker())]).unwrap();
    let reward = |total| v1::Reward { total: Some(total), ..Default::default() };
    let last = v1::ScoredGroup { attempt: 2, rewards: vec![reward(0.0), reward(1.0)], ..group(1, 3) };
    store.put_results(&[(Results { groups: vec![last.clone()], answers: vec![] }, worker())]).unwrap();
    assert_eq!(
        store.groups(Step(1)).unwrap(),
        [group(1, 0), last],
        "an attempt takes the place of the one before"
    );
    let answer = v1::Completion { text: "x".into(), ..Default::default() };
    let answers = vec![(PolicyVersion(0), 2, answer.clone()), (PolicyVersion(1), 0, answer.clone())];
    store.put_results(&[(Results { groups: vec![], answers }, worker())]).unwrap();
    let step = StepRecord { reported: true, row: row(&json!({"step": 1})), samples: vec![] };
    store.put_step(Step(0), &step).unwrap();
    let evaluation = EvaluationRecord {
        row: row(&json!({"users": 3})),
        ranks: vec![Some(1), None],
        likelihood_ranks: Some(vec![Some(4), Some(1)]),
        samples: vec![],
    };
    store.put_evaluation(PolicyVersion(0), &evaluation).unwrap();
    store.put_checkpoint(0, Step(1)).unwrap();
    store.put_checkpoint(0, Step(0)).unwrap();
    let manifest = v1::PolicyManifest { policy_version: 1, ..Default::default() };
    store.put_policy(&manifest).unwrap();
    drop(store);

    let store = Store::open(folder.path(), "cafe").unwrap();
    assert_eq!(store.run_id().unwrap(), run_id);
    assert_eq!(store.groups(Step(0)).unwrap(), [group(0, 0), group(0, 1)]);
    assert_eq!(store.steps().unwrap(), std::slice::from_ref(&step));
    assert_eq!(store.step(Step(0)).unwrap(), Some(step));
    assert_eq!(store.evaluations().unwrap()[&PolicyVersion(0)], evaluation);
    assert!(store.answers(PolicyVersion(0)).unwrap().is_empty(), "a complete evaluation's answers are gone");
    assert_eq!(store.answers(PolicyVersion(1)).unwrap()[&0], answer);
    assert_eq!(store.policies().unwrap(), [manifest]);
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.committed, recovered.latest, recovered.kept_from), (1, 1, 0));
    let answered = Slot::Evaluation { version: PolicyVersion(1), index: 0 };
    let expected = [(answered, false), (slot(1, 0, 0), true), (slot(1, 3, 2), false)];
    let expected = expected.map(|(slot, zero_variance)| Filled { slot, zero_variance });
    assert_eq!(recovered.filled, expected, "groups of the committed step are not in question any more");
    assert_eq!(recovered.evaluated, [PolicyVersion(0)]);
    assert_eq!(recovered.checkpoints[&0], Step(1));
    store.drop_groups(Step(1)).unwrap();
    assert!(store.groups(Step(0)).unwrap().is_empty());
    assert_eq!(store.groups(Step(1)).unwrap().len(), 2);
    assert_eq!(store.recover().unwrap().kept_from, 1);
}

#[test]
fn a_group_that_was_set_aside_leaves_its_cause_and_the_attempts_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "cafe").unwrap();
    let attempt = |index, attempt| v1::ScoredGroup { attempt, ..group(0, index) };
    let kept = vec![attempt(0, 0), attempt(1, 1), attempt(2, 2)];
    store.put_results(&[(Results { groups: kept, answers: vec![] }, worker())]).unwrap();
    let record = |report, index, cause: &str| SetAside {
        report: Uuid::from_u128(report),
        index,
        cause: cause.into(),
        worker: Some(worker()),
        ..SetAside::default()
    };
    assert_eq!(store.sampled_by(Step(0), 1).unwrap(), (Some(worker()), Some(PolicyVersion(0))));
    store.set_aside(&[(0, None)], &[record(1, 0, "first")]).unwrap();
    let both = [record(2, 1, "other"), record(2, 0, "second")];
    store.set_aside(&[(0, None), (1, Some(0)), (2, Some(1))], &both).unwrap();
    drop(store);

    let store = Store::open(folder.path(), "cafe").unwrap();
    let expected = [record(1, 0, "first"), record(2, 0, "second"), record(2, 1, "other")];
    assert_eq!(store.aside(Step(0)).unwrap(), expected);
    assert_eq!(store.aside(Step(1)).unwrap(), []);
    assert_eq!(store.sampled_by(Step(0), 1).unwrap().0, None);
    // The earlier attempts of slots that were sampled again are known to have ended in equal rewards.
    let filled = |index, attempt| Filled { slot: slot(0, index, attempt), zero_variance: true };
    let recovered = store.recover().unwrap();
    assert_eq!(recovered.filled, [filled(1, 0), filled(2, 1)]);
    assert_eq!(recovered.reopened, [0, 0, 1]);
}

#[test]
fn another_run_and_a_second_coordinator_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "cafe").unwrap();
    let second = Store::open(folder.path(), "cafe").unwrap_err();
    assert!(matches!(second, Error::InUse { .. }), "{second}");
    drop(store);
    let other = Store::open(folder.path(), "beef").unwrap_err().to_string();
    assert!(other.contains("cafe") && other.contains("beef") && other.contains("--out"), "{other}");
}

/// A disk in memory that outlives its database and can be full.
#[derive(Debug, Clone)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn check(&self) -> Result<(), std::io::Error> {
        if self.full.load(Ordering::Relaxed) { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.check()?;
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.check()?;
        self.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.check()?;
        self.bytes.write(offset, data)
    }
}

#[test]
fn a_full_disk_is_reported_and_the_run_continues_once_there_is_space() {
    let disk = Disk { bytes: Arc::new(InMemoryBackend::new()), full: Arc::new(AtomicBool::new(false)) };
    let opened = disk.clone();
    let open = move || redb::Builder::new().create_with_backend(opened.clone());
    let store = Store { database: Database::new(PathBuf::from("run/coordinator.redb"), open) };
    store.begin(Path::new("run"), "cafe").unwrap();
    store.put_results(&[(groups(&[(0, 0)]), worker())]).unwrap();

    disk.full.store(true, Ordering::Relaxed);
    let error = store.put_results(&[(groups(&[(0, 1)]), worker())]).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error}");
    assert!(store.put_results(&[(groups(&[(0, 1)]), worker())]).is_err());
    disk.full.store(false, Ordering::Relaxed);

    store.put_results(&[(groups(&[(0, 2)]), worker())]).unwrap();
    assert_eq!(store.groups(Step(0)).unwrap(), [group(0, 0), group(0, 2)]);
}

/// Creates a run of five committed steps, two of which the checkpoints cover.
fn five_steps(folder: &Path) -> Store {
    let store = Store::open(folder, "cafe").unwrap();
    let step = StepRecord { reported: true, row: Row::new(), samples: vec![] };
    for version in 0..=5 {
        store.put_policy(&v1::PolicyManifest { policy_version: version, ..Default::default() }).unwrap();
        store.put_results(&[(groups(&[(version, 0), (version, 1)]), worker())]).unwrap();
    }
    (0..5).for_each(|number| store.put_step(Step(number), &step).unwrap());
    for version in [0, 4].map(PolicyVersion) {
        store.put_evaluation(version, &EvaluationRecord::default()).unwrap();
    }
    store.put_checkpoint(0, Step(4)).unwrap();
    store.put_checkpoint(1, Step(2)).unwrap();
    store.drop_groups(Step(2)).unwrap();
    store
}

#[test]
fn a_dropped_version_takes_all_with_it_that_it_may_have_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let store = five_steps(folder.path());
    let refused = |version| store.drop_version(PolicyVersion(version)).unwrap_err().to_string();
    assert!(refused(0).contains("began with"));
    assert!(refused(7).contains("there is no policy version 7 to drop: the newest is policy version 5"));
    assert!(refused(1).contains("versions from 2 on"), "{}", refused(1));
    store.abandon_evaluation(PolicyVersion(5), "gone").unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!(
        (recovered.evaluated, recovered.abandoned),
        ([0, 4].map(PolicyVersion).into(), vec![PolicyVersion(5)])
    );

    let dropped = store.drop_version(PolicyVersion(3)).unwrap();
    assert_eq!(dropped, versions::Dropped { steps: (Step(5), Step(2)), groups: 6, evaluations: 1 });
    drop(store);
    let store = Store::open_existing(folder.path()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.committed, recovered.latest, recovered.kept_from), (2, 2, 2));
    assert_eq!(
        (recovered.evaluated, recovered.abandoned),
        (vec![PolicyVersion(0)], vec![]),
        "the abandoned one is repeated"
    );
    assert_eq!(recovered.checkpoints, [(0, Step(3)), (1, Step(2))].into());
    assert_eq!(recovered.filled.len(), 2, "the step that makes the version can be repeated");
    assert_eq!(store.dropped_versions().unwrap(), [3]);
    store.drop_version(PolicyVersion(2)).unwrap();
    assert_eq!(store.recover().unwrap().committed, 2, "a checkpoint holds what makes version 2");
    assert_eq!(store.dropped_versions().unwrap(), [3, 2]);
    let nothing = Store::open_existing(&folder.path().join("nowhere")).unwrap_err().to_string();
    assert!(nothing.contains("holds no run"), "{nothing}");
}

#[test]
fn a_superseded_version_leaves_no_group_that_it_may_have_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let store = five_steps(folder.path());
    let answer = (PolicyVersion(5), 0, v1::Completion::default());
    store.put_results(&[(Results { groups: vec![], answers: vec![answer] }, worker())]).unwrap();
    let manifest = v1::PolicyManifest { policy_version: 5, run_hash: "new".into(), ..Default::default() };
    store.supersede_policy(&manifest).unwrap();
    assert_eq!(store.policies().unwrap().last(), Some(&manifest));
    assert_eq!((store.groups(Step(4)).unwrap().len(), store.groups(Step(5)).unwrap().len()), (2, 0));
    assert!(store.answers(PolicyVersion(5)).unwrap().is_empty());
}

#[test]
fn answers_of_external_rewards_are_removed_with_their_groups() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), "cafe").unwrap();
    let (one, other) = ([1; 32], [2; 32]);
    store.put_reward_answer((0, 1), &one, "judge", &[0.1, -0.0]).unwrap();
    store.put_reward_answer((1, 0), &other, "judge", &[0.25]).unwrap();
    let store = {
        drop(store);
        Store::open(folder.path(), "cafe").unwrap()
    };
    let stored = store.reward_answer((0, 1), &one, "judge").unwrap().unwrap();
    assert_eq!(stored.into_iter().map(f64::to_bits).collect::<Vec<_>>(), [0.1, -0.0].map(f64::to_bits));
    assert_eq!(store.reward_answer((0, 1), &one, "tone").unwrap(), None);
    assert_eq!(store.reward_answer((0, 1), &other, "judge").unwrap(), None);
    store.drop_groups(Step(1)).unwrap();
    assert_eq!(store.reward_answer((0, 1), &one, "judge").unwrap(), None);
    assert_eq!(store.reward_answer((1, 0), &other, "judge").unwrap(), Some(vec![0.25]));
}
