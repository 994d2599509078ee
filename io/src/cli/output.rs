//! Output of a command, on standard output.

use std::io::{self, ErrorKind, Write as _};

use super::CommandFailure;

/// Prints a text as it is.
///
/// # Errors
/// If the text could not be written. A reader that has closed its end (`| head`) is no error.
pub(super) fn print(text: &str) -> Result<(), CommandFailure> {
    let mut output = io::stdout().lock();
    printed(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// Converts the result of printing.
///
/// # Errors
/// As [`print`].
pub(super) fn printed(result: io::Result<()>) -> Result<(), CommandFailure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandFailure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
