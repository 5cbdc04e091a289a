//! One tensor of a memory-mapped file.

use std::ops::Range;

use memmap2::{Mmap, UncheckedAdvice};

use crate::header::{Dtype, TensorInfo};

/// A tensor in its memory-mapped file. Dropping the view releases the memory of its pages, so that
/// a reader of one tensor after another has at most one of them in memory.
#[derive(Debug)]
pub struct TensorView<'a> {
    pub(crate) info: TensorInfo,
    pub(crate) map: &'a Mmap,
    pub(crate) range: Range<usize>,
}

impl TensorView<'_> {
    /// Returns the type of its numbers.
    pub fn dtype(&self) -> Dtype {
        self.info.dtype
    }

    /// Returns its shape.
    pub fn shape(&self) -> &[i64] {
        &self.info.shape
    }

    /// Returns its numbers, little-endian, with the last dimension innermost. The bytes are not
    /// aligned.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl Drop for TensorView<'_> {
    fn drop(&mut self) {
        #[allow(unsafe_code, reason = "the system retains the pages of a mapped file until it is advised")]
        // SAFETY: the mapping is shared and read-only. A page that is accessed again, here or by
        // another view, is read from the file again and holds the same bytes.
        let advised = unsafe {
            self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, self.range.start, self.range.len())
        };
        // If the system ignores the advice, only memory is lost.
        let _ = advised;
    }
}
