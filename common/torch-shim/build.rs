//! Compiles the C++ part against libtorch's headers, which lie beside the libraries that torch-sys links.
//!
//! Needs no CUDA toolkit: nothing here includes a CUDA header.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let folder =
        env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys passes the folder of libtorch's libraries");
    println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    let include = Path::new(&folder).join("../include");
    let compile = |name: &str, files: &[&str], contract: &str| {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .flag_if_supported("-fvisibility=hidden")
            // Whether products are fused with sums: see vectorised.h and vectors.h.
            .flag(contract)
            // The compiler vectorizes conditions on floats only if comparisons need not raise exceptions, which nothing
            // here reads.
            .flag_if_supported("-fno-trapping-math")
            .flag_if_supported("-fno-math-errno")
            // libtorch's headers are not ours to correct.
            .flag(format!("-isystem{}", include.display()))
            .files(files.iter().map(|name| format!("cpp/{name}.cpp")));
        if build.get_compiler().is_like_gnu() {
            // libtorch's threads are those of GNU's OpenMP, which lies beside it: see `at::parallel_for`.
            build.flag("-fopenmp");
            println!("cargo::rustc-link-lib=dylib=gomp");
        }
        build.compile(name);
    };
    let plain = [
        "adjacent",
        "amx",
        "attention",
        "context",
        "error",
        "exponentials",
        "flash",
        "gate",
        "linear",
        "memory",
        "operations",
        "optimizer",
        "rows",
        "sampling",
    ];
    compile("podium_torch_shim_fused", &["cached", "low_rank"], "-ffp-contract=fast");
    compile("podium_torch_shim", &plain, "-ffp-contract=off");
}
