//! Attention of completions that share their prompts, without materialised scores.

use std::ffi::c_char;

use tch::Tensor;

use crate::{Error, created, raw};

unsafe extern "C" {
    fn podium_torch_attention(
        query: *mut torch_sys::C_tensor,
        key: *mut torch_sys::C_tensor,
        value: *mut torch_sys::C_tensor,
        prompts: *const i64,
        prompt_count: usize,
        completions: *const i64,
        completion_count: usize,
        last_queries: bool,
        scale: f64,
        output: *mut *mut torch_sys::C_tensor,
    ) -> *mut c_char;
}

/// The sequences in the rows of an attention: all prompts, then all completions.
#[derive(Debug, Clone, Copy)]
pub struct Sequences<'a> {
    /// Number of rows of each prompt, at least 1.
    pub prompts: &'a [i64],
    /// Number of rows of each completion, in the order of their prompts: the same number of completions for each prompt.
    pub completions: &'a [i64],
    /// The rows of prompts that have queries.
    pub queries: PromptQueries,
}

/// The rows of prompts that have queries. All rows of completions have queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptQueries {
    /// All rows.
    All,
    /// The last row of each prompt.
    Last,
}

impl Sequences<'_> {
    fn keys(&self) -> i64 {
        self.prompts.iter().chain(self.completions).sum()
    }

    fn queries(&self) -> i64 {
        match self.queries {
            PromptQueries::All => self.keys(),
            PromptQueries::Last => self.prompts.len() as i64 + self.completions.iter().sum::<i64>(),
        }
    }
}

/// Returns the attention of each row with a query to the rows of its sequence up to itself and, in a completion, to all rows
/// of its prompt; like `query`, with gradients.
///
/// `query`: \[rows with queries, query heads, D\], contiguous in D; `key`, `value`: \[rows, key heads, D\]. The number of query heads
/// is a multiple of that of the key heads; adjacent query heads share a key head. `scale`: factor of the scores.
///
/// Memory is linear in the number of rows (Dao et al. 2022, arXiv:2205.14135).
///
/// # Panics
/// If the sequences do not have as many rows as the tensors.
pub fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    sequences: Sequences,
    scale: f64,
) -> Result<Tensor, Error> {
    let Sequences { prompts, completions, queries } = sequences;
    for (tensor, rows) in [(query, sequences.queries()), (key, sequences.keys()), (value, sequences.keys())] {
        assert_eq!(tensor.size()[0], rows, "a row for each position of the sequences");
    }
    assert!(!prompts.is_empty() && completions.len() % prompts.len() == 0, "equal groups");
    // SAFETY: tensors and arrays outlive the call.
    unsafe {
        created("compute attention", |output| {
            podium_torch_attention(
                raw(query),
                raw(key),
                raw(value),
                prompts.as_ptr(),
                prompts.len(),
                completions.as_ptr(),
                completions.len(),
                queries == PromptQueries::Last,
                scale,
                output,
            )
        })
    }
}
