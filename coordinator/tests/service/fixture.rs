//! The folder of a test: a tiny run, its initial policy and its secret.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_config::{Override, RunFile};
use podium_coordinator::discovery::Discovery;
use podium_coordinator::run::{self, Options, Running};
use podium_transfer::{Coordinator, Credentials, Limits, Secret, secret};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const RUN: &str = r#"
[run]
name = "tiny"
seed = 3
steps = 3
[world]
looks = 2
themes = 2
items_per_pair = 6
history = 3
train_users = 7
validation_users = 6
[prompt]
template = "compact"
[answer]
layout = "ids"
[rollout]
group_size = 2
prompts_per_step = 5
prompts_per_lease = 2
max_new_tokens = 8
[evaluation]
every_steps = 2
users = 3
prompts_per_lease = 2
[network]
heartbeat_interval_ms = 100
lease_deadline_ms = 2000
max_message_bytes = 70000
"#;

/// The folder of one test, with the initial policy and the output folders of runs.
pub(crate) struct Fixture {
    folder: tempfile::TempDir,
    pub(crate) file: RunFile,
    pub(crate) discovery: Discovery,
}

impl Fixture {
    pub(crate) fn new(overrides: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let start = folder.path().join("start");
        write_policy(&start, "start");
        let mut all = vec![Override::new("model.path", start.to_str().unwrap())];
        all.extend(overrides.iter().map(|text| text.parse::<Override>().unwrap()));
        let mut file = RunFile::parse(RUN, "run.toml", &all).unwrap();
        // One secret for all runs of the fixture.
        Secret::of_run(folder.path(), &file.network).unwrap();
        file.network.secret_file = Some(folder.path().join(secret::FILE));
        Self { folder, file, discovery: Discovery::default() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn options(&self, out: &str) -> Options {
        let (file, base) = (self.file.clone(), self.path(""));
        let discovery = self.discovery.clone();
        Options {
            file,
            base,
            out: self.path(out),
            listen: None,
            advertise: None,
            metrics_address: None,
            discovery,
        }
    }

    pub(crate) async fn start(&self, out: &str) -> (Running, CancellationToken) {
        let stop = CancellationToken::new();
        (run::start(self.options(out), stop.clone()).await.unwrap(), stop)
    }

    /// Returns the secret of all runs of the fixture.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::from_file(self.path(secret::FILE))
    }

    pub(crate) fn connect(&self, address: SocketAddr) -> Coordinator {
        let limits = Limits { reconnect_for: Duration::from_secs(20), ..Limits::of(&self.file.network) };
        let coordinator = Coordinator::new(&address.to_string(), limits, CancellationToken::new()).unwrap();
        coordinator.with_credentials(self.credentials())
    }

    /// Returns the rows of a report file.
    pub(crate) fn rows(&self, out: &str, name: &str) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(out).join(name)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Writes a policy with a real configuration and tokenizer, whose template renders every prompt as the same three
/// words.
pub(crate) fn write_policy(folder: &Path, weights: &str) {
    let config = json!({
        "model_type": "qwen3", "vocab_size": 100_000, "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
        "max_position_embeddings": 10, "rms_norm_eps": 1e-6, "rope_theta": 10_000.0, "tie_word_embeddings": true,
    });
    let tokenizer = json!({
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3}, "unk_token": "<unk>"},
    });
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), "a b c").unwrap();
    fs::write(folder.join("generation_config.json"), r#"{"eos_token_id": 99999}"#).unwrap();
    fs::write(folder.join("model.safetensors"), weights).unwrap();
}
