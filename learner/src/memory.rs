//! What happens when the device's memory does not hold a micro-batch: it gets smaller, and the step begins again.
//!
//! How groups are cut into micro-batches changes a result by rounding alone, so that a rank may decide for itself. The
//! decision is pure; what recognises the error knows libtorch's words.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What libtorch says when the memory of a GPU is used up: by its own allocator, by the driver, and by cuBLAS.
const WORDS: [&str; 3] = ["CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"];

/// Groups that go through the policy at once. What did not fit once is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MicroBatch {
    groups: usize,
}

impl MicroBatch {
    /// As the run file has it; at least one.
    pub(crate) fn of(groups: u32) -> Self {
        Self { groups: (groups as usize).max(1) }
    }

    pub(crate) const fn groups(self) -> usize {
        self.groups
    }

    /// What to try when it did not fit with so many groups at hand: half as many at once; `None` where it was one already.
    pub(crate) fn smaller(self, at_hand: usize) -> Option<Self> {
        let groups = self.groups.min(at_hand) / 2;
        (groups > 0).then_some(Self { groups })
    }
}

/// The memory of the device is used up; libtorch's first line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedUp(pub(crate) String);

/// Computes, and tells memory that is used up from everything else. libtorch's binding panics on errors; other panics go on.
pub(crate) fn attempt<T>(compute: impl FnOnce() -> T) -> Result<T, UsedUp> {
    // A panic leaves the mode of autograd as it was inside; the guard brings back that of here.
    let mode = tch::no_grad_guard();
    // What the computation leaves half done is zeroed by whoever tries again.
    let outcome = catch_unwind(AssertUnwindSafe(|| tch::with_grad(compute)));
    drop(mode);
    outcome.map_err(|panic| used_up(panic.as_ref()).unwrap_or_else(|| resume_unwind(panic)))
}

fn used_up(panic: &(dyn Any + Send)) -> Option<UsedUp> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied())?;
    let start = WORDS.iter().find_map(|words| text.find(words))?;
    // Behind it comes a trace of libtorch's calls.
    let line = text[start..].split(['\n', '\\']).next().unwrap_or_default();
    Some(UsedUp(line.to_owned()))
}

#[cfg(test)]
pub(crate) mod injected {
    //! A device that holds no more than so many groups at once.

    use std::cell::Cell;

    thread_local! {
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(crate) fn room(groups: usize) {
        ROOM.set(groups);
    }

    /// Fails as libtorch's binding does where there is no room.
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
    fn memory_that_is_used_up_is_told_from_other_failures() {
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
