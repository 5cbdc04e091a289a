//! The same bits on different processors.
//!
//! MKL, oneDNN and libtorch choose code paths by the processor, and code paths differ in rounding. [`pin`] fixes the choice
//! through their environment variables:
//!
//! - MKL: `MKL_CBWR=COMPATIBLE`, the only branch that it supports on processors of all makers. On AMD processors it treats
//!   `AVX2` as `AUTO`.
//! - libtorch's own kernels: `ATEN_CPU_CAPABILITY=avx2`.
//! - oneDNN: `ONEDNN_MAX_CPU_ISA=AVX2`.

use std::os::unix::process::CommandExt;
use std::{env, io, process};

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
    #[error("run.portable is true, and this program cannot be started again with {} set", names())]
    Start {
        /// The system's error.
        source: io::Error,
    },
}

/// Restarts this process with code paths that are the same on every x86-64 processor with AVX2 and
/// FMA. Returns if they are pinned already. Must be called before the first computation, because
/// the libraries read the variables once.
pub fn pin() -> Result<(), Error> {
    if !has_the_instructions() {
        return Err(Error::Processor);
    }
    if PINNED.iter().all(|(name, value)| env::var(name).is_ok_and(|found| found == *value)) {
        return Ok(());
    }
    let program = env::current_exe().map_err(|source| Error::Start { source })?;
    let source = process::Command::new(program).args(env::args_os().skip(1)).envs(PINNED).exec();
    Err(Error::Start { source })
}

#[cfg(target_arch = "x86_64")]
fn has_the_instructions() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
const fn has_the_instructions() -> bool {
    false
}

fn names() -> String {
    PINNED.map(|(name, _)| name).join(", ")
}
