//! The progress line: on a terminal only, and on stderr, so that the report can be piped.

use std::io::{IsTerminal as _, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// A line that is drawn over and over.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// Creates a bar of `length` steps.
    pub(super) fn new(length: u64) -> Self {
        if !stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{prefix:>9} {bar:30} {pos}/{len} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(ProgressBar::new(length).with_style(style))
    }

    /// Begins another stage, with a length of its own.
    pub(super) fn stage(&self, name: &'static str, length: u64) {
        self.0.set_prefix(name);
        self.0.set_length(length);
        self.0.set_position(0);
    }

    /// Shows the position and a message.
    pub(super) fn show(&self, position: u64, message: String) {
        self.0.set_position(position);
        self.0.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
