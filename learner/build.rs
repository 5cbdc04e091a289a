//! Tells binaries and tests where libtorch lies. The path is a RUNPATH, so that `LD_LIBRARY_PATH` wins over it.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
