//! The functions of the shim, on a CPU.

use podium_torch_shim::{
    FusedAdamW, count, device_memory, empty_cache, fused_adamw, is_deterministic, set_deterministic,
    take_gradient, track,
};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn deterministic_algorithms_are_set() {
    set_deterministic(true).unwrap();
    assert!(is_deterministic().unwrap());
    set_deterministic(false).unwrap();
    assert!(!is_deterministic().unwrap());
}

#[test]
fn memory_of_tensors_is_tracked() {
    let number = 1000;
    let bytes = 4 * number;
    let before = Tensor::zeros([number], FLOAT);
    let (sum, tracked) = track(|| {
        let first = Tensor::ones([number], FLOAT);
        let second = &first + &before;
        drop(first);
        second + 1.0
    })
    .unwrap();
    assert_eq!(sum.size(), [number]);
    // Allocations are rounded up to the alignment.
    let close = |measured: i64, expected: i64| (expected..expected + 1024).contains(&measured);
    assert!(close(tracked.peak, 2 * bytes) && close(tracked.remaining, bytes), "{tracked:?}");
}

#[test]
fn tracking_ends_with_a_panic_and_is_not_nested() {
    assert!(std::panic::catch_unwind(|| track(|| panic!("out of memory"))).is_err());
    let (nested, _) = track(|| track(|| ())).unwrap();
    assert!(nested.unwrap_err().message.contains("already tracks"));
}

#[test]
fn backward_is_part_of_the_tracked_memory() {
    let number = 1 << 20;
    let weights = Tensor::ones([number], FLOAT).set_requires_grad(true);
    let ((), tracked) = track(|| (&weights * &weights).sum(Kind::Float).backward()).unwrap();
    // The product; then the gradients of both factors.
    assert!(tracked.peak >= 8 * number, "{tracked:?}");
    assert!((4 * number..4 * number + 4096).contains(&tracked.remaining), "{tracked:?}");
}

#[test]
fn operations_are_counted() {
    let x = Tensor::ones([4, 4], FLOAT);
    let (value, counted) = count(|| {
        let y = (&x + &x).transpose(0, 1).contiguous();
        y.linear(&x, None::<&Tensor>).to_kind(Kind::Double).sum(Kind::Double).double_value(&[])
    })
    .unwrap();
    assert!((value - 128.0).abs() < f64::EPSILON);
    // The sum, two copies, the product and the sum of all; the transposed view and the empty memory are free.
    assert_eq!((counted.kernels, counted.copies, counted.reads), (5, 2, 1), "{counted:?}");
    assert!(counted.calls >= 6, "{counted:?}");
}

#[test]
fn a_gradient_is_taken_once_and_the_next_backward_starts_anew() {
    let weights = Tensor::ones([2], FLOAT).set_requires_grad(true);
    assert!(take_gradient(&weights).unwrap().is_none());
    for factor in [3.0, 5.0] {
        (&weights * factor).sum(Kind::Float).backward();
        assert_eq!(take_gradient(&weights).unwrap(), Some(Tensor::from_slice(&[factor as f32; 2])));
        assert!(!weights.grad().defined());
    }
}

#[test]
fn a_fused_step_is_that_of_adamw() {
    let tensor = |values: &[f32]| Tensor::from_slice(values);
    let (weights, gradients) = (tensor(&[1.0, -2.0]), tensor(&[0.5, 0.25]));
    let (first, second) = (tensor(&[0.0, 0.1]), tensor(&[0.0, 0.2]));
    let options = FusedAdamW {
        step: 3,
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.1,
        epsilon: 1e-8,
    };
    fused_adamw(&[&weights], &[&gradients], &[&first], &[&second], &options).unwrap();
    for (index, (weight, gradient, m, v)) in
        [(1.0, 0.5, 0.0, 0.0), (-2.0, 0.25, 0.1, 0.2)].into_iter().enumerate()
    {
        let (m, v) = (0.9 * m + 0.1 * gradient, 0.99 * v + 0.01 * gradient * gradient);
        let (corrected, root) = (m / (1.0 - 0.9_f64.powi(3)), (v / (1.0 - 0.99_f64.powi(3))).sqrt());
        let expected: f64 = weight - 0.01 * (0.1 * weight + corrected / (root + 1e-8));
        let found = weights.double_value(&[index as i64]);
        assert!((found - expected).abs() < 1e-6, "{found} {expected}");
    }
}

#[test]
fn errors_of_libtorch_are_returned() {
    let float = Tensor::ones([2], FLOAT);
    let whole = Tensor::ones([2], (Kind::Int64, Device::Cpu));
    let options = FusedAdamW {
        step: 1,
        learning_rate: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        weight_decay: 0.0,
        epsilon: 1e-8,
    };
    let error = fused_adamw(&[&whole], &[&float], &[&float], &[&float], &options).unwrap_err();
    assert!(error.to_string().starts_with("libtorch cannot step AdamW: "), "{error}");
}

#[test]
fn without_a_gpu_its_memory_is_an_error_and_the_cache_is_empty() {
    empty_cache().unwrap();
    if !tch::Cuda::is_available() {
        assert!(device_memory(0).is_err());
    }
}
