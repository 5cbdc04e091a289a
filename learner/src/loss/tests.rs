use podium_grpo::objective::{self as reference, Logprobs};
use podium_grpo::options::{Correction, Credit, Level};
use podium_grpo::plan::{self, Credited, Plan, StepSize};
use podium_grpo::step_metrics::StepMetrics;
use podium_grpo::{Completion, FinishReason, RankCredit};
use proptest::prelude::*;
use tch::Device;

use super::*;
use crate::batch::MicroBatch;

/// Log-probabilities of a token: of the policy in each of two passes, of behaviour and reference; and its entropy.
type Token = [f32; 5];

#[derive(Debug, Clone)]
struct Row {
    tokens: Vec<Token>,
    advantage: f64,
    cut: bool,
    items: Vec<RankCredit>,
    item_advantages: Vec<f64>,
}

fn arbitrary_row() -> impl Strategy<Value = Row> {
    // The widest ratio, exp(150), overflows float32; a ratio to the reference then overflows float64.
    let logprob = || prop_oneof![8 => -3.0..0.0_f32, 1 => -150.0..0.0_f32, 1 => Just(-900.0_f32)];
    let token = [logprob(), logprob(), logprob(), logprob(), logprob()];
    let advantage = || prop_oneof![4 => -2.0..2.0_f64, 1 => Just(0.0)];
    let items = (0..3_u32, 1..3_u32, 0..2_u32, 1..3_u32, any::<bool>()).prop_map(
        |(start, first, gap, second, any)| {
            let next = start + first + gap;
            let all = [start..start + first, next..next + second];
            all.into_iter()
                .filter(|_| any)
                .map(|tokens| RankCredit { tokens, reward: 0.0 })
                .collect::<Vec<_>>()
        },
    );
    let tokens = prop::collection::vec(token, 0..7);
    (tokens, advantage(), any::<bool>(), items, [advantage(), advantage()]).prop_map(
        |(tokens, advantage, cut, mut items, item_advantages)| {
            items.retain(|item| item.tokens.end as usize <= tokens.len());
            Row { tokens, advantage, cut, items, item_advantages: item_advantages.into() }
        },
    )
}

fn arbitrary_options() -> impl Strategy<Value = Options> {
    use Correction::{None, SequenceMask, SequenceTruncate, TokenMask, TokenTruncate};
    use LossType::{Bnpo, Cispo, Dapo, DrGrpo, Grpo, Luspo, Sapo};
    let choices = (
        prop::sample::select(vec![Grpo, Bnpo, DrGrpo, Dapo, Luspo, Cispo, Sapo]),
        prop::sample::select(vec![Level::Token, Level::Sequence, Level::Rank]),
        prop::sample::select(vec![None, None, TokenTruncate, TokenMask, SequenceTruncate, SequenceMask]),
        prop::sample::select(vec![Credit::Completion, Credit::Rank]),
    );
    let numbers = (
        prop::option::of(0.1..5.0_f64),
        prop::option::of(1.3..4.0_f64),
        prop::sample::select(vec![0.0, 0.1]),
        prop::sample::select(vec![0.0, 0.02]),
    );
    (choices, numbers, any::<[bool; 2]>()).prop_map(
        |((loss_type, level, correction, credit), numbers, [corrected_kl, masked])| Options {
            loss_type,
            importance_sampling_level: level,
            importance_sampling_correction: correction,
            credit: if level == Level::Rank { Credit::Rank } else { credit },
            epsilon_high: numbers.0,
            delta: numbers.1,
            beta: numbers.2,
            entropy_coef: numbers.3,
            use_bias_correction_kl: corrected_kl,
            mask_truncated_completions: masked,
            ..Options::default()
        },
    )
}

fn completion(row: &Row) -> Completion {
    Completion {
        token_ids: vec![0; row.tokens.len()],
        text: String::new(),
        text_ends: vec![],
        logprobs: vec![0.0; row.tokens.len()],
        sampled_logprobs: None,
        allowed: Vec::new(),
        finish_reason: if row.cut { FinishReason::Length } else { FinishReason::Stop },
    }
}

