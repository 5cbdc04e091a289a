//! The result of a check, as JSON.

use podium_torch_shim::Operations;
use serde::Serialize;
use tch::Device;

/// The result of all checks.
#[derive(Debug, Serialize)]
pub struct Report {
    /// `cpu`, `cuda:0`, …
    pub device: String,
    /// Version of this program.
    pub version: &'static str,
    /// Whether every check that was run passed.
    pub passed: bool,
    /// The checks.
    pub checks: Vec<Check>,
    /// Sampling speeds, if measured.
    pub speeds: Vec<Speed>,
    /// Rates of the device, if measured.
    pub rates: Option<Rates>,
    /// Operations of decoding.
    pub operations: Option<PerToken>,
    /// Duration of everything.
    pub seconds: f64,
}

/// A value and its limit.
#[derive(Debug, Serialize)]
pub struct Check {
    name: &'static str,
    /// What is compared.
    what: &'static str,
    /// `passed`, `failed` or `skipped`.
    outcome: &'static str,
    value: Option<f64>,
    limit: Option<Limit>,
    /// Why it was skipped.
    reason: Option<String>,
}

/// The bound of a value.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

/// Speed of sampling with one model's shape.
#[derive(Debug, Serialize)]
pub struct Speed {
    pub(super) shape: &'static str,
    pub(super) parameters: u64,
    /// Completions sampled at once.
    pub(super) lanes: usize,
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    /// Completion tokens of all lanes per second, prefill included.
    pub(super) tokens_per_second: f64,
    /// Maximum memory of tensors on a GPU, in bytes.
    pub(super) peak_bytes: Option<i64>,
}

/// Rates of the device, which `podium check-config --time` reads.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    /// Type of the numbers.
    pub(super) number: &'static str,
    /// Of matrix products of 32 rows.
    pub(super) few_rows_flops_per_second: f64,
    /// Of matrix products of many rows.
    pub(super) many_rows_flops_per_second: f64,
    /// Of attention over prompts and completions.
    pub(super) attention_flops_per_second: f64,
    /// Of sums of large tensors.
    pub(super) bytes_per_second: f64,
    /// Time to start an operation.
    pub(super) launch_seconds: f64,
}

/// Numbers of operations of one decoding step, whatever the number of completions.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PerToken {
    pub(super) layers: u64,
    pub(super) kernels: f64,
    pub(super) copies: f64,
    /// Reads of single numbers, each of which waits for the device.
    pub(super) reads: f64,
}

impl Report {
    pub(super) fn new(device: Device) -> Self {
        Self {
            device: match device {
                Device::Cuda(index) => format!("cuda:{index}"),
                _ => "cpu".to_owned(),
            },
            version: env!("PODIUM_CODE_VERSION"),
            passed: true,
            checks: Vec::new(),
            speeds: Vec::new(),
            rates: None,
            operations: None,
            seconds: 0.0,
        }
    }

    /// Adds checks.
    pub(super) fn add(&mut self, checks: impl IntoIterator<Item = Check>) {
        self.checks.extend(checks);
        self.passed = self.checks.iter().all(|check| check.outcome != "failed");
    }

    /// Returns the JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }

    /// The checks that failed, a line each.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.checks.iter().filter(|check| check.outcome == "failed");
        failed
            .map(|check| {
                let (value, limit) = (check.value.unwrap_or(f64::NAN), check.limit);
                format!(
                    "{} ({}): {value:.3e}, expected {}",
                    check.name,
                    check.what,
                    limit.map_or(String::new(), Limit::text)
                )
            })
            .collect()
    }
}

impl Check {
    pub(super) fn new(name: &'static str, what: &'static str, value: f64, limit: Limit) -> Self {
        let holds = match limit {
            Limit::AtMost(bound) => value <= bound,
            Limit::AtLeast(bound) => value >= bound,
        };
        let outcome = if holds { "passed" } else { "failed" };
        Self { name, what, outcome, value: Some(value), limit: Some(limit), reason: None }
    }

    pub(super) fn skipped(name: &'static str, what: &'static str, reason: &str) -> Self {
        Self { name, what, outcome: "skipped", value: None, limit: None, reason: Some(reason.to_owned()) }
    }
}

impl Limit {
    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("at most {bound:.1e}"),
            Self::AtLeast(bound) => format!("at least {bound:.3}"),
        }
    }
}

impl PerToken {
    /// Per decoding step, of the difference between two runs that differ in `steps` steps.
    pub(super) fn between(few: Operations, many: Operations, steps: u64, layers: u64) -> Self {
        let per_step = |few: u64, many: u64| (many - few) as f64 / steps as f64;
        Self {
            layers,
            kernels: per_step(few.kernels, many.kernels),
            copies: per_step(few.copies, many.copies),
            reads: per_step(few.reads, many.reads),
        }
    }
}
