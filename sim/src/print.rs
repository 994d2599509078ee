//! Prints to standard output.
//!
//! `println!` panics if the reader of the output has gone (`cargo sim show 3 | head`). Here the
//! program ends instead, like programs that the signal SIGPIPE ends.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::process;

/// Exit code that a shell reports for a program ended by SIGPIPE.
const ENDED_BY_SIGPIPE: i32 = 128 + 13;

/// Exit code after an error.
const FAILED: i32 = 2;

/// Prints a text. Without a reader, the program ends with exit code 141. After any other error, the
/// program prints the error to standard error and ends with exit code 2.
pub fn text(text: fmt::Arguments<'_>) {
    if let Err(error) = std::io::stdout().lock().write_fmt(text) {
        if error.kind() == ErrorKind::BrokenPipe {
            process::exit(ENDED_BY_SIGPIPE);
        }
        eprintln!("error: standard output: {error}");
        process::exit(FAILED);
    }
}

/// Prints a line as [`println!`] does, through [`text`](fn@crate::print::text).
#[macro_export]
macro_rules! outln {
    ($($arguments:tt)*) => {
        $crate::print::text(format_args!("{}\n", format_args!($($arguments)*)))
    };
}
