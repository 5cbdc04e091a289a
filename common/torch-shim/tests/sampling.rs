//! Kernels of sampling on a CPU: attention to a cache, and the choice of tokens.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_torch_shim::{Cached, Heads, Selection, cached_attention, draw};
use tch::{Device, Kind, Tensor};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);
const ONE: i64 = 1 << 52;

fn numbers(shape: &[i64], phase: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, DOUBLE) * 1.7 + phase).sin().view(shape)
}

/// Prompts, key heads, queries per key, size of a head, positions of prompts, completions, capacity.
struct Sizes {
    prompts: i64,
    heads: i64,
    repeats: i64,
    d: i64,
    width: i64,
    group: i64,
    capacity: i64,
}

struct Tensors {
    prompt_key: Tensor,
    prompt_value: Tensor,
    own_key: Tensor,
    own_value: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

impl Tensors {
    fn new(sizes: &Sizes, kind: Kind) -> Self {
        let &Sizes { prompts: b, heads: h, repeats: r, d, width, group: g, capacity } = sizes;
        let of = |shape: &[i64], phase: f64| numbers(shape, phase).to_kind(kind);
        Self {
            prompt_key: of(&[b, h, d, width], 0.1),
            prompt_value: of(&[b, h, width, d], 0.2),
            own_key: of(&[b, h, g, d, capacity], 0.3),
            own_value: of(&[b, h, g, capacity, d], 0.4),
            query: of(&[b * g, h * r, d], 0.5),
            key: of(&[b * g, h, d], 0.6),
            value: of(&[b * g, h, d], 0.7),
        }
    }

    fn attend(&self, prompt_lengths: &[i64], length: i64) -> Result<Tensor, podium_torch_shim::Error> {
        let Self { prompt_key, prompt_value, own_key, own_value, query, key, value } = self;
        let cached = Cached { prompt_key, prompt_value, prompt_lengths, own_key, own_value, length };
        cached_attention(cached, Heads { query, key, value }, 0.25)
    }
}

/// Attention of one completion's query head, in float64.
fn exact(
    tensors: &Tensors,
    sizes: &Sizes,
    (row, head): (i64, i64),
    prompt_length: i64,
    length: i64,
) -> Tensor {
    let (prompt, completion, key_head) = (row / sizes.group, row % sizes.group, head / sizes.repeats);
    let of = |x: &Tensor| x.get(prompt).get(key_head).to_kind(Kind::Double);
    let own = |x: &Tensor| of(x).get(completion);
    let keys = Tensor::cat(
        &[of(&tensors.prompt_key).narrow(1, 0, prompt_length), own(&tensors.own_key).narrow(1, 0, length)],
        1,
    );
    let values = Tensor::cat(
        &[
            of(&tensors.prompt_value).narrow(0, 0, prompt_length),
            own(&tensors.own_value).narrow(0, 0, length),
        ],
        0,
    );
    let query = tensors.query.get(row).get(head).to_kind(Kind::Double).unsqueeze(0);
    (query.matmul(&keys) * 0.25).softmax(-1, None).matmul(&values).squeeze_dim(0)
}

#[test]
fn attention_to_a_cache_is_that_of_all_keys() {
    let sizes = |prompts, heads, repeats, d, width, group, capacity| Sizes {
        prompts,
        heads,
        repeats,
        d,
        width,
        group,
        capacity,
    };
    let cases = [
        (sizes(2, 2, 2, 16, 32, 3, 16), vec![32, 5], 1),
        (sizes(1, 1, 3, 48, 16, 2, 64), vec![0], 37),
        // More keys than are computed at once, and more queries.
        (sizes(1, 2, 1, 64, 1040, 70, 64), vec![1033], 64),
        (sizes(1, 1, 80, 16, 16, 2, 16), vec![16], 5),
    ];
    for (sizes, prompt_lengths, length) in &cases {
        for (kind, limit) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.01)] {
            let tensors = Tensors::new(sizes, kind);
            let attended = tensors.attend(prompt_lengths, *length).unwrap().to_kind(Kind::Double);
            let heads = sizes.heads * sizes.repeats;
            let attended = attended.view([-1, heads, sizes.d]);
            for row in 0..sizes.prompts * sizes.group {
                // The new keys and values are stored.
                let stored = |x: &Tensor| x.get(row / sizes.group).select(1, row % sizes.group);
                assert_eq!(stored(&tensors.own_key).select(-1, length - 1), tensors.key.get(row));
                assert_eq!(stored(&tensors.own_value).select(1, length - 1), tensors.value.get(row));
                let prompt_length = prompt_lengths[(row / sizes.group) as usize];
                for head in 0..heads {
                    let expected = exact(&tensors, sizes, (row, head), prompt_length, *length);
                    let difference = (attended.get(row).get(head) - expected).abs().max().double_value(&[]);
                    assert!(difference < limit, "{kind:?}, row {row}, head {head}: {difference}");
                }
            }
        }
    }
}

