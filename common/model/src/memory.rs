//! Detection of a device's exhausted memory, and release of memory to other processes.
//!
//! libtorch's binding panics on errors; the message identifies the cause. The caller then computes in parts, which differ in
//! rounding alone.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// libtorch's messages for exhausted GPU memory: from its own allocator, the driver, and cuBLAS.
const WORDS: [&str; 3] = ["CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"];

/// The device's memory is exhausted; holds the first line of libtorch's message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsedUp(pub String);

/// Computes, and returns an error if memory is exhausted; the free memory of libtorch's cache is then released. Other
/// panics propagate.
pub fn attempt<T>(compute: impl FnOnce() -> T) -> Result<T, UsedUp> {
    // A panic leaves the inner mode of autograd; the guard restores the mode of this scope.
    let mode = tch::no_grad_guard();
    // The caller discards partial results before it retries.
    let outcome = catch_unwind(AssertUnwindSafe(|| tch::with_grad(compute)));
    drop(mode);
    outcome.map_err(|panic| {
        let used_up = used_up(panic.as_ref()).unwrap_or_else(|| resume_unwind(panic));
        release_cache();
        used_up
    })
}

/// Returns the free memory of libtorch's cache to the device, so that other processes can use it.
pub fn release_cache() {
    if let Err(error) = podium_torch_shim::empty_cache() {
        tracing::warn!("{error}");
    }
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
mod tests {
    use tch::{Kind, Tensor};

    use super::*;

    #[test]
    fn exhausted_memory_is_distinguished_from_other_failures() {
        let line = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB.";
        let message = format!("{line}\nException raised from malloc at CUDACachingAllocator.cpp");
        let allocate = || Err::<(), _>(tch::TchError::Torch(message.clone()));
        assert_eq!(attempt(|| allocate().unwrap()), Err(UsedUp(line.to_owned())));
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
