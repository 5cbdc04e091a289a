//! Attention of a decoding step on a CPU.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, created, raw};

#[repr(C)]
struct Cache {
    prompt_key: *mut torch_sys::C_tensor,
    prompt_value: *mut torch_sys::C_tensor,
    prompt_lengths: *const i64,
    own_key: *mut torch_sys::C_tensor,
    own_value: *mut torch_sys::C_tensor,
    length: i64,
    scale: f64,
}

#[repr(C)]
struct NewRows {
    query: *mut torch_sys::C_tensor,
    key: *mut torch_sys::C_tensor,
    value: *mut torch_sys::C_tensor,
}

unsafe extern "C" {
    fn podium_torch_cached_attention(
        cache: Cache,
        rows: NewRows,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// Stored keys and values of one layer, contiguous. D and numbers of positions are multiples of 16.
#[derive(Debug, Clone, Copy)]
pub struct Cached<'a> {
    /// \[prompts, key heads, D, positions\]
    pub prompt_key: &'a Tensor,
    /// \[prompts, key heads, positions, D\]
    pub prompt_value: &'a Tensor,
    /// Number of tokens of each prompt; positions beyond are not read.
    pub prompt_lengths: &'a [i64],
    /// \[prompts, key heads, completions, D, positions\]
    pub own_key: &'a Tensor,
    /// \[prompts, key heads, completions, positions, D\]
    pub own_value: &'a Tensor,
    /// Number of tokens of each completion, with the new one.
    pub length: i64,
}

/// The heads of new tokens, one of each completion, in the order of their prompts.
#[derive(Debug, Clone, Copy)]
pub struct Heads<'a> {
    /// \[completions, query heads, D\]; adjacent query heads share a key head.
    pub query: &'a Tensor,
    /// \[completions, key heads, D\]
    pub key: &'a Tensor,
    /// \[completions, key heads, D\]
    pub value: &'a Tensor,
}

/// Stores the new keys and values as the last of their completions, and returns the attention of the new tokens to their
/// prompts and completions, \[completions, query heads · D\]; without gradients. All tensors are float32 or bfloat16 on a
/// CPU; products and sums are float32. `scale`: factor of the scores.
///
/// # Panics
/// If there is not one length for each prompt, or one is longer than the stored positions.
pub fn cached_attention(cached: Cached, heads: Heads, scale: f64) -> Result<Tensor, Error> {
    let Cached { prompt_key, prompt_value, prompt_lengths, own_key, own_value, length } = cached;
    let (prompts, positions) = (prompt_key.size()[0], prompt_key.size()[3]);
    assert_eq!(prompt_lengths.len() as i64, prompts, "a length for each prompt");
    assert!(prompt_lengths.iter().all(|length| (0..=positions).contains(length)), "prompts within the cache");
    let cache = Cache {
        prompt_key: raw(prompt_key),
        prompt_value: raw(prompt_value),
        prompt_lengths: prompt_lengths.as_ptr(),
        own_key: raw(own_key),
        own_value: raw(own_value),
        length,
        scale,
    };
    let rows = NewRows { query: raw(heads.query), key: raw(heads.key), value: raw(heads.value) };
    // SAFETY: tensors and lengths outlive the call, which checks the sizes of all tensors.
    unsafe { created("attend to a cache", |output| podium_torch_cached_attention(cache, rows, output)) }
}
