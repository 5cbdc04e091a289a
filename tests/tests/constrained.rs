//! A run with constrained answers and rankings by likelihood: all well-formed, with equal recomputed
//! log-probabilities, the same for any number of workers.

use anyhow::{Context, Result, ensure};
use podium_tests::{Run, rows};

const SETTINGS: [&str; 10] = [
    "run.portable=true",
    "run.steps=3",
    "run.seed=5",
    "rollout.constrain_answers=true",
    "rollout.temperature=0.7",
    "rollout.top_p=0.9",
    "rollout.prompts_per_step=16",
    "rollout.prompts_per_lease=4",
    "evaluation.users=64",
    "evaluation.likelihood=true",
];

fn train(workers: usize) -> Result<Run> {
    let run = Run::embedded(&SETTINGS)?;
    let mut processes = vec![run.coordinator("coordinator")?, run.learner("learner", 0, 1)?];
    for worker in 0..workers {
        processes.push(run.worker(&format!("worker-{worker}"))?);
    }
    for process in processes.iter_mut().rev() {
        process.wait_for_success()?;
    }
    Ok(run)
}

#[test]
fn constrained_answers_are_well_formed_and_recomputed_exactly() -> Result<()> {
    let (one, two) = (train(1)?, train(2)?);
    ensure!(one.weights_hash(3)? == two.weights_hash(3)?, "the number of workers changed the result");
    for step in rows(&one.out().join("metrics.jsonl"))? {
        let metric = |name: &str| step[name].as_f64().with_context(|| format!("no {name} in {step}"));
        ensure!((metric("completions/well_formed")? - 1.0).abs() < 1e-9, "malformed answers: {step}");
        ensure!(
            metric("sampling/sampling_logp_difference/max")? < 1e-5,
            "recomputed log-probabilities differ: {step}"
        );
        ensure!(metric("grad_norm")? > 0.0, "the gradient is zero: {step}");
    }
    for evaluation in rows(&one.out().join("evaluations.jsonl"))? {
        ensure!(evaluation["completions/well_formed"] == 1.0, "malformed held-out answers: {evaluation}");
        let ndcg = evaluation["likelihood/NDCG@10"]["mean"].as_f64();
        // Every permutation of ten candidates has at least this NDCG.
        ensure!(ndcg.is_some_and(|ndcg| ndcg >= 1.0 / 11.0_f64.log2()), "no full ranking: {evaluation}");
    }
    let evaluations = |run: &Run| rows(&run.out().join("evaluations.jsonl"));
    ensure!(evaluations(&one)? == evaluations(&two)?, "the number of workers changed an evaluation");
    Ok(())
}
