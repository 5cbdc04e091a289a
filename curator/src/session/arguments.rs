//! Flags of all commands that use an endpoint.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value};

use super::{Error, Plan, Session};
use crate::endpoint::{Endpoint, Limits, MOST_TOKENS, Rates, Secret};
use crate::flags;
use crate::store::Store;

/// Name of the store in the data folder.
const STORE_FILE: &str = "curation.redb";

/// Endpoint, rate limits and retries.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// Address of an OpenAI-compatible endpoint, including its /v1.
    #[arg(long, value_name = "URL")]
    endpoint: String,
    /// Name of the model at the endpoint.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// Environment variable with the endpoint's key. Without the variable no key is sent.
    #[arg(long, value_name = "NAME", default_value = "OPENAI_API_KEY")]
    api_key_env: String,
    /// Number of concurrent requests.
    #[arg(long, value_name = "N", default_value = "8")]
    concurrency: NonZeroUsize,
    /// Requests per minute; 0 is unlimited.
    #[arg(long, value_name = "N", default_value_t = 0)]
    requests_per_min: u64,
    /// Input and output tokens per minute; 0 is unlimited.
    #[arg(long, value_name = "N", default_value_t = 0)]
    tokens_per_min: u64,
    /// Timeout of one request.
    #[arg(long, value_name = "MS", default_value_t = 120_000)]
    deadline_ms: u64,
    /// Maximum number of retries of a failed request.
    #[arg(long, value_name = "N", default_value_t = 6)]
    retries: u32,
    /// Wait before the first retry; it doubles with each retry, with jitter.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    backoff_ms: u64,
    /// Maximum wait that an endpoint may request (Retry-After).
    #[arg(long, value_name = "MS", default_value_t = 600_000)]
    longest_wait_ms: u64,
    /// Maximum number of times that an invalid answer is requested again, with the reason.
    #[arg(long, value_name = "N", default_value_t = 3)]
    corrections: u32,
    /// Maximum length of an answer in tokens; 0 uses the endpoint's limit. The default depends on the command.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=MOST_TOKENS))]
    max_tokens: Option<u64>,
    /// Sampling temperature. Default: the endpoint's.
    #[arg(long, value_name = "T", value_parser = flags::finite)]
    temperature: Option<f64>,
    /// Fields to add to or replace in each request.
    #[arg(long, value_name = "JSON", value_parser = object)]
    body: Option<Map<String, Value>>,
    /// Store of replies. Default: curation.redb in the data folder.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

fn object(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    serde_json::from_str(text)
}

impl Arguments {
    /// Creates a session for `command` on the data in `folder`, with answers of about `max_tokens`.
    pub(crate) fn session(
        &self,
        command: &'static str,
        folder: &Path,
        max_tokens: u64,
    ) -> Result<Session, Error> {
        let secret = Secret::from_environment(&self.api_key_env);
        let endpoint = Endpoint::new(&self.endpoint, secret, Duration::from_millis(self.deadline_ms))?;
        let store = self.store.clone().unwrap_or_else(|| folder.join(STORE_FILE));
        let rates = Rates { requests_per_min: self.requests_per_min, tokens_per_min: self.tokens_per_min };
        let plan = Plan {
            command,
            model: self.model.clone(),
            concurrency: self.concurrency.get(),
            retries: self.retries,
            backoff_ms: self.backoff_ms,
            longest_wait: Duration::from_millis(self.longest_wait_ms),
            corrections: self.corrections,
            max_tokens: self.max_tokens.unwrap_or(max_tokens),
            temperature: self.temperature,
            body: self.body.clone().unwrap_or_default(),
        };
        Session::new(plan, endpoint, Store::open(&store)?, Limits::new(rates))
    }
}
