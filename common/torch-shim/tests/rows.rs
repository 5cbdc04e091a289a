//! Kernels over rows, against compositions of libtorch's operations.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use podium_torch_shim::{
    HeadNorms, LowRank, adjacent, gate, gated_linear, linear, norm_rotate, rms_norm, rotate,
};
use tch::{Device, Kind, Tensor};

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);
const EPSILON: f64 = 1e-6;
const KINDS: [(Kind, f64); 2] = [(Kind::Float, 2e-6), (Kind::BFloat16, 0.02)];

/// Numbers without a pattern that the kernels' sixteen parts could hide.
fn numbers(shape: &[i64], phase: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, DOUBLE) * 1.7 + phase).sin().view(shape) * 2.0
}

fn leaf(x: &Tensor, kind: Kind) -> Tensor {
    x.to_kind(kind).set_requires_grad(true)
}

/// The largest difference, relative to the largest number.
fn difference(one: &Tensor, other: &Tensor) -> f64 {
    let (one, other) = (one.to_kind(Kind::Double), other.to_kind(Kind::Double));
    ((&one - &other).abs().max() / other.abs().max()).double_value(&[])
}

/// Compares outputs, and the gradients of their product with fixed numbers.
fn compare(own: (&Tensor, &[&Tensor]), exact: (&Tensor, &[&Tensor]), limit: f64) {
    for (output, _) in [own, exact] {
        (output * numbers(&output.size(), 0.3).to_kind(output.kind())).sum(Kind::Double).backward();
    }
    assert!(difference(own.0, exact.0) < limit, "output: {}", difference(own.0, exact.0));
    for (own, exact) in own.1.iter().zip(exact.1) {
        let difference = difference(&own.grad(), &exact.grad());
        assert!(difference < limit, "gradient: {difference}");
    }
}

fn plain_norm(x: &Tensor, weight: &Tensor) -> Tensor {
    let mean_square = x.square().mean_dim([-1i64].as_slice(), true, None);
    x * (mean_square + EPSILON).rsqrt() * weight
}

fn plain_rotation(x: &Tensor, cosine: &Tensor, sine: &Tensor) -> Tensor {
    x * cosine.unsqueeze(1) + x.roll([x.size()[2] / 2], [2]) * sine.unsqueeze(1)
}

/// Cosines and sines of rows, the first half of the sines negated.
fn angles(rows: i64, size: i64, kind: Kind) -> (Tensor, Tensor) {
    let angles = numbers(&[rows, size / 2], 0.9);
    let (cosine, sine) = (angles.cos(), angles.sin());
    (Tensor::cat(&[&cosine, &cosine], 1).to_kind(kind), Tensor::cat(&[&(-&sine), &sine], 1).to_kind(kind))
}

#[test]
fn norms_and_their_gradients() {
    tch::set_num_threads(2);
    // 37: not a multiple of the sixteen parts. 3,000 rows: both threads.
    for (rows, size) in [(3, 37), (3000, 64), (1, 5)] {
        for (kind, limit) in KINDS {
            let (x, weight) = (numbers(&[rows, size], 0.0), numbers(&[size], 0.5));
            let (own_x, own_weight) = (leaf(&x, kind), leaf(&weight, kind));
            let exact_x = leaf(&own_x.detach(), Kind::Double);
            let exact_weight = leaf(&own_weight.detach(), Kind::Double);
            let own = rms_norm(&own_x, &own_weight, EPSILON).unwrap();
            compare(
                (&own, &[&own_x, &own_weight]),
                (&plain_norm(&exact_x, &exact_weight), &[&exact_x, &exact_weight]),
                limit,
            );
        }
    }
}

#[test]
fn rotations_and_their_gradients() {
    for (kind, limit) in KINDS {
        let (rows, heads, size) = (700, 3, 32);
        // A part of longer rows.
        let whole = leaf(&numbers(&[rows, heads + 2, size], 0.1), kind);
        let exact_whole = leaf(&whole.detach(), Kind::Double);
        let (cosine, sine) = angles(rows, size, kind);
        let part = |whole: &Tensor| whole.narrow(1, 1, heads);
        let own = rotate(&part(&whole), &cosine, &sine).unwrap();
        let exact =
            plain_rotation(&part(&exact_whole), &cosine.to_kind(Kind::Double), &sine.to_kind(Kind::Double));
        compare((&own, &[&whole]), (&exact, &[&exact_whole]), limit);
    }
}

