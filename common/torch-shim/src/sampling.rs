//! Draws of tokens from rows of logits, on a CPU.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, checked, raw};

unsafe extern "C" {
    fn podium_torch_draw(
        logits: *mut torch_sys::C_tensor,
        selection: Selection,
        uniform: *const f64,
        drawn: *mut Drawn,
    ) -> *mut c_char;
}

/// Choice among the tokens of a row.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Selection {
    /// The most probable token, the first of equals.
    pub greedy: bool,
    /// Number of the most probable tokens to draw from; 0 for all.
    pub top_k: i64,
    /// Least probability of the tokens to draw from, among the first `top_k`, in units of 2⁻⁵²; 0 for all.
    pub least: i64,
}

/// The token of a row.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Drawn {
    /// Its id.
    pub token: i64,
    /// Log-probability in the full distribution, in nats; NaN if a logit is not finite, minus infinity excepted.
    pub logprob: f32,
    /// Log-probability among the tokens that could be drawn; NaN if greedy.
    pub sampled_logprob: f32,
}

/// Draws a token from each row by inverting its cumulative distribution in the order of token ids. Probabilities are summed
/// in units of 2⁻⁵², exactly. `logits`: float32 \[rows, vocabulary\]; `uniform`: a number in \[0, 1) for each row.
///
/// # Panics
/// If there is not one number for each row.
pub fn draw(logits: &Tensor, selection: Selection, uniform: &[f64]) -> Result<Vec<Drawn>, Error> {
    assert_eq!(logits.size()[0], uniform.len() as i64, "a number for each row");
    let mut drawn = vec![Drawn::default(); uniform.len()];
    // SAFETY: all arguments outlive the call, which writes one result for each row.
    let message = unsafe { podium_torch_draw(raw(logits), selection, uniform.as_ptr(), drawn.as_mut_ptr()) };
    checked("draw tokens", message)?;
    Ok(drawn)
}