fn make_plan(rows: &[Row], options: &Options) -> Plan {
    let completions: Vec<Completion> = rows.iter().map(completion).collect();
    let active = completions.iter().filter(|completion| plan::counts(completion, options));
    let tokens = active.map(|completion| completion.len() as u64).sum();
    let size = StepSize { completions: rows.len(), tokens, longest: 7 };
    let credited = rows.iter().zip(&completions).map(|(row, completion)| Credited {
        completion,
        advantage: row.advantage,
        items: &row.items,
        item_advantages: &row.item_advantages,
    });
    Plan::new(credited, options, &size)
}

fn column(rows: &[Row], index: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| &row.tokens).map(|token| token[index]).collect()
}

/// Loss, metrics and gradients of one pass.
struct Pass {
    metrics: StepMetrics,
    gradient: Vec<f64>,
    entropy_gradient: Vec<f64>,
}

/// Two passes by libtorch, all completions in one micro-batch.
fn by_libtorch(rows: &[Row], options: &Options, known: bool) -> Vec<Pass> {
    let batch = MicroBatch {
        groups: vec![],
        moves: true,
        plan: make_plan(rows, options),
        behaviour_logprobs: known.then(|| column(rows, 2)),
    };
    let mut tokens = Tokens::new(&batch, Some(&Tensor::from_slice(&column(rows, 3))), Device::Cpu);
    let pass = |policy: usize| {
        // Float64 leaves: gradients are compared before they are rounded.
        let leaf = |index: usize| {
            let numbers: Vec<f64> = column(rows, index).into_iter().map(f64::from).collect();
            Tensor::from_slice(&numbers).set_requires_grad(true)
        };
        let (logprobs, entropy) = (leaf(policy), leaf(4));
        let result = objective(&logprobs, Some(&entropy), &mut tokens, options);
        result.loss.backward();
        let gradient = |leaf: &Tensor| {
            let gradient = leaf.grad();
            let gradient = if gradient.defined() { gradient } else { leaf.zeros_like() };
            Vec::try_from(gradient).unwrap()
        };
        Pass {
            metrics: OnDevice::total(&[result.metrics]),
            gradient: gradient(&logprobs),
            entropy_gradient: gradient(&entropy),
        }
    };
    [0, 1].map(pass).into()
}

fn by_reference(rows: &[Row], options: &Options, known: bool) -> Vec<Pass> {
    let plan = make_plan(rows, options);
    let columns =
        [0, 1, 2, 3, 4].map(|index| column(rows, index).into_iter().map(f64::from).collect::<Vec<f64>>());
    let pass = |policy: usize| {
        let logprobs = Logprobs {
            policy: &columns[policy],
            behaviour: known.then_some(&columns[2]),
            old: Some(&columns[0]),
            reference: Some(&columns[3]),
            entropy: &columns[4],
        };
        let objective = reference::objective(&plan, &logprobs, options);
        let (gradient, entropy_gradient) = (objective.gradient, objective.entropy_gradient);
        Pass { metrics: objective.metrics, gradient, entropy_gradient }
    };
    [0, 1].map(pass).into()
}

/// `scale`: magnitude of intermediate numbers that may cancel.
fn close(found: f64, expected: f64, scale: f64) -> bool {
    // Infinite for the minimum or maximum of an empty list.
    found.total_cmp(&expected).is_eq()
        || (found - expected).abs() <= 1e-9 * (1.0 + expected.abs()) + 1e-14 * scale
}

/// The largest product of a ratio to the reference and one to any other policy.
fn scale(rows: &[Row]) -> f64 {
    let largest = |from: usize| {
        let gaps = rows
            .iter()
            .flat_map(|row| &row.tokens)
            .flat_map(|token| [0, 1].map(|policy| f64::from((token[from] - token[policy]).abs())));
        gaps.fold(0.0, f64::max).min(300.0)
    };
    (largest(3) + largest(2).max(largest(0))).exp()
}

