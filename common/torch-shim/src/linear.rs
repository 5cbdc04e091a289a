//! Linear maps in sampling, with adapters. On a CPU 2 to 128 rows are computed transposed, which is faster.

use std::ffi::c_char;
use std::ptr;

use tch::Tensor;

use crate::{Error, created, raw};

unsafe extern "C" {
    fn podium_torch_linear(
        x: *mut torch_sys::C_tensor,
        weight: *mut torch_sys::C_tensor,
        bias: *mut torch_sys::C_tensor,
        parts: *const RawLowRank,
        count: usize,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
    fn podium_torch_gated_linear(
        x: *mut torch_sys::C_tensor,
        weight: *mut torch_sys::C_tensor,
        parts: *const RawLowRank,
        count: usize,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// `podium_low_rank`.
#[repr(C)]
struct RawLowRank {
    a: *mut torch_sys::C_tensor,
    b: *mut torch_sys::C_tensor,
    scale: f64,
    first: i64,
}

/// The low-rank part of some outputs of a linear map: `scale` · `x` · `a`ᵀ · `b`ᵀ is added to them (Hu et al. 2021,
/// arXiv:2106.09685). Of 2 to 128 rows on a CPU it is computed in float32 and added before the sum is rounded; otherwise in
/// the type of `x`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// \[rank, inputs\], float32 or bfloat16.
    pub a: &'a Tensor,
    /// \[outputs of this part, rank\], float32 or bfloat16.
    pub b: &'a Tensor,
    /// Factor of the product.
    pub scale: f64,
    /// The first of these outputs.
    pub first: i64,
}

fn raw_parts(parts: &[LowRank]) -> Vec<RawLowRank> {
    let part =
        |part: &LowRank| RawLowRank { a: raw(part.a), b: raw(part.b), scale: part.scale, first: part.first };
    parts.iter().map(part).collect()
}

/// Returns `x` · `weight`ᵀ + `bias`, and the low-rank parts, without gradients. `x`: \[rows, inputs\], float32 or bfloat16;
/// `weight`: \[outputs, inputs\]; `bias`: \[outputs\].
pub fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    parts: &[LowRank],
) -> Result<Tensor, Error> {
    let bias = bias.map_or(ptr::null_mut(), raw);
    let parts = raw_parts(parts);
    // SAFETY: the tensors and the parts outlive the call.
    unsafe {
        created("compute a linear map", |output| {
            podium_torch_linear(raw(x), raw(weight), bias, parts.as_ptr(), parts.len(), output)
        })
    }
}

/// Returns the [`gate`](crate::gate) of two linear maps of `x`, with low-rank parts, without gradients:
/// silu(`x` · gateᵀ) · (`x` · upᵀ). `x`: \[rows, inputs\]; `weight`: \[2 · outputs, inputs\], the gate's and then the other
/// map's, whose parts begin at output `outputs`.
pub fn gated_linear(x: &Tensor, weight: &Tensor, parts: &[LowRank]) -> Result<Tensor, Error> {
    let parts = raw_parts(parts);
    // SAFETY: as above.
    unsafe {
        created("compute a gated map", |output| {
            podium_torch_gated_linear(raw(x), raw(weight), parts.as_ptr(), parts.len(), output)
        })
    }
}
