//! The wait policy of OpenMP threads in parallel loops.

use std::os::unix::process::CommandExt;
use std::{env, io, process};

const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Restarts this process with threads that sleep while they wait, unless the environment sets a
/// policy. Must be called first in the `main` of a computing process.
///
/// libgomp's threads spin by default, which takes time from processes that share their cores; a
/// step then takes ten times as long. libgomp reads the policy when it is loaded, before `main`. If
/// the restart fails, the process continues unchanged.
pub fn wait_asleep() {
    if env::var_os(WAIT_POLICY).is_some() {
        return;
    }
    let again = |program| -> io::Error {
        process::Command::new(program).args(env::args_os().skip(1)).env(WAIT_POLICY, "passive").exec()
    };
    let error = env::current_exe().map_or_else(|error| error, again);
    tracing::warn!("cannot set {WAIT_POLICY} ({error}): computing is slow on shared cores");
}
