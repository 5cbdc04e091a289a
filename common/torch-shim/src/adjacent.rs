//! Tensors that are adjacent parts of one.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, checked};

unsafe extern "C" {
    fn podium_torch_adjacent(
        parts: *const *mut torch_sys::C_tensor,
        count: usize,
        joint: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// Returns the tensor of which `parts` are the adjacent parts along the first dimension, in this order, in the same memory
/// and without gradients; `None` if they are not adjacent in one allocation.
///
/// # Panics
/// If there is no part, or a part without dimensions.
pub fn adjacent(parts: &[&Tensor]) -> Result<Option<Tensor>, Error> {
    assert!(!parts.is_empty() && parts.iter().all(|part| part.dim() > 0), "parts of one dimension or more");
    let parts: Vec<_> = parts.iter().map(|part| part.as_ptr().cast_mut()).collect();
    let mut joint = std::ptr::null_mut();
    // SAFETY: the array and its tensors outlive the call; a result is a tensor on the heap, which the caller owns.
    unsafe {
        let message = podium_torch_adjacent(parts.as_ptr(), parts.len(), &raw mut joint);
        checked("join tensors", message)?;
        Ok((!joint.is_null()).then(|| Tensor::from_ptr(joint)))
    }
}
