//! Colours, progress and the stopwatch, for people in front of a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Returns the text in bold, on a terminal.
pub(crate) fn bold(text: &str) -> String {
    coloured("1", text)
}

/// Returns the text in green, on a terminal.
pub(crate) fn green(text: &str) -> String {
    coloured("1;32", text)
}

/// Returns the text in red, on a terminal.
pub(crate) fn red(text: &str) -> String {
    coloured("1;31", text)
}

fn coloured(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Wall time, for people and for `--minutes`. No simulated part sees it.
pub(crate) struct Stopwatch {
    started: Instant,
    limit: Option<Duration>,
}

impl Stopwatch {
    /// Starts the stopwatch, with a limit in minutes.
    pub(crate) fn start(minutes: Option<f64>) -> Self {
        let limit = minutes.and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok());
        Self { started: now(), limit }
    }

    /// Seconds since the start; always more than zero.
    pub(crate) fn seconds(&self) -> f64 {
        self.elapsed().as_secs_f64().max(1e-6)
    }

    /// Returns true if the limit is reached.
    pub(crate) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.elapsed() >= limit)
    }

    fn elapsed(&self) -> Duration {
        now().saturating_duration_since(self.started)
    }
}

#[allow(clippy::disallowed_methods, reason = "measures the simulator itself, not what it simulates")]
fn now() -> Instant {
    Instant::now()
}

/// One line of progress, on a terminal only.
pub(crate) struct ProgressLine {
    shown: Option<Instant>,
    terminal: bool,
}

impl ProgressLine {
    /// Creates an empty line.
    pub(crate) fn new() -> Self {
        Self { shown: None, terminal: std::io::stderr().is_terminal() }
    }

    /// Shows the line, a few times a second.
    pub(crate) fn show(&mut self, line: impl FnOnce() -> String) {
        let due = self.shown.is_none_or(|shown| now() - shown > Duration::from_millis(200));
        if self.terminal && due {
            self.shown = Some(now());
            eprint!("\r\x1b[2K{}", line());
            // A progress line that cannot be shown is no loss.
            let _ = std::io::stderr().flush();
        }
    }

    /// Clears the line.
    pub(crate) fn clear(&self) {
        if self.terminal && self.shown.is_some() {
            eprint!("\r\x1b[2K");
        }
    }
}
