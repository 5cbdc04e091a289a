//! The CUDA libraries of PyTorch's package on a machine without a GPU (`make cuda-libraries`): they load by the
//! production path, every symbol resolves, and NCCL's interface is the one that Podium is built for.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use cudarc::nccl::sys::{ncclConfig_t, ncclUniqueId};
use podium_learner::collective::nccl::Library;
use podium_model::device;

const LEARNER: &str = env!("CARGO_BIN_EXE_podium-learner");
/// The version in the package of torch 2.11.
const NCCL: i32 = 2_28_09;

/// Folder of libtorch's libraries, which tests are linked with.
fn libtorch() -> &'static Path {
    Path::new(env!("PODIUM_LIBTORCH_LIB"))
}

#[test]
fn a_machine_without_a_driver_computes_on_the_cpu() {
    assert!(!Path::new("/proc/driver/nvidia/version").exists(), "this test is for machines without a driver");
    assert_eq!(device::load_cuda().unwrap(), None);
    assert_eq!(device::parse("auto").unwrap(), tch::Device::Cpu);
    let error = device::parse("cuda").unwrap_err().to_string();
    assert!(error.contains("device cuda does not exist: found 0 CUDA devices"), "{error}");
}

#[test]
fn the_cuda_part_loads_with_a_driver_and_refuses_a_gpu_that_computes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["auto", "cuda", "cuda:1"] {
        let output = Command::new(LEARNER)
            .args(["selfcheck", "--no-speed", "--device", name])
            .env("LD_LIBRARY_PATH", podium_cuda_stand_in::install(folder.path()).unwrap())
            .env(podium_cuda_stand_in::machine::VARIABLE, "13.0 1")
            // Every symbol resolves when a library is loaded, not at its first use.
            .env("LD_BIND_NOW", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name}: {text}");
        assert!(
            text.contains("driver for CUDA 13.0 is installed, but libtorch finds no usable GPU"),
            "{name}: {text}"
        );
    }
}

#[test]
fn every_symbol_resolves() {
    for file in [Path::new(LEARNER).to_owned(), libtorch().join("libtorch_cuda.so")] {
        let output = Command::new("ldd").arg("-r").arg(&file).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let broken: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("not found") || line.contains("undefined symbol"))
            .collect();
        assert!(output.status.success() && broken.is_empty(), "{}: {broken:#?}", file.display());
    }
}

#[test]
fn nccl_has_the_version_and_the_structures_that_podium_is_built_for() {
    let library = Library::find().unwrap();
    assert_eq!(library.version(), NCCL);
    let sizes = sizes_in_header(&libtorch().join("../../nvidia/nccl/include"));
    assert_eq!(sizes, [size_of::<ncclConfig_t>(), size_of::<ncclUniqueId>()]);
}

/// Compiles a program against NCCL's header that prints the sizes of `ncclConfig_t` and `ncclUniqueId`.
fn sizes_in_header(include: &Path) -> [usize; 2] {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // Of CUDA's headers NCCL's needs only the type of streams.
    let runtime = "#include <stddef.h>\ntypedef struct CUstream_st *cudaStream_t;\n";
    fs::write(file("cuda_runtime.h"), runtime).unwrap();
    fs::write(file("cuda_fp16.h"), "").unwrap();
    let program = "#include <nccl.h>\n#include <stdio.h>\n\
        int main(void) { printf(\"%zu %zu\", sizeof(ncclConfig_t), sizeof(ncclUniqueId)); }\n";
    fs::write(file("sizes.c"), program).unwrap();
    let compiled = Command::new("cc")
        .arg("-I")
        .args([folder.path(), Path::new("-I"), include])
        .arg(file("sizes.c"))
        .arg("-o")
        .arg(file("sizes"))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(file("sizes")).output().unwrap();
    let numbers: Vec<usize> =
        String::from_utf8(output.stdout).unwrap().split(' ').map(|number| number.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}
