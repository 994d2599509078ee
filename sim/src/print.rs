//! Prints to standard output.
//!
//! `println!` panics when whoever reads the output has gone (`cargo sim show 3 | head`);
//! here the program ends then, as programs do that the signal SIGPIPE ends.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::process;

/// What a shell says of a program that SIGPIPE has ended.
const ENDED_BY_SIGPIPE: i32 = 128 + 13;

/// The simulator's exit code when it could not do what it was asked for.
const FAILED: i32 = 2;

/// Prints a text. If nobody reads it any more, the program ends with exit code 141; if it
/// cannot be written for another reason, that is said on standard error, and the code is 2.
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
