//! Sets the binary's run-time search path for libtorch.
//!
//! torch-sys passes its own rpath only to its own build. `DT_RUNPATH` (new tags) rather than `DT_RPATH`, so that
//! `LD_LIBRARY_PATH` takes precedence on hosts with libtorch elsewhere.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if let Ok(folder) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
        println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
    }
}
