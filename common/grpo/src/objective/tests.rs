use proptest::prelude::*;

use super::*;
use crate::group::{Completion, FinishReason, RankCredit};
use crate::options::{Correction, Credit};
use crate::plan::{Credited, StepSize};

/// A token: log-probability under the policy, the behaviour policy, the policy at the step's start and the reference;
/// entropy.
type Token = [f64; 5];

/// Tokens, advantage, whether the completion was truncated, and its item.
type Row = (Vec<Token>, f64, bool, Option<Range<u32>>);

fn plan(rows: &[Row], options: &Options) -> Plan {
    let finish = |cut| if cut { FinishReason::Length } else { FinishReason::Stop };
    let completion = |(tokens, _, cut, _): &Row| Completion {
        token_ids: vec![0; tokens.len()],
        text: String::new(),
        text_ends: vec![],
        logprobs: vec![0.0; tokens.len()],
        sampled_logprobs: None,
        allowed: Vec::new(),
        finish_reason: finish(*cut),
    };
    let completions: Vec<Completion> = rows.iter().map(completion).collect();
    let item = |(tokens, .., item): &Row| {
        let item = item.clone().filter(|item| item.end as usize <= tokens.len());
        item.map(|tokens| RankCredit { tokens, reward: 0.0 }).into_iter().collect()
    };
    let items: Vec<Vec<RankCredit>> = rows.iter().map(item).collect();
    let active = completions.iter().filter(|completion| crate::plan::counts(completion, options));
    let tokens = active.map(|completion| completion.len() as u64).sum();
    let size = StepSize { completions: rows.len(), tokens, longest: 6 };
    let credited = rows.iter().zip(&completions).zip(&items).map(|((row, completion), items)| Credited {
        completion,
        advantage: row.1,
        items,
        item_advantages: &[-0.7],
    });
    Plan::new(credited, options, &size)
}

fn column(rows: &[Row], index: usize) -> Vec<f64> {
    rows.iter().flat_map(|row| &row.0).map(|token| token[index]).collect()
}

fn evaluate(rows: &[Row], options: &Options, known: bool) -> Objective {
    let columns = [0, 1, 2, 3, 4].map(|index| column(rows, index));
    let logprobs = Logprobs {
        policy: &columns[0],
        behaviour: known.then_some(&columns[1]),
        old: Some(&columns[2]),
        reference: Some(&columns[3]),
        entropy: &columns[4],
    };
    objective(&plan(rows, options), &logprobs, options)
}

/// A row with all ratios equal to 1.
fn plain(length: usize, advantage: f64) -> Row {
    (vec![[0.0; 5]; length], advantage, false, None)
}

#[test]
fn each_loss_type_sums_tokens_as_defined() {
    let step = [plain(3, 1.0), plain(1, -1.0), plain(0, 1.0)];
    let loss = |loss_type| evaluate(&step, &Options { loss_type, ..Options::default() }, true).metrics.loss;
    for (loss_type, expected) in [
        (LossType::Dapo, -2.0 / 4.0),
        (LossType::Bnpo, -2.0 / 4.0),
        (LossType::DrGrpo, -2.0 / 18.0),
        (LossType::Luspo, -2.0 / 3.0),
        (LossType::Grpo, 0.0),
    ] {
        assert!((loss(loss_type) - expected).abs() < 1e-12, "{loss_type:?}");
    }
}

#[test]
fn clip_metrics_cover_partly_clipped_completions() {
    let token = |log_ratio: f64| [log_ratio, 0.0, 0.0, 0.0, 0.5];
    let rows = [
        (vec![token(1.0), token(0.0)], 1.0, false, None),
        (vec![token(-1.0), token(0.0), token(0.0)], -1.0, false, None),
        (vec![token(-1.0)], -1.0, true, None),
    ];
    let metrics = evaluate(&rows, &Options::default(), true).metrics;
    assert!((metrics.clipped_high - 1.0 / 6.0).abs() < 1e-12);
    assert!((metrics.clipped_low - 2.0 / 6.0).abs() < 1e-12);
    assert!((metrics.most_clipped_high - 0.5).abs() < 1e-12 && metrics.least_clipped_low.abs() < 1e-12);
    assert!((metrics.gap - 0.5).abs() < 1e-12 && (metrics.largest_gap - 1.0).abs() < 1e-12);
    let masked = Options { mask_truncated_completions: true, ..Options::default() };
    let metrics = evaluate(&rows[1..], &masked, true).metrics;
    assert!((metrics.least_clipped_low - 1.0 / 3.0).abs() < 1e-12);
    // One ratio per completion: exp(0.5) and exp(-1/3) are clipped, the masked completion's ratio is not.
    let sequences = Options { importance_sampling_level: Level::Sequence, ..masked };
    let metrics = evaluate(&rows, &sequences, true).metrics;
    assert!((metrics.clipped_high - 1.0 / 3.0).abs() < 1e-12);
    assert!((metrics.clipped_low - 1.0 / 3.0).abs() < 1e-12);
    assert!(metrics.least_clipped_low.abs() < 1e-12 && (metrics.most_clipped_high - 1.0).abs() < 1e-12);
}

