//! Attention without materialised scores, against a plain softmax over all scores.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_torch_shim::{PromptQueries, Sequences, attention};
use tch::{Device, Kind, Tensor};

const QUERY_HEADS: i64 = 6;
const KEY_HEADS: i64 = 2;
const D: i64 = 16;
const SCALE: f64 = 0.3;

/// For each row with a query, the rows that it attends to.
fn seen(sequences: Sequences) -> Vec<Vec<i64>> {
    let Sequences { prompts, completions, queries } = sequences;
    let (mut rows, mut ranges, mut first) = (Vec::new(), Vec::new(), 0);
    for length in prompts {
        let first_query = if queries == PromptQueries::All { 0 } else { length - 1 };
        rows.extend((first_query..*length).map(|row| (first..=first + row).collect::<Vec<_>>()));
        ranges.push(first..first + length);
        first += length;
    }
    for (index, length) in completions.iter().enumerate() {
        let prompt = ranges[index * prompts.len() / completions.len()].clone();
        rows.extend((0..*length).map(|row| prompt.clone().chain(first..=first + row).collect()));
        first += length;
    }
    rows
}

/// Softmax over the scores of the rows that each row attends to.
fn plain([query, key, value]: &[Tensor; 3], sequences: Sequences) -> Tensor {
    let repeats = QUERY_HEADS / KEY_HEADS;
    let row = |(row, seen): (usize, &Vec<i64>)| {
        let seen = Tensor::from_slice(seen);
        let of_heads = |x: &Tensor| {
            x.index_select(0, &seen).repeat_interleave_self_int(repeats, 1, None).transpose(0, 1)
        };
        let scores = query.get(row as i64).unsqueeze(1).bmm(&of_heads(key).transpose(1, 2)) * SCALE;
        scores.softmax(-1, None).bmm(&of_heads(value)).squeeze_dim(1)
    };
    Tensor::stack(&seen(sequences).iter().enumerate().map(row).collect::<Vec<_>>(), 0)
}

fn whole<'a>(prompts: &'a [i64], completions: &'a [i64]) -> Sequences<'a> {
    Sequences { prompts, completions, queries: PromptQueries::All }
}

fn inputs(rows: i64, kind: Kind) -> [Tensor; 3] {
    inputs_of(rows, rows, kind)
}

fn inputs_of(queries: i64, keys: i64, kind: Kind) -> [Tensor; 3] {
    [(queries, QUERY_HEADS), (keys, KEY_HEADS), (keys, KEY_HEADS)].map(|(rows, heads)| {
        let numbers = Tensor::arange(rows * heads * D, (Kind::Double, Device::Cpu));
        let x = (numbers * (1.0 + heads as f64 / 7.0)).sin() * 2.0;
        x.view([rows, heads, D]).to_kind(kind).set_requires_grad(true)
    })
}

/// The largest difference, relative to the largest number.
fn difference(one: &Tensor, other: &Tensor) -> f64 {
    let (one, other) = (one.to_kind(Kind::Double), other.to_kind(Kind::Double));
    ((&one - &other).abs().max() / other.abs().max()).double_value(&[])
}

fn compare(prompts: &[i64], completions: &[i64], kind: Kind, limit: f64) {
    let keys = prompts.iter().chain(completions).sum();
    let all = whole(prompts, completions);
    compare_queries(all, keys, kind, limit);
    let last = prompts.len() as i64 + completions.iter().sum::<i64>();
    compare_queries(Sequences { queries: PromptQueries::Last, ..all }, last, kind, limit);
}

fn compare_queries(sequences: Sequences, rows: i64, kind: Kind, limit: f64) {
    let keys = sequences.prompts.iter().chain(sequences.completions).sum();
    let inputs = || inputs_of(rows, keys, kind);
    let (own, exact) = (inputs(), inputs().map(|x| x.detach().to_kind(Kind::Double).set_requires_grad(true)));
    let output = attention(&own[0], &own[1], &own[2], sequences, SCALE).unwrap();
    let expected = plain(&exact, sequences);
    let weight = (Tensor::arange(rows * QUERY_HEADS * D, (Kind::Double, Device::Cpu)) * 0.7).cos();
    let weight = weight.view([rows, QUERY_HEADS, D]);
    for (output, kind) in [(&output, kind), (&expected, Kind::Double)] {
        (output * weight.to_kind(kind)).sum(Kind::Double).backward();
    }
    let gradients = own.iter().zip(&exact).map(|(own, exact)| difference(&own.grad(), &exact.grad()));
    let differences: Vec<f64> = std::iter::once(difference(&output, &expected)).chain(gradients).collect();
    assert!(
        differences.iter().all(|difference| *difference < limit),
        "{differences:?} for {sequences:?} in {kind:?}"
    );
}

#[test]
fn outputs_and_gradients_are_those_of_a_plain_softmax() {
    for (kind, limit) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5), (Kind::BFloat16, 0.03)] {
        compare(&[5], &[], kind, limit);
        compare(&[7, 7, 3], &[], kind, limit);
        compare(&[4, 9], &[3, 3, 3, 3], kind, limit);
        compare(&[40, 1, 70], &[2, 5, 0, 0, 80, 1], kind, limit);
        compare(&[6, 2], &[0, 0], kind, limit);
    }
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    let run = || {
        let sequences = whole(&[90, 33], &[20, 7, 50, 50]);
        let [query, key, value] = inputs(250, Kind::Float);
        let output = attention(&query, &key, &value, sequences, SCALE).unwrap();
        output.square().sum(Kind::Float).backward();
        [output, query.grad(), key.grad(), value.grad()]
    };
    assert_eq!(run(), run());
}

#[test]
fn numbers_that_are_not_finite_reach_the_outputs() {
    // More keys than the kernel processes at once.
    for (prompt, completion) in [(5, 3), (700, 3)] {
        let (prompts, completions) = ([prompt], [completion]);
        let sequences = whole(&prompts, &completions);
        for place in 0..3 {
            let inputs = inputs(prompt + completion, Kind::Float).map(|x| x.detach());
            // A number of the prompt's first token, which all rows see.
            let _ = inputs[place].get(0).get(1).get(2).fill_(f64::NAN);
            let [query, key, value] = &inputs;
            let output = attention(query, key, value, sequences, SCALE).unwrap();
            let broken = output.isnan().any_dim(-1, false).any_dim(-1, false);
            let found = [0, prompt + completion - 1].map(|row| broken.int64_value(&[row]) == 1);
            assert_eq!(found, [true, place > 0], "input {place} of {prompt} and {completion} tokens");
        }
    }
}

#[test]
fn zeros_are_numbers() {
    let zeros = |heads: i64| Tensor::zeros([4, heads, D], (Kind::Float, Device::Cpu));
    let sequences = whole(&[3], &[1]);
    let output = attention(&zeros(2), &zeros(1), &zeros(1), sequences, SCALE).unwrap();
    assert_eq!(output, zeros(2));
}

#[test]
fn wrong_shapes_are_an_error() {
    let rows = |rows: i64, heads: i64| Tensor::zeros([rows, heads, D], (Kind::Float, Device::Cpu));
    let sequences = whole(&[3], &[]);
    let odd = attention(&rows(3, 5), &rows(3, 2), &rows(3, 2), sequences, SCALE);
    assert!(odd.unwrap_err().to_string().contains("5 query heads"));
    let kinds = attention(&rows(3, 4), &rows(3, 2), &rows(3, 2).to_kind(Kind::Double), sequences, SCALE);
    assert!(kinds.is_err());
}