#[test]
fn norm_and_rotation_in_one_pass_have_the_same_bits() {
    for (kind, _) in KINDS {
        let (rows, queries, keys, size) = (90, 4, 2, 24);
        let whole = numbers(&[rows, queries + keys + 3, size], 0.2).to_kind(kind);
        let x = whole.narrow(1, 0, queries + keys);
        let (cosine, sine) = angles(rows, size, kind);
        let weights = [0.4, 0.6].map(|phase| numbers(&[size], phase).to_kind(kind));
        let parts = [x.narrow(1, 0, queries), x.narrow(1, queries, keys)];
        let norms = HeadNorms { query: &weights[0], key: &weights[1], epsilon: EPSILON };
        let joint = norm_rotate(&x, queries, Some(norms), &cosine, &sine).unwrap();
        let normed = [0, 1].map(|part| rms_norm(&parts[part], &weights[part], EPSILON).unwrap());
        let apart = normed.map(|heads| rotate(&heads, &cosine, &sine).unwrap());
        assert_eq!(joint, Tensor::cat(&apart, 1));
        let joint = norm_rotate(&x, queries, None, &cosine, &sine).unwrap();
        assert_eq!(joint, rotate(&x, &cosine, &sine).unwrap());
    }
}

#[test]
fn wrong_rows_are_an_error() {
    let x = |kind| numbers(&[2, 3, 8], 0.0).to_kind(kind);
    let (cosine, sine) = angles(2, 8, Kind::Float);
    assert!(rms_norm(&x(Kind::Float), &numbers(&[7], 0.0).to_kind(Kind::Float), EPSILON).is_err());
    assert!(rms_norm(&x(Kind::Float), &numbers(&[8], 0.0), EPSILON).is_err());
    let half = x(Kind::Half);
    let refused = rms_norm(&half, &numbers(&[8], 0.0).to_kind(Kind::Half), EPSILON).unwrap_err();
    assert!(refused.to_string().contains("expected float32 or bfloat16"), "{refused}");
    assert!(rotate(&x(Kind::BFloat16), &cosine, &sine).is_err());
    assert!(rotate(&x(Kind::Float), &cosine.narrow(0, 0, 1), &sine).is_err());
    assert!(norm_rotate(&x(Kind::Float), 4, None, &cosine, &sine).is_err());
}

#[test]
fn a_gate_has_the_gradients_of_its_composition() {
    for (kind, limit) in KINDS {
        // Parts of longer rows, and a number of columns that no vector divides.
        let whole = numbers(&[7, 80], 0.4) * 3.0;
        let part = |x: &Tensor, first: i64| x.narrow(1, first, 37);
        let (own, exact) = (leaf(&whole, kind), leaf(&whole.to_kind(kind), Kind::Double));
        let output = gate(&part(&own, 0), &part(&own, 40)).unwrap();
        let expected = part(&exact, 0).silu() * part(&exact, 40);
        compare((&output, &[&own]), (&expected, &[&exact]), limit);
    }
    assert!(gate(&numbers(&[2, 8], 0.0), &numbers(&[2, 8], 0.0)).is_err(), "float64");
    let float = |shape: &[i64]| numbers(shape, 0.0).to_kind(Kind::Float);
    assert!(gate(&float(&[2, 8]), &float(&[2, 9])).is_err());
}

/// The factors of an adapter.
struct Factors {
    a: Tensor,
    b: Tensor,
}

impl Factors {
    fn new(rank: i64, inputs: i64, outputs: i64) -> Self {
        let float = |shape: &[i64], shift| numbers(shape, shift).to_kind(Kind::Float);
        Self { a: float(&[rank, inputs], 0.4), b: float(&[outputs, rank], 0.5) }
    }

    fn to_kind(&self, kind: Kind) -> Self {
        Self { a: self.a.to_kind(kind), b: self.b.to_kind(kind) }
    }

    fn part(&self, first: i64) -> LowRank<'_> {
        LowRank { a: &self.a, b: &self.b, scale: 0.5, first }
    }

    /// The exact product for `x`.
    fn product(&self, x: &Tensor) -> Tensor {
        let double = |x: &Tensor| x.to_kind(Kind::Double);
        double(x).linear::<Tensor>(&double(&self.a), None).linear::<Tensor>(&double(&self.b), None) * 0.5
    }
}

/// Inputs and outputs: those that no vector divides, and those of the tile units of processors.
const SHAPES: [(i64, i64); 2] = [(24, 37), (64, 48)];

