//! Lists the files of the embedded initial policy, which the program includes. Without any, the policy is trained
//! instead.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("embedded/start");
    println!("cargo::rerun-if-changed=embedded");
    let mut files = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder)? {
            files.push(entry?.path());
        }
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let name = file.file_name().expect("an entry of a folder has a name").to_string_lossy().into_owned();
        let _ =
            writeln!(list, "    ({name:?}, include_bytes!({:?}).as_slice()),", file.display().to_string());
    }
    list.push_str("]\n");
    fs::write(Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("start.rs"), list)
}
