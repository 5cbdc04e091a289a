//! Layers that process the rows of activations one by one: norm and rotation, each in one pass over memory.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, checked};

unsafe extern "C" {
    fn podium_torch_rms_norm(
        x: *mut torch_sys::C_tensor,
        weight: *mut torch_sys::C_tensor,
        epsilon: f64,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
    fn podium_torch_rotate(
        x: *mut torch_sys::C_tensor,
        cosine: *mut torch_sys::C_tensor,
        sine: *mut torch_sys::C_tensor,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
    fn podium_torch_norm_rotate(
        x: *mut torch_sys::C_tensor,
        query_heads: i64,
        query_weight: *mut torch_sys::C_tensor,
        key_weight: *mut torch_sys::C_tensor,
        epsilon: f64,
        cosine: *mut torch_sys::C_tensor,
        sine: *mut torch_sys::C_tensor,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// Returns the rows divided by their root mean square, times `weight`, with gradients (Zhang and Sennrich 2019,
/// arXiv:1910.07467). `x`: \[…, n\]; `weight`: \[n\] of the same type, float32 or bfloat16; sums are float32.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor, Error> {
    let mut output = std::ptr::null_mut();
    // SAFETY: the tensors outlive the call; the result is a tensor on the heap, which the caller owns.
    unsafe {
        let (x, weight) = (x.as_ptr().cast_mut(), weight.as_ptr().cast_mut());
        checked("norm rows", podium_torch_rms_norm(x, weight, epsilon, &raw mut output))?;
        Ok(Tensor::from_ptr(output))
    }
}

/// Returns x · cosine + swapped(x) · sine with gradients to `x`, where swapped exchanges the halves of each head (Su et
/// al. 2021, arXiv:2104.09864). `x`: \[rows, heads, D\]; `cosine`, `sine`: \[rows, D\] of the same type, float32 or
/// bfloat16, the first half of the sines negated.
pub fn rotate(x: &Tensor, cosine: &Tensor, sine: &Tensor) -> Result<Tensor, Error> {
    let mut output = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        let [x, cosine, sine] = [x, cosine, sine].map(|tensor| tensor.as_ptr().cast_mut());
        checked("rotate heads", podium_torch_rotate(x, cosine, sine, &raw mut output))?;
        Ok(Tensor::from_ptr(output))
    }
}

/// The norms of queries and of keys before their rotation.
#[derive(Debug, Clone, Copy)]
pub struct HeadNorms<'a> {
    /// Weights of the norm of queries, \[D\].
    pub query: &'a Tensor,
    /// Weights of the norm of keys, \[D\].
    pub key: &'a Tensor,
    /// Added to the mean square.
    pub epsilon: f64,
}

/// Returns [`rotate`] of the heads, which are first normed like [`rms_norm`] if there are norms: the same bits in one pass,
/// without gradients, on a CPU. `x`: \[rows, heads, D\], where rows may be parts of longer ones; the first `query_heads`
/// heads are queries.
pub fn norm_rotate(
    x: &Tensor,
    query_heads: i64,
    norms: Option<HeadNorms>,
    cosine: &Tensor,
    sine: &Tensor,
) -> Result<Tensor, Error> {
    let mut output = std::ptr::null_mut();
    let weight =
        |of: fn(&HeadNorms) -> *mut torch_sys::C_tensor| norms.as_ref().map_or(std::ptr::null_mut(), of);
    // SAFETY: as above.
    unsafe {
        let message = podium_torch_norm_rotate(
            x.as_ptr().cast_mut(),
            query_heads,
            weight(|norms| norms.query.as_ptr().cast_mut()),
            weight(|norms| norms.key.as_ptr().cast_mut()),
            norms.map_or(0.0, |norms| norms.epsilon),
            cosine.as_ptr().cast_mut(),
            sine.as_ptr().cast_mut(),
            &raw mut output,
        );
        checked("norm and rotate heads", message)?;
        Ok(Tensor::from_ptr(output))
    }
}
