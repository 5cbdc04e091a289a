//! The environment variables that libraries of a computing process read once, before its first computation.
//!
//! | variable | value | purpose |
//! |---|---|---|
//! | `OMP_WAIT_POLICY` | `passive` | Threads of libgomp spin while they wait by default, which takes time from processes that share their cores; a step then takes ten times as long. |
//! | `GOMP_SPINCOUNT` | `5000` | Only if no other process needs the cores ([`SHORT_SPIN`]). |
//! | `MALLOC_MMAP_MAX_`, `MALLOC_TRIM_THRESHOLD_`, `MALLOC_TOP_PAD_` | `0`, 1 TiB, 64 MiB | The allocator of the GNU C library retains the memory of tensors instead of returning it to the system, which would clear it again: a GRPO step on a CPU takes 10 to 20 % less processor time. The peak is the same. |
//! | `CUBLAS_WORKSPACE_CONFIG` | `:4096:8` | Without it cuBLAS may choose another algorithm in every run; libtorch refuses deterministic algorithms then. |
//! | `PYTORCH_ALLOC_CONF` | `expandable_segments:True` | Tensors of changing sizes do not fragment the memory of a GPU. |
//! | `NCCL_NVLS_ENABLE` | `0` | Sums in the switches between GPUs (`NVLink` SHARP) may change their order from call to call. |
//!
//! With `run.portable`, which fixes code paths that otherwise depend on the processor and differ in rounding:
//!
//! | variable | value | purpose |
//! |---|---|---|
//! | `MKL_CBWR` | `COMPATIBLE` | the only branch of MKL that it supports on processors of all makers; on AMD processors it treats `AVX2` as `AUTO` |
//! | `ATEN_CPU_CAPABILITY` | `avx2` | libtorch's own kernels |
//! | `ONEDNN_MAX_CPU_ISA` | `AVX2` | oneDNN |

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::{env, io, process, thread};

/// Variables that are set unless the environment sets them.
const USUAL: [(&str, &str); 7] = [
    ("OMP_WAIT_POLICY", "passive"),
    ("MALLOC_MMAP_MAX_", "0"),
    ("MALLOC_TRIM_THRESHOLD_", "1099511627776"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    (ALLOCATOR, "expandable_segments:True"),
    ("NCCL_NVLS_ENABLE", "0"),
];

/// Lets threads of libgomp spin for some 100 µs before they sleep: sampling is 1.2 to 1.4 times as fast, since a sleeping thread
/// takes up to 200 µs to wake. Two processes that spin on the same cores become several times slower.
pub const SHORT_SPIN: (&str, &str) = ("GOMP_SPINCOUNT", "5000");

/// Returns whether threads may spin: whether this machine has a core for each of the `threads` that compute at the same time.
pub fn may_spin(threads: usize) -> bool {
    thread::available_parallelism().is_ok_and(|cores| threads <= cores.get())
}

/// The settings of libtorch's allocator.
pub const ALLOCATOR: &str = "PYTORCH_ALLOC_CONF";
/// The older name of `PYTORCH_ALLOC_CONF`, which libtorch still reads.
const ALLOCATOR_BEFORE: &str = "PYTORCH_CUDA_ALLOC_CONF";

/// Variables that portable runs set, whatever the environment sets.
const PINNED: [(&str, &str); 3] =
    [("MKL_CBWR", "COMPATIBLE"), ("ATEN_CPU_CAPABILITY", "avx2"), ("ONEDNN_MAX_CPU_ISA", "AVX2")];

/// The reasons why the code paths cannot be pinned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The processor lacks the instructions of the pinned code.
    #[error(
        "run.portable is true, and this processor has no AVX2 with FMA: expected an x86-64 processor that has both, or \
         run.portable = false"
    )]
    Processor,
    /// The process cannot be restarted.
    #[error("run.portable is true, and this program cannot be started again with {} set", PINNED.map(|(name, _)| name).join(", "))]
    Start(#[source] io::Error),
}

/// Prepares a process of a run: see [`prepare_alone`].
pub fn prepare(portable: bool) -> Result<(), Error> {
    restart(portable, &missing(portable, |name| env::var_os(name)))
}

/// Restarts this process with the missing variables; returns if none is missing. Must be called before the first
/// computation. If the restart fails, the process continues unchanged, unless the run is portable. `threads`: number of
/// libtorch threads of this process, which computes alone.
pub fn prepare_alone(portable: bool, threads: usize) -> Result<(), Error> {
    let mut missing = missing(portable, |name| env::var_os(name));
    missing.extend(Some(SHORT_SPIN).filter(|(name, _)| may_spin(threads) && env::var_os(name).is_none()));
    restart(portable, &missing)
}

fn restart(portable: bool, missing: &[(&str, &str)]) -> Result<(), Error> {
    if portable && !has_the_instructions() {
        return Err(Error::Processor);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let again = |program| -> io::Error {
        process::Command::new(program).args(env::args_os().skip(1)).envs(missing.iter().copied()).exec()
    };
    let error = env::current_exe().map_or_else(|error| error, again);
    if portable {
        return Err(Error::Start(error));
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| *name).collect();
    tracing::warn!("cannot set {} ({error}): computing may be slow", names.join(", "));
    Ok(())
}

/// Returns the variables that processes on GPUs, or on a CPU without `run.portable`, lack in the present environment.
pub fn missing_here() -> Vec<(&'static str, &'static str)> {
    missing(false, |name| env::var_os(name))
}

/// Returns the variables that `environment` lacks.
fn missing(
    portable: bool,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'static str, &'static str)> {
    let is_set = |name: &str| environment(name).is_some();
    let usual = USUAL
        .into_iter()
        .filter(|(name, _)| !is_set(name) && (*name != ALLOCATOR || !is_set(ALLOCATOR_BEFORE)));
    let pinned = PINNED
        .into_iter()
        .filter(|(name, value)| portable && environment(name).is_none_or(|found| found != *value));
    usual.chain(pinned).collect()
}

#[cfg(target_arch = "x86_64")]
fn has_the_instructions() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_the_instructions() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_variables_are_set() {
        let names = |portable, set: &[(&str, &str)]| -> Vec<_> {
            let find = |name: &str| set.iter().find(|(own, _)| *own == name).map(|(_, value)| value.into());
            missing(portable, find).into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(false, &[]), USUAL.map(|(name, _)| name));
        let own = [("OMP_WAIT_POLICY", "active"), (ALLOCATOR_BEFORE, ""), ("CUBLAS_WORKSPACE_CONFIG", "")];
        let allocator = [("MALLOC_MMAP_MAX_", ""), ("MALLOC_TRIM_THRESHOLD_", ""), ("MALLOC_TOP_PAD_", "")];
        let own = [&own[..], &[("NCCL_NVLS_ENABLE", "1")], &allocator].concat();
        assert!(names(false, &own).is_empty());
        let other = [&own[..], &[("MKL_CBWR", "AUTO"), ("ATEN_CPU_CAPABILITY", "avx2")]].concat();
        assert_eq!(names(true, &other), ["MKL_CBWR", "ONEDNN_MAX_CPU_ISA"]);
    }
}
