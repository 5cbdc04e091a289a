//! Gradients that change their owner, and libtorch's fused optimizer: one kernel for many tensors, without temporary
//! memory.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, checked};

unsafe extern "C" {
    fn podium_torch_take_gradient(parameter: *mut Tensor_, gradient: *mut *mut Tensor_) -> *mut c_char;
    fn podium_torch_fused_adamw(
        weights: *const *mut Tensor_,
        gradients: *const *mut Tensor_,
        first_moments: *const *mut Tensor_,
        second_moments: *const *mut Tensor_,
        count: usize,
        step: i64,
        learning_rate: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        epsilon: f64,
    ) -> *mut c_char;
}

/// libtorch's tensor, as `tch` points to it.
type Tensor_ = torch_sys::C_tensor;

/// Moves the gradient out of a parameter, which then has none; `None` if it has none. The next backward stores its
/// gradient without a copy.
pub fn take_gradient(parameter: &Tensor) -> Result<Option<Tensor>, Error> {
    let mut gradient = std::ptr::null_mut();
    // SAFETY: the parameter and `gradient` outlive the call. A gradient that is returned is a tensor on the heap, which
    // the result owns.
    unsafe {
        let message = podium_torch_take_gradient(parameter.as_ptr().cast_mut(), &raw mut gradient);
        checked("take a gradient", message)?;
        Ok((!gradient.is_null()).then(|| Tensor::from_ptr(gradient)))
    }
}

/// Hyperparameters of one step of `AdamW` (Loshchilov and Hutter, arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FusedAdamW {
    /// Number of the step, from 1, for the correction of bias.
    pub step: u64,
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moments.
    pub beta1: f64,
    /// Decay of the second moments.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the corrected second moment.
    pub epsilon: f64,
}

/// Applies one step to all `weights`, in place. The four lists correspond by position; the tensors of a position have
/// one shape, and all tensors one device.
///
/// # Panics
/// If the lists differ in length or the tensors of a position in shape: libtorch does not check it.
pub fn fused_adamw(
    weights: &[&Tensor],
    gradients: &[&Tensor],
    first_moments: &[&Tensor],
    second_moments: &[&Tensor],
    options: &FusedAdamW,
) -> Result<(), Error> {
    let lists = [weights, gradients, first_moments, second_moments];
    assert!(lists.iter().all(|list| list.len() == weights.len()), "one tensor of each kind per weight");
    for (position, weight) in weights.iter().enumerate() {
        let shape = weight.size();
        assert!(lists.iter().all(|list| list[position].size() == shape), "tensors of one shape per weight");
    }
    let [weights, gradients, first, second] =
        lists.map(|list| list.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect::<Vec<*mut Tensor_>>());
    // SAFETY: the four arrays hold as many tensors as `count` says, and borrow them for the call; libtorch changes
    // values of tensors behind shared references, as tch's in-place methods do.
    let message = unsafe {
        podium_torch_fused_adamw(
            weights.as_ptr(),
            gradients.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            weights.len(),
            options.step as i64,
            options.learning_rate,
            options.beta1,
            options.beta2,
            options.weight_decay,
            options.epsilon,
        )
    };
    checked("step AdamW", message)
}