#[test]
fn a_linear_map_of_any_number_of_rows_is_the_product() {
    let double = |x: &Tensor| x.to_kind(Kind::Double);
    for ((kind, limit), (inputs, outputs)) in
        KINDS.into_iter().flat_map(|kind| SHAPES.map(|shape| (kind, shape)))
    {
        let weight = numbers(&[outputs, inputs + 5], 0.1).to_kind(kind).narrow(1, 3, inputs);
        let bias = numbers(&[outputs], 0.2).to_kind(kind);
        let factors = [Factors::new(5, inputs, 20), Factors::new(4, inputs, outputs - 20).to_kind(kind)];
        for rows in [1, 2, 17, 128, 129] {
            // Rows and weights may be parts of longer ones.
            let x = numbers(&[rows, inputs + 7], 0.3).to_kind(kind).narrow(1, 0, inputs);
            for bias in [None, Some(&bias)] {
                let exact = double(&x).linear(&double(&weight), bias.map(double).as_ref());
                let own = linear(&x, &weight, bias, &[]).unwrap();
                let case = format!("{kind:?}, {rows} rows, {inputs} inputs");
                assert!(own.is_contiguous() && difference(&own, &exact) < limit, "{case}");

                let [one, other] = &factors;
                let own = linear(&x, &weight, bias, &[one.part(0), other.part(20)]).unwrap();
                let exact = exact + Tensor::cat(&[one.product(&x), other.product(&x)], 1);
                assert!(own.is_contiguous() && difference(&own, &exact) < limit, "{case}, adapted");
            }
        }
    }
}

#[test]
fn a_gated_linear_map_is_the_gate_of_two_maps() {
    for ((kind, limit), (inputs, n)) in KINDS.into_iter().flat_map(|kind| SHAPES.map(|shape| (kind, shape))) {
        let weight = numbers(&[2 * n, inputs], 0.1).to_kind(kind);
        // The second part begins within a block of sixteen outputs.
        let factors = [Factors::new(5, inputs, n), Factors::new(4, inputs, n - 5)];
        let parts = [factors[0].part(0), factors[1].part(n + 3)];
        for rows in [1, 2, 17, 128, 129] {
            let x = numbers(&[rows, inputs], 0.3).to_kind(kind);
            let gated = |product: &Tensor| gate(&product.narrow(1, 0, n), &product.narrow(1, n, n)).unwrap();
            for parts in [&parts[..0], &parts] {
                let of_maps = gated(&linear(&x, &weight, None, parts).unwrap());
                let own = gated_linear(&x, &weight, parts).unwrap();
                let difference = difference(&own, &of_maps);
                assert!(difference < limit, "{kind:?}, {rows} rows, {inputs} inputs: {difference}");
                assert!(
                    kind != Kind::Float || !parts.is_empty() || own == of_maps,
                    "{rows} rows: other bits"
                );
            }
        }
    }
    let x = numbers(&[2, 24], 0.0).to_kind(Kind::Float);
    assert!(gated_linear(&x, &numbers(&[5, 24], 0.1).to_kind(Kind::Float), &[]).is_err(), "an odd number");
    let outside = Factors::new(4, 24, 3);
    let weight = numbers(&[6, 24], 0.1).to_kind(Kind::Float);
    assert!(linear(&x, &weight, None, &[outside.part(4)]).is_err(), "outputs beyond the last");
    assert!(linear(&x, &weight, None, &[Factors::new(4, 25, 3).part(0)]).is_err(), "other inputs");
    let half = |shape: &[i64]| numbers(shape, 0.1).to_kind(Kind::BFloat16);
    for inputs in [96, 100] {
        assert!(linear(&half(&[4, inputs]), &half(&[48, 64]), None, &[]).is_err(), "{inputs} inputs for 64");
        assert!(gated_linear(&half(&[4, inputs]), &half(&[96, 64]), &[]).is_err(), "{inputs} inputs for 64");
    }
    assert!(linear(&half(&[4, 24]), &weight, None, &[]).is_err(), "other types");
}

#[test]
fn adjacent_parts_are_joined_in_place() {
    let whole = numbers(&[6, 4], 0.0);
    let parts = [whole.narrow(0, 0, 1), whole.narrow(0, 1, 3), whole.narrow(0, 4, 2)];
    let [first, second, third] = &parts;
    let joint = adjacent(&[first, second, third]).unwrap().unwrap();
    assert_eq!((joint.data_ptr(), joint.size()), (whole.data_ptr(), vec![6, 4]));
    assert_eq!(adjacent(&[second, third]).unwrap().unwrap(), whole.narrow(0, 1, 5));
    for others in [vec![first, third], vec![second, first], vec![first, &second.copy()]] {
        assert!(adjacent(&others).unwrap().is_none());
    }
}
