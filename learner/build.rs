//! Sets the library paths of libtorch and NCCL for binaries and tests, and the code version for the program. The
//! paths are a RUNPATH, so that `LD_LIBRARY_PATH` takes precedence.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo::rustc-link-arg=-Wl,--enable-new-dtags");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        // PyTorch's packages are installed side by side.
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}/../../nvidia/nccl/lib");
        println!("cargo::rustc-env=PODIUM_LIBTORCH_LIB={folder}");
    }
    println!("cargo::rustc-env=PODIUM_CODE_VERSION={}", code_version()?);
    Ok(())
}

/// Returns the package's version and a hash of all sources that can change the result of a learner rank. The ranks
/// of a group compare it, so it must not depend on the location or time of the build.
fn code_version() -> io::Result<String> {
    let root = Path::new("..");
    let mut folders = vec![root.join("learner/src"), root.join("proto/v1")];
    for entry in fs::read_dir(root.join("common"))? {
        folders.push(entry?.path().join("src"));
    }
    let mut files = vec![root.join("Cargo.lock")];
    for folder in folders {
        println!("cargo::rerun-if-changed={}", folder.display());
        list(&folder, &mut files)?;
    }
    println!("cargo::rerun-if-changed={}", root.join("Cargo.lock").display());
    files.sort();
    // FNV-1a distinguishes builds and gives the same hash with every compiler.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for file in &files {
        let name = file.to_string_lossy().into_owned().into_bytes();
        for byte in name.into_iter().chain([0]).chain(fs::read(file)?) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    Ok(format!("{}+{hash:016x}", env!("CARGO_PKG_VERSION")))
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
