//! Calls of functions that libtorch's binding lacks.

/// Returns the result of a function of the shim. An error is a panic, as in the functions of libtorch's binding, so that
/// [`crate::memory::attempt`] detects exhausted memory.
pub(crate) fn computed<T>(result: Result<T, podium_torch_shim::Error>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
