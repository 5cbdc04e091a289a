//! Selection among the probabilities of rows.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, checked};

unsafe extern "C" {
    fn podium_torch_nucleus(
        logits: *mut torch_sys::C_tensor,
        mass: *mut torch_sys::C_tensor,
        least: i64,
        threshold: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// Returns, for each row, the lowest of the largest logits that are needed so that their mass is at least `least`, or the
/// lowest of all. `logits`: float32, `mass`: int64, both \[rows, tokens\] on a CPU. Returns \[rows, 1\].
pub fn nucleus(logits: &Tensor, mass: &Tensor, least: i64) -> Result<Tensor, Error> {
    let mut threshold = std::ptr::null_mut();
    // SAFETY: the tensors outlive the call; the result is a tensor on the heap, which the caller owns.
    unsafe {
        let (logits, mass) = (logits.as_ptr().cast_mut(), mass.as_ptr().cast_mut());
        checked("select a nucleus", podium_torch_nucleus(logits, mass, least, &raw mut threshold))?;
        Ok(Tensor::from_ptr(threshold))
    }
}
