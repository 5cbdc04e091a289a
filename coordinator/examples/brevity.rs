//! An external reward in Rust: short reasoning earns more.
//!
//! Reads a request per line of standard input and writes an answer per line, as docs/guides/external-rewards.md
//! describes. The argument is the number of words from which on a completion earns 0:
//!
//! ```toml
//! [[reward.external]]
//! name = "brevity"
//! weight = 0.1
//! min = 0.0
//! max = 1.0
//! command = ["target/release/examples/brevity", "200"]
//! ```

use std::io::{self, BufRead, Write};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;

/// The parts of a request that this reward depends on.
#[derive(Deserialize)]
struct Request {
    id: String,
    completions: Vec<Completion>,
}

#[derive(Deserialize)]
struct Completion {
    reasoning: Option<String>,
}

fn main() -> Result<()> {
    let limit = std::env::args().nth(1).context("expected a number of words as argument")?;
    let limit: f64 = limit.parse().with_context(|| format!("{limit:?} is not a number of words"))?;
    anyhow::ensure!(limit.is_finite() && limit > 0.0, "the number of words is {limit}: expected more than 0");
    let (input, mut output) = (io::stdin().lock(), io::stdout().lock());
    for line in input.lines() {
        let request: Request = serde_json::from_str(&line?).context("a line is not a request")?;
        let reward = |completion: &Completion| {
            let words = completion.reasoning.as_deref().unwrap_or_default().split_whitespace().count();
            (1.0 - words as f64 / limit).clamp(0.0, 1.0)
        };
        let rewards: Vec<f64> = request.completions.iter().map(reward).collect();
        writeln!(output, "{}", json!({ "id": request.id, "rewards": rewards }))?;
        output.flush()?;
    }
    Ok(())
}
