//! Learner ranks against a coordinator that serves synthetic groups.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod coordinator;

use std::path::Path;
use std::time::Duration;

use coordinator::{Fake, Plan, STEPS};
use podium_config::{Override, RunFile};
use podium_learner::train::{self, Ending, Options};
use podium_model::{Config, LoadOptions, Policy};
use podium_transfer::{CoordinatorLocation, Credentials};
use tokio_util::sync::CancellationToken;

const CONFIG: &str = r#"{
  "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 23, "hidden_size": 16,
  "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
  "initializer_range": 0.2, "hidden_act": "silu"
}"#;

fn run_file() -> RunFile {
    let changes = [
        format!("run.steps={STEPS}"),
        "rollout.group_size=3".into(),
        "learner.learning_rate=0.001".into(),
        "learner.checkpoint_every_steps=2".into(),
    ];
    let overrides: Vec<Override> = changes.iter().map(|change| change.parse().unwrap()).collect();
    RunFile::parse("", "test", &overrides).unwrap()
}

fn start_policy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(CONFIG, Path::new("config.json")).unwrap();
    Policy::random(&config, 5, LoadOptions::default()).unwrap().save(folder.path()).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), "{}").unwrap();
    folder
}

fn options(fake: &Fake, state: &Path, rank: u32, world_size: u32) -> Options {
    Options {
        coordinator: CoordinatorLocation::Named(fake.address.to_string()),
        credentials: Credentials::default(),
        state: state.to_owned(),
        rank,
        world_size,
        device: "cpu".into(),
        collective_listen: "127.0.0.1:0".into(),
        collective_advertise: None,
        shutdown_deadline: Duration::from_secs(20),
        metrics_address: String::new(),
        shared: None,
    }
}

/// Runs all ranks of a group until they exit.
async fn learn(fake: &Fake, state: &Path, world_size: u32) -> Ending {
    let file = run_file();
    let ranks = (0..world_size).map(|rank| {
        let options = options(fake, state, rank, world_size);
        let (file, stop) = (file.clone(), fake.stop_learners());
        async move { train::run(&file, &options, stop, || {}).await.unwrap() }
    });
    let ranks: Vec<_> = ranks.map(tokio::spawn).collect();
    let mut endings = Vec::new();
    for rank in ranks {
        endings.push(rank.await.unwrap());
    }
    assert!(endings.windows(2).all(|pair| pair[0] == pair[1]), "{endings:?}");
    endings[0]
}

async fn fake(start: &tempfile::TempDir, world_size: u32, plan: Plan) -> Fake {
    Fake::start(start.path(), &run_file().hash(), world_size, plan).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_is_published_and_committed() {
    let (start, state) = (start_policy(), tempfile::tempdir().unwrap());
    let fake = fake(&start, 1, Plan::default()).await;
    learn(&fake, state.path(), 1).await;
    let commits = fake.commits();
    let steps: Vec<_> = commits.iter().map(|commit| (commit.step, commit.checkpoint_step)).collect();
    assert_eq!(steps, [(0, None), (1, Some(2)), (2, None), (3, Some(4)), (4, Some(5))]);
    for name in
        ["loss", "entropy", "grad_norm", "clip_ratio/region_mean", "sampling/sampling_logp_difference/max"]
    {
        assert!(commits.iter().all(|commit| commit.metrics[name].is_finite()), "{name}");
    }
    let versions = fake.versions();
    assert_eq!(versions.keys().copied().collect::<Vec<_>>(), (1..=STEPS).collect::<Vec<_>>());
    assert_ne!(versions[&1], versions[&2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_learner_continues_to_the_same_weights() {
    let start = start_policy();
    let undisturbed = fake(&start, 1, Plan::default()).await;
    learn(&undisturbed, tempfile::tempdir().unwrap().path(), 1).await;

    let state = tempfile::tempdir().unwrap();
    // Shuts down when step 2 is committed, after which no checkpoint is due.
    let fake = fake(&start, 1, Plan { stop_after: Some(2), ..Plan::default() }).await;
    assert_eq!(learn(&fake, state.path(), 1).await, Ending::Stopped);
    assert_eq!(fake.versions().len(), 3);
    assert_eq!(learn(&fake, state.path(), 1).await, Ending::RunOver);
    assert_eq!(fake.versions(), undisturbed.versions());
    let steps: Vec<u64> = fake.commits().iter().map(|commit| commit.step).collect();
    // The commit before the checkpoint is repeated, and no step is.
    assert_eq!(steps, [0, 1, 2, 2, 3, 4]);
    let (first, again) = (&fake.commits()[2], &fake.commits()[3]);
    assert_eq!((&first.metrics, again.checkpoint_step), (&again.metrics, Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_lost_during_a_shutdown_are_sent_after_the_restart() {
    let start = start_policy();
    let undisturbed = fake(&start, 2, Plan::default()).await;
    learn(&undisturbed, tempfile::tempdir().unwrap().path(), 2).await;

    // The coordinator disappears while version 3 is in transfer, and all learners are shut down.
    let state = tempfile::tempdir().unwrap();
    let fake = fake(&start, 2, Plan { gone_at: Some(3), ..Plan::default() }).await;
    let (file, stop) = (run_file(), fake.stop_learners());
    let ranks = (0..2).map(|rank| {
        let options = Options { shutdown_deadline: Duration::ZERO, ..options(&fake, state.path(), rank, 2) };
        let (file, stop) = (file.clone(), stop.clone());
        tokio::spawn(async move { train::run(&file, &options, stop, || {}).await.unwrap() })
    });
    for rank in ranks.collect::<Vec<_>>() {
        assert_eq!(rank.await.unwrap(), Ending::Stopped);
    }
    assert_eq!(fake.versions().len(), 2, "version 3 did not arrive");
    let before = fake.commits().len();
    fake.come_back();
    assert_eq!(learn(&fake, state.path(), 2).await, Ending::RunOver);
    let steps: Vec<u64> = fake.commits()[before..].iter().map(|commit| commit.step).collect();
    assert_eq!(steps, [2, 3, 4], "the current step is reported, and none is repeated");
    assert_eq!(fake.versions(), undisturbed.versions());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_end_with_the_same_weights_after_a_new_rendezvous() {
    let start = start_policy();
    let undisturbed = fake(&start, 2, Plan::default()).await;
    learn(&undisturbed, tempfile::tempdir().unwrap().path(), 2).await;
    assert_eq!(undisturbed.generation(), 1);

    let disturbed = fake(&start, 2, Plan { rejoin_at: Some(3), ..Plan::default() }).await;
    learn(&disturbed, tempfile::tempdir().unwrap().path(), 2).await;
    assert_eq!(disturbed.generation(), 2);
    assert_eq!(disturbed.versions(), undisturbed.versions());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_of_another_run_receives_one_clear_error() {
    let start = start_policy();
    let fake = Fake::start(start.path(), "another run", 1, Plan::default()).await;
    let state = tempfile::tempdir().unwrap();
    let options = options(&fake, state.path(), 0, 1);
    let error = train::run(&run_file(), &options, CancellationToken::new(), || {}).await.unwrap_err();
    assert!(error.to_string().contains("refused to join the run: another run"), "{error}");
}
