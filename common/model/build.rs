//! Tells the tests and examples of this crate where libtorch lies.
//!
//! Every crate whose binaries or tests use libtorch needs these lines and a direct dependency on `torch-sys`, which is
//! what brings `DEP_TCH_LIBTORCH_LIB` here. The path is a RUNPATH, so that `LD_LIBRARY_PATH` wins over it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
