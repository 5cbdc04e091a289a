//! Learner ranks against a coordinator that deals out made-up groups.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod coordinator;

use std::path::Path;

use coordinator::{Fake, Plan, STEPS};
use podium_config::{Override, RunFile};
use podium_learner::train::{self, Options};
use podium_model::{Config, LoadOptions, Policy};
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

/// Runs all ranks of a world until they leave.
async fn learn(fake: &Fake, state: &Path, world_size: u32) {
    let file = run_file();
    let ranks = (0..world_size).map(|rank| {
        let options = Options {
            coordinator: fake.address.to_string(),
            state: state.to_owned(),
            rank,
            world_size,
            device: "cpu".into(),
            collective_listen: "127.0.0.1:0".into(),
            metrics_address: String::new(),
        };
        let (file, stop) = (file.clone(), fake.stop_learners());
        async move { train::run(&file, &options, stop, || {}).await.unwrap() }
    });
    let ranks: Vec<_> = ranks.map(tokio::spawn).collect();
    for rank in ranks {
        rank.await.unwrap();
    }
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
async fn a_learner_that_left_continues_to_the_same_weights() {
    let start = start_policy();
    let undisturbed = fake(&start, 1, Plan::default()).await;
    learn(&undisturbed, tempfile::tempdir().unwrap().path(), 1).await;

    let state = tempfile::tempdir().unwrap();
    // Leaves when step 3 is committed, with a checkpoint of step 2.
    let fake = fake(&start, 1, Plan { stop_after: Some(2), ..Plan::default() }).await;
    learn(&fake, state.path(), 1).await;
    assert_eq!(fake.versions().len(), 3);
    learn(&fake, state.path(), 1).await;
    assert_eq!(fake.versions(), undisturbed.versions());
    let steps: Vec<u64> = fake.commits().iter().map(|commit| commit.step).collect();
    // The commit before the checkpoint is repeated, and so is the step after it.
    assert_eq!(steps, [0, 1, 2, 1, 2, 3, 4]);
    let (first, again) = (&fake.commits()[1], &fake.commits()[3]);
    assert_eq!((&first.metrics, again.checkpoint_step), (&again.metrics, Some(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_that_come_together_again_end_with_the_same_weights() {
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
async fn another_runs_learner_gets_one_clear_error() {
    let start = start_policy();
    let fake = Fake::start(start.path(), "another run", 1, Plan::default()).await;
    let options = Options {
        coordinator: fake.address.to_string(),
        state: tempfile::tempdir().unwrap().path().to_owned(),
        rank: 0,
        world_size: 1,
        device: "cpu".into(),
        collective_listen: "127.0.0.1:0".into(),
        metrics_address: String::new(),
    };
    let error = train::run(&run_file(), &options, CancellationToken::new(), || {}).await.unwrap_err();
    assert!(error.to_string().contains("refused to join the run: another run"), "{error}");
}
