//! How the threads of a parallel loop wait for each other.

use std::os::unix::process::CommandExt;
use std::{env, io, process};

const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Starts this process once more with threads that sleep while they wait, unless the environment has a wish. Call first
/// thing in the `main` of a process that computes.
///
/// libgomp's threads spin by default, which takes time from the processes that share their cores: a step then takes ten
/// times as long. It reads the policy when it is loaded, before `main`. Where that fails, the process goes on as it is.
pub fn wait_asleep() {
    if env::var_os(WAIT_POLICY).is_some() {
        return;
    }
    let again = |program| -> io::Error {
        process::Command::new(program).args(env::args_os().skip(1)).env(WAIT_POLICY, "passive").exec()
    };
    let error = env::current_exe().map_or_else(|error| error, again);
    tracing::warn!("cannot set {WAIT_POLICY} ({error}): computing is slow where cores are shared");
}