#[test]
fn importance_weights_are_capped_or_masked() {
    // Ratios to the behaviour policy: 4, 2 and 1/2. The policy equals that at the step's start.
    let token = |ratio: f64| [0.0, -ratio.ln(), 0.0, 0.0, 0.0];
    let rows =
        [(vec![token(4.0), token(0.5)], 1.0, false, None), (vec![token(2.0), token(2.0)], 1.0, false, None)];
    let loss = |importance_sampling_correction| {
        let options = Options { importance_sampling_correction, ..Options::default() };
        let metrics = evaluate(&rows, &options, true).metrics;
        (-4.0 * metrics.loss, metrics.least_correction, metrics.correction, metrics.most_correction)
    };
    let close = |found: (f64, f64, f64, f64), expected: [f64; 4]| {
        let found = [found.0, found.1, found.2, found.3];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, {expected:?}");
    };
    close(loss(Correction::TokenTruncate), [7.5, 0.5, 7.5 / 4.0, 3.0]);
    close(loss(Correction::TokenMask), [4.5, 0.0, 4.5 / 4.0, 2.0]);
    close(loss(Correction::SequenceTruncate), [10.0, 2.0, 2.5, 3.0]);
    close(loss(Correction::SequenceMask), [4.0, 0.0, 1.0, 2.0]);
}

fn arbitrary_row() -> impl Strategy<Value = Row> {
    let token = prop::array::uniform5(-3.0..0.0_f64);
    let item = (0..4_u32, 1..4_u32).prop_map(|(start, length)| start..start + length);
    (prop::collection::vec(token, 0..6), -2.0..2.0_f64, any::<bool>(), prop::option::of(item))
}

fn arbitrary_options() -> impl Strategy<Value = Options> {
    use LossType::{Bnpo, Cispo, Dapo, DrGrpo, Grpo, Luspo, Sapo};
    let loss_type = prop::sample::select(vec![Grpo, Bnpo, DrGrpo, Dapo, Luspo, Cispo, Sapo]);
    let level = prop::sample::select(vec![Level::Token, Level::Sequence, Level::Rank]);
    let bounds = (prop::option::of(0.1..5.0_f64), prop::option::of(1.3..3.0_f64));
    let correction = prop::sample::select(vec![Correction::None, Correction::TokenTruncate]);
    let numbers = (prop::sample::select(vec![0.0, 0.1]), prop::sample::select(vec![0.0, 0.05]));
    (loss_type, level, bounds, correction, numbers, any::<[bool; 2]>()).prop_map(
        |(loss_type, level, bounds, correction, numbers, [corrected_kl, masked])| Options {
            loss_type,
            importance_sampling_level: level,
            credit: Credit::Rank,
            epsilon_high: bounds.0,
            delta: bounds.1,
            importance_sampling_correction: correction,
            beta: numbers.0,
            entropy_coef: numbers.1,
            use_bias_correction_kl: corrected_kl,
            mask_truncated_completions: masked,
            ..Options::default()
        },
    )
}

/// Whether a ratio is close to a bound, where the loss is not differentiable.
fn has_corner(rows: &[Row], options: &Options, known: bool) -> bool {
    let columns = [0, 1, 2].map(|index| column(rows, index));
    let old = if known && !options.renews_old() { &columns[1] } else { &columns[2] };
    let (low, high) = options.ratio_bounds();
    let bounds = [Some(low), Some(high), options.delta];
    let ratios = ratio::log_ratios(&plan(rows, options), &columns[0], old);
    let near = |log: &f64| bounds.iter().flatten().any(|bound| (log.exp() - bound).abs() < 1e-4);
    ratios.iter().any(near)
}

proptest! {
    #[test]
    fn the_gradient_matches_finite_differences(
        rows in prop::collection::vec(arbitrary_row(), 1..4), options in arbitrary_options(), known in any::<bool>(),
    ) {
        prop_assume!(!has_corner(&rows, &options, known));
        let here = evaluate(&rows, &options, known);
        let mut flat = 0;
        for row in 0..rows.len() {
            for token in 0..rows[row].0.len() {
                let slope = |column: usize| {
                    let shifted = |by: f64| {
                        let mut rows = rows.clone();
                        rows[row].0[token][column] += by;
                        evaluate(&rows, &options, known).metrics.loss
                    };
                    (shifted(1e-6) - shifted(-1e-6)) / 2e-6
                };
                // `cispo` treats its weight as a constant, so that its gradient is not the derivative of its loss.
                if options.loss_type != LossType::Cispo {
                    prop_assert!((slope(0) - here.gradient[flat]).abs() < 1e-5);
                }
                prop_assert!((slope(4) - here.entropy_gradient[flat]).abs() < 1e-7);
                flat += 1;
            }
        }
    }
}