#[test]
fn wrong_caches_are_an_error() {
    let sizes = Sizes { prompts: 1, heads: 2, repeats: 2, d: 16, width: 16, group: 3, capacity: 16 };
    let tensors = || Tensors::new(&sizes, Kind::Float);
    assert!(tensors().attend(&[16], 16).is_ok());
    for length in [0, 17] {
        assert!(tensors().attend(&[16], length).is_err(), "length {length}");
    }
    let other = |shape: &[i64]| numbers(shape, 0.0).to_kind(Kind::Float);
    let mut broken: [Tensors; 5] = std::array::from_fn(|_| tensors());
    broken[0].prompt_value = other(&[1, 2, 32, 16]);
    broken[1].own_value = other(&[1, 2, 3, 32, 16]);
    broken[2].key = other(&[3, 4, 16]);
    broken[3].query = other(&[3, 3, 16]);
    broken[4].own_key = numbers(&[1, 2, 3, 16, 16], 0.0);
    for (index, tensors) in broken.iter().enumerate() {
        assert!(tensors.attend(&[16], 5).is_err(), "{index}");
    }
}

/// The tokens that may be drawn, by a sort: those with at least the lowest logit that is needed.
fn kept(logits: &[f32], selection: Selection) -> Vec<usize> {
    let mut sorted = logits.to_vec();
    sorted.sort_by(|one, other| other.total_cmp(one));
    if selection.top_k > 0 {
        sorted.truncate(selection.top_k as usize);
    }
    let total: f64 = sorted.iter().map(|logit| f64::from(*logit).exp()).sum();
    let mut sum = 0.0;
    let needed = sorted.iter().find(|logit| {
        sum += f64::from(**logit).exp() / total;
        selection.least == 0 || sum * ONE as f64 >= selection.least as f64
    });
    let lowest = match selection.least {
        0 if selection.top_k == 0 => f32::NEG_INFINITY,
        0 => *sorted.last().unwrap(),
        _ => *needed.or(sorted.last()).unwrap(),
    };
    (0..logits.len()).filter(|token| logits[*token] >= lowest).collect()
}

#[test]
fn drawn_tokens_are_those_of_a_sort() {
    for tokens in [5, 1000] {
        // Rounded, so that many logits are equal.
        let logits = ((numbers(&[1, tokens], 0.7) * 16.0).round() / 4.0).to_kind(Kind::Float);
        let row = Vec::<f32>::try_from(logits.view(-1)).unwrap();
        let logprobs = Vec::<f32>::try_from(logits.log_softmax(-1, None).view(-1)).unwrap();
        for (top_k, share) in [(0, 0.0), (0, 1e-16), (0, 0.3), (0, 0.91), (3, 0.0), (4000, 0.5), (4, 0.6)] {
            let selection = Selection { greedy: false, top_k, least: (share * ONE as f64).ceil() as i64 };
            let expected = kept(&row, selection);
            let mass: f64 = expected.iter().map(|token| f64::from(logprobs[*token]).exp()).sum();
            let mut below = 0.0;
            for token in &expected {
                let share = f64::from(logprobs[*token]).exp() / mass;
                // In the middle of the token's part of the distribution.
                let drawn = draw(&logits, selection, &[below + share / 2.0]).unwrap()[0];
                assert_eq!(drawn.token as usize, *token, "{selection:?}");
                assert!((drawn.logprob - logprobs[*token]).abs() < 1e-5);
                assert!((f64::from(drawn.sampled_logprob) - share.ln()).abs() < 1e-4);
                below += share;
            }
        }
    }
}

#[test]
fn greedy_and_broken_rows() {
    let greedy = Selection { greedy: true, top_k: 0, least: 0 };
    let logits = Tensor::from_slice2(&[[1.0_f32, 3.0, 3.0], [f32::NAN, 0.0, 1.0], [0.0, f32::INFINITY, 1.0]]);
    for selection in [greedy, Selection { greedy: false, least: ONE / 2, ..greedy }] {
        let drawn = draw(&logits, selection, &[0.0; 3]).unwrap();
        assert_eq!(drawn[0].token, 1, "the first of equals");
        assert!(drawn[0].logprob.is_finite() && drawn[1].logprob.is_nan() && drawn[2].logprob.is_nan());
    }
    assert!(draw(&logits.to_kind(Kind::Double), greedy, &[0.0; 3]).is_err());
}
