//! Whole runs in bfloat16 on the CPU: the arithmetic of a GPU by default, in sampling, training, publication and
//! evaluation.

use anyhow::{Context, Result, ensure};
use podium_tests::{Run, rows};

const SETTINGS: [&str; 5] = [
    "run.steps=3",
    "run.seed=2",
    "rollout.prompts_per_step=16",
    "evaluation.users=32",
    "model.emulate_bfloat16=true",
];

fn train(dtype: &str) -> Result<Run> {
    let run = Run::embedded(&[&SETTINGS[..], &[&format!("model.dtype='{dtype}'")]].concat())?;
    let mut coordinator = run.coordinator("coordinator")?;
    let (mut worker, mut learner) = (run.worker("worker")?, run.learner("learner", 0, 1)?);
    for process in [&mut learner, &mut worker, &mut coordinator] {
        process.wait_for_success()?;
    }
    Ok(run)
}

/// Returns a metric of every step.
fn metric(run: &Run, name: &str) -> Result<Vec<f64>> {
    let rows = rows(&run.out().join("metrics.jsonl"))?;
    rows.iter().map(|row| row[name].as_f64().with_context(|| format!("a step has no {name}"))).collect()
}

#[test]
fn a_run_in_bfloat16_stays_near_float32_and_repeats_to_the_bit() -> Result<()> {
    let (short, long) = (train("bfloat16")?, train("float32")?);
    for (name, tolerance) in [("entropy", 0.02), ("grad_norm", 0.1)] {
        let (found, expected) = (metric(&short, name)?[0], metric(&long, name)?[0]);
        ensure!(
            (found - expected).abs() > 0.0,
            "{name} is the same in float32: the run did not compute in bfloat16"
        );
        ensure!(
            (found - expected).abs() <= tolerance * (1.0 + expected),
            "{name}: {found}, in float32 {expected}"
        );
    }
    // Nats between the log-probabilities of sampling and those of training, by token.
    let gap = "sampling/sampling_logp_difference";
    for (run, mean, max) in [(&short, 0.02, 0.5), (&long, 1e-5, 1e-3)] {
        let of = |name: &str| {
            Ok::<_, anyhow::Error>(metric(run, &format!("{gap}/{name}"))?.into_iter().fold(0.0, f64::max))
        };
        let (found_mean, found_max) = (of("mean")?, of("max")?);
        eprintln!("{gap}: mean {found_mean:.1e}, max {found_max:.1e}");
        ensure!(found_mean <= mean && found_max <= max, "{gap}: mean {found_mean}, max {found_max}");
    }
    ensure!(train("bfloat16")?.weights_hash(3)? == short.weights_hash(3)?, "a repetition has other bits");
    Ok(())
}
