//! Recovery from an out-of-memory error of the device: the micro-batch is reduced, and the step restarts.
//!
//! The size of micro-batches changes results by rounding alone, so that each rank decides for itself. The decision is
//! pure; the detection of the error matches libtorch's messages.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// libtorch's messages for exhausted GPU memory: from its own allocator, the driver, and cuBLAS.
const WORDS: [&str; 3] = ["CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"];

/// Number of groups per micro-batch. A size that did not fit is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MicroBatch {
    groups: usize,
}

impl MicroBatch {
    /// The run file's size; at least one.
    pub(crate) fn of(groups: u32) -> Self {
        Self { groups: (groups as usize).max(1) }
    }

    pub(crate) const fn groups(self) -> usize {
        self.groups
    }

    /// Returns the next size to try after `at_hand` groups did not fit: half as many; `None` after a single group.
    pub(crate) fn smaller(self, at_hand: usize) -> Option<Self> {
        let groups = self.groups.min(at_hand) / 2;
        (groups > 0).then_some(Self { groups })
    }
}

/// The device's memory is exhausted; holds the first line of libtorch's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedUp(pub(crate) String);

/// Computes, and returns an error if memory is exhausted. libtorch's binding panics on errors; other panics
/// propagate.
pub(crate) fn attempt<T>(compute: impl FnOnce() -> T) -> Result<T, UsedUp> {
    // A panic leaves the inner mode of autograd; the guard restores the mode of this scope.
    let mode = tch::no_grad_guard();
    // The caller zeroes partial results before it retries.
    let outcome = catch_unwind(AssertUnwindSafe(|| tch::with_grad(compute)));
    drop(mode);
    outcome.map_err(|panic| used_up(panic.as_ref()).unwrap_or_else(|| resume_unwind(panic)))
}

fn used_up(panic: &(dyn Any + Send)) -> Option<UsedUp> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied())?;
    let start = WORDS.iter().find_map(|words| text.find(words))?;
    // A trace of libtorch's calls follows the message.
    let line = text[start..].split(['\n', '\\']).next().unwrap_or_default();
    Some(UsedUp(line.to_owned()))
}

#[cfg(test)]
pub(crate) mod injected {
    //! Simulates a device that holds a limited number of groups.

    use std::cell::Cell;

    thread_local! {
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(crate) fn room(groups: usize) {
        ROOM.set(groups);
    }

    /// Fails like libtorch's binding if there is no memory left.
    pub(crate) fn take(groups: usize) {
        if groups > ROOM.get() {
            allocate().unwrap();
        }
    }

    fn allocate() -> Result<(), tch::TchError> {
        Err(tch::TchError::Torch(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB.\nException raised from \
             malloc at CUDACachingAllocator.cpp"
                .into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn micro_batches_are_halved_down_to_one_group() {
        let whole = MicroBatch::of(12);
        let mut tried = vec![whole.groups()];
        let mut next = whole.smaller(9);
        while let Some(smaller) = next {
            tried.push(smaller.groups());
            next = smaller.smaller(9);
        }
        assert_eq!(tried, [12, 4, 2, 1]);
        assert_eq!(MicroBatch::of(0).groups(), 1);
        assert_eq!(whole.smaller(0), None, "a rank without groups has nothing to make smaller");
    }

    #[test]
    fn exhausted_memory_is_distinguished_from_other_failures() {
        injected::room(1);
        let line = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB.";
        assert_eq!(attempt(|| injected::take(2)), Err(UsedUp(line.to_owned())));
        for words in WORDS {
            assert!(attempt(|| panic!("{words}")).is_err(), "{words}");
        }
        assert_eq!(attempt(|| 7), Ok(7));
        let other = catch_unwind(|| attempt(|| panic!("index out of range")));
        assert_eq!(other.unwrap_err().downcast_ref::<&str>(), Some(&"index out of range"));
    }

    #[test]
    fn autograd_is_as_before_after_a_failure_within_no_grad() {
        let failed = attempt(|| tch::no_grad(|| -> () { panic!("CUDA out of memory.") }));
        assert!(failed.is_err());
        let x = Tensor::ones([1], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        assert!((&x * 2.0).requires_grad());
    }
}
