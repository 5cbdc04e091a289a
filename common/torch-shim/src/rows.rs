//! Layers that process the rows of activations: norm, gate and rotation, each in one pass over memory.

use std::ffi::c_char;
use std::ptr;

use tch::Tensor;

use crate::{Error, created, raw};

unsafe extern "C" {
    fn podium_torch_rms_norm(
        x: *mut torch_sys::C_tensor,
        weight: *mut torch_sys::C_tensor,
        epsilon: f64,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
    fn podium_torch_gate(
        gate: *mut torch_sys::C_tensor,
        up: *mut torch_sys::C_tensor,
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
    // SAFETY: the tensors outlive the call.
    unsafe { created("norm rows", |output| podium_torch_rms_norm(raw(x), raw(weight), epsilon, output)) }
}

/// Returns silu(`gate`) · `up` with gradients, computed in float32 (Shazeer 2020, arXiv:2002.05202). Both: \[rows, n\] of the
/// same type, float32 or bfloat16; rows may be parts of longer ones.
pub fn gate(gate: &Tensor, up: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: as above.
    unsafe { created("compute a gate", |output| podium_torch_gate(raw(gate), raw(up), output)) }
}

/// Returns x · cosine + swapped(x) · sine with gradients to `x`, where swapped exchanges the halves of each head (Su et
/// al. 2021, arXiv:2104.09864). `x`: \[rows, heads, D\]; `cosine`, `sine`: \[rows, D\] of the same type, float32 or
/// bfloat16, the first half of the sines negated.
pub fn rotate(x: &Tensor, cosine: &Tensor, sine: &Tensor) -> Result<Tensor, Error> {
    // SAFETY: as above.
    unsafe { created("rotate heads", |output| podium_torch_rotate(raw(x), raw(cosine), raw(sine), output)) }
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
    let (query, key) =
        norms.map_or((ptr::null_mut(), ptr::null_mut()), |norms| (raw(norms.query), raw(norms.key)));
    let epsilon = norms.map_or(0.0, |norms| norms.epsilon);
    // SAFETY: as above.
    unsafe {
        created("norm and rotate heads", |output| {
            let (cosine, sine) = (raw(cosine), raw(sine));
            podium_torch_norm_rotate(raw(x), query_heads, query, key, epsilon, cosine, sine, output)
        })
    }
}
