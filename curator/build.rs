//! Sets the library path of libtorch for the tests and examples of this crate.
//!
//! Every crate whose binaries or tests use libtorch needs these lines and a direct dependency on `torch-sys`, which
//! provides `DEP_TCH_LIBTORCH_LIB` here. The path is a RUNPATH, so that `LD_LIBRARY_PATH` takes precedence.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
