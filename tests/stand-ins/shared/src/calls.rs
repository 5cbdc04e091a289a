//! A record of the calls of a stand-in.
//!
//! The stand-in's environment variable names a folder. Each process appends to its own file, `<process id>`: one
//! [`Call`] per line.

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::{env, fs, process, thread};

/// A recorded call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The function.
    pub function: String,
    /// The calling thread, unique in its process.
    pub thread: String,
    /// Device of the context that is current on the thread; -1 without one, or on host memory.
    pub device: i32,
    /// Address of the stream; 0 is the default stream.
    pub stream: usize,
}

impl Call {
    fn of(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [function, thread, device, stream] = words[..] else { return None };
        let (function, thread) = (function.to_owned(), thread.to_owned());
        Some(Self { function, thread, device: device.parse().ok()?, stream: stream.parse().ok()? })
    }
}

/// Returns the calls of each process, in their order.
pub fn read(folder: &Path) -> io::Result<Vec<Vec<Call>>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir(folder)? {
        let text = fs::read_to_string(entry?.path())?;
        let call = |line| Call::of(line).ok_or_else(|| io::Error::other(format!("not a call: {line:?}")));
        processes.push(text.lines().map(call).collect::<io::Result<_>>()?);
    }
    Ok(processes)
}

/// Records a call of this thread in the folder that the environment variable `variable` names, if it is set.
pub fn record(variable: &str, function: &str, device: i32, stream: *mut c_void) {
    let Some(folder) = env::var_os(variable) else { return };
    let path = Path::new(&folder).join(process::id().to_string());
    let line = format!("{function} {:?} {device} {}\n", thread::current().id(), stream.addr());
    let file = OpenOptions::new().create(true).append(true).open(&path);
    if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("{}: {error}", path.display());
        process::abort();
    }
}