/// The first difference, if there is one.
fn difference(found: &Pass, expected: &Pass, scale: f64) -> Option<String> {
    let metrics = found.metrics.to_numbers().into_iter().zip(expected.metrics.to_numbers()).enumerate();
    let metrics = metrics.map(|(index, pair)| (format!("metric {index}"), pair));
    let gradients = |what: &'static str, found: &[f64], expected: &[f64]| {
        let pairs = found.iter().copied().zip(expected.iter().copied()).enumerate();
        pairs.map(|(token, pair)| (format!("{what} {token}"), pair)).collect::<Vec<_>>()
    };
    let all = metrics.chain(gradients("gradient", &found.gradient, &expected.gradient)).chain(gradients(
        "entropy gradient",
        &found.entropy_gradient,
        &expected.entropy_gradient,
    ));
    let mut all = all.filter(|(_, (found, expected))| !close(*found, *expected, scale));
    all.next().map(|(what, (found, expected))| format!("{what}: {found} instead of {expected}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn agrees_with_the_reference(
        rows in prop::collection::vec(arbitrary_row(), 1..5), options in arbitrary_options(), known in any::<bool>(),
    ) {
        let passes = by_libtorch(&rows, &options, known);
        for (number, (found, expected)) in passes.iter().zip(by_reference(&rows, &options, known)).enumerate() {
            let difference = difference(found, &expected, scale(&rows));
            prop_assert!(difference.is_none(), "pass {number}, {}", difference.unwrap_or_default());
            let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
            prop_assert!(finite(&found.gradient) && found.metrics.loss.is_finite());
        }
    }

    #[test]
    fn figures_of_parts_are_those_of_the_whole(
        rows in prop::collection::vec(arbitrary_row(), 2..5), options in arbitrary_options(),
    ) {
        let whole = by_libtorch(&rows, &options, true).remove(0).metrics;
        let plans = make_plan(&rows, &options);
        let part = |index: usize| {
            let row = &rows[index..=index];
            let mut plan = make_plan(row, &options);
            // With the positions of the whole step.
            let tokens = plans.completions[index].clone();
            plan.weights = plans.weights[tokens.clone()].to_vec();
            plan.shares = plans.shares[tokens.clone()].to_vec();
            plan.ratio_shares = plans.ratio_shares[tokens].to_vec();
            plan.completion_share = plans.completion_share;
            let batch = MicroBatch { groups: vec![], moves: true, plan, behaviour_logprobs: Some(column(row, 2)) };
            let mut tokens = Tokens::new(&batch, Some(&Tensor::from_slice(&column(row, 3))), Device::Cpu);
            let [policy, entropy] = [0, 4].map(|index| Tensor::from_slice(&column(row, index)));
            objective(&policy, Some(&entropy), &mut tokens, &options).metrics
        };
        let parts: Vec<OnDevice> = (0..rows.len()).map(part).collect();
        for (found, expected) in OnDevice::total(&parts).to_numbers().into_iter().zip(whole.to_numbers()) {
            prop_assert!(close(found, expected, scale(&rows)), "{found} instead of {expected}");
        }
    }
}

#[test]
fn overflow_never_produces_nan() {
    let row = |tokens: Vec<Token>| Row {
        tokens,
        advantage: 0.0,
        cut: false,
        items: vec![],
        item_advantages: vec![],
    };
    let options = Options { beta: 0.1, ..Options::default() };
    let far = [0.0, 0.0, -2000.0, 2000.0, 1.0];
    let pass = by_libtorch(&[row(vec![far])], &options, true).remove(0);
    assert!(pass.metrics.loss.is_finite() && pass.gradient[0].abs() < f64::EPSILON);
    assert!((pass.metrics.largest_gap - 2000.0).abs() < 1e-9);
    let pass = by_libtorch(&[row(vec![])], &options, true).remove(0);
    assert!(pass.metrics.loss.abs() < f64::EPSILON && pass.gradient.is_empty());
}
