//! One tensor of a memory-mapped file.

use std::ops::Range;

use memmap2::{Mmap, UncheckedAdvice};

use crate::header::{Dtype, TensorInfo};

/// A tensor as it lies in its file. Dropping the view gives the memory of its pages back, so that reading one tensor
/// after another keeps no more than one of them resident.
#[derive(Debug)]
pub struct TensorView<'a> {
    pub(crate) info: TensorInfo,
    pub(crate) map: &'a Mmap,
    pub(crate) range: Range<usize>,
}

impl TensorView<'_> {
    /// Type of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Its shape.
    pub fn shape(&self) -> &[i64] {
        &self.info.shape
    }

    /// Its numbers, little-endian, the last dimension innermost. Not aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Drop for TensorView<'_> {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "the operating system keeps pages of a mapped file until it is told")]
        // SAFETY: the mapping is shared and read-only, so that a page that is looked at again, here or by another view,
        // is read from the file again and holds the same bytes.
        let advised = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.range.start, self.range.len())
        };
        // Advice that is not taken costs memory and nothing else.
        let _ = advised;
    }
}
