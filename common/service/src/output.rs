//! Standard output and standard error of a command, either of which may be closed.
//!
//! `println!` and `eprintln!` panic when the reader of a pipe has exited (`podium status | head`) or a terminal is
//! closed, which would end a run. Every program of Podium prints through this module instead:
//!
//! - standard error never fails: text that cannot be written is dropped, and the work continues;
//! - standard output drops text once its reader has exited, and the command's exit code is unchanged; any other
//!   failure (a full disk) is stored until [`finish`], which reports it and makes the command fail.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// The first failure of standard output other than a closed reader.
static FAILURE: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes a line to standard output, with the arguments of `format!`.
#[macro_export]
macro_rules! output_line {
    ($($text:tt)*) => { $crate::output::write(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes text to standard output, with the arguments of `format!`.
#[macro_export]
macro_rules! output {
    ($($text:tt)*) => { $crate::output::write(format_args!($($text)*)) };
}

/// Writes a line to standard error, with the arguments of `format!`.
#[macro_export]
macro_rules! notice {
    ($($text:tt)*) => { $crate::output::write_notice(format_args!("{}\n", format_args!($($text)*))) };
}

/// Writes text to standard output.
pub fn write(text: Arguments<'_>) {
    let mut failure = FAILURE.lock().unwrap_or_else(PoisonError::into_inner);
    if failure.is_none()
        && let Err(error) = write_to(&mut io::stdout().lock(), text)
    {
        *failure = Some(error);
    }
}

/// Writes text to standard error.
pub fn write_notice(text: Arguments<'_>) {
    // A failure on standard error cannot be reported.
    let _ = io::stderr().lock().write_fmt(text);
}

/// Returns the exit code of a command that would exit with `code`: a failure if standard output could not be written.
pub fn finish(code: ExitCode) -> ExitCode {
    match FAILURE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => code,
        Some(error) => {
            notice!("error: cannot write to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_to(output: &mut impl Write, text: Arguments<'_>) -> io::Result<()> {
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_reader_is_ignored_and_a_full_disk_is_a_failure() {
        write_to(&mut Broken(ErrorKind::BrokenPipe), format_args!("text")).unwrap();
        let full = write_to(&mut Broken(ErrorKind::StorageFull), format_args!("text")).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }
}
