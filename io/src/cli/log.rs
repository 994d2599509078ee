//! Log lines, on standard error.
//!
//! Only the queue's own thread waits for standard error, and no error of it makes anything else
//! fail: see [`log_queue`](crate::log_queue).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::panic;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::{Level, enabled, error};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::CommandFailure;
use crate::config::{LogConfig, LogFormat};
use crate::log_queue::{DropNotice, LogQueue};

/// Log lines for every frame of etcd's transport are written only if a directive names the crate.
const UNLESS_ASKED: &str = "h2=warn,hyper_util=warn,tonic=warn,tower=warn";
/// Maximum time that the end of the process waits for its last log lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// The queue, once the log has started. One for the process, like the log.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// A started log. Dropping it waits for the last lines, for a bounded time.
#[derive(Debug)]
pub(super) struct Started(LogQueue);

impl Started {
    /// Returns the queue for the log lines.
    pub(super) fn queue(&self) -> LogQueue {
        self.0.clone()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts logging for the whole process.
pub(super) fn start(log: &LogConfig, environment: &[(String, String)]) -> Result<Started, CommandFailure> {
    // Later directives win.
    let filter = EnvFilter::try_new(format!("{UNLESS_ASKED},{}", log.level))
        .map_err(|e| CommandFailure::Usage(format!("log.level: {}: {e}", log.level)))?;
    let no_color = environment.iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    let colours = io::stderr().is_terminal() && !no_color;
    let failed = |e: &dyn std::fmt::Display| CommandFailure::Failed(format!("cannot start the log: {e}"));
    let notice: DropNotice = match log.format {
        LogFormat::Human => for_people,
        LogFormat::Json => as_json,
    };
    let queue = LogQueue::start(log.queue_bytes, io::stderr(), notice).map_err(|e| failed(&e))?;
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(Lines(queue.clone()))
        .with_ansi(colours)
        // The subscriber would print its own errors to the place where the lines could not be
        // printed.
        .log_internal_errors(false);
    let started = match log.format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| failed(&e))?;
    let queue = QUEUE.get_or_init(|| queue).clone();
    panic::set_hook(Box::new(log_panic));
    Ok(Started(queue))
}

/// Waits until the last lines are written, for a bounded time.
pub(super) fn flush() {
    if let Some(queue) = QUEUE.get() {
        let _ = queue.flush(LAST_LINES);
    }
}

/// Prints a line on standard error, after the queued log lines, without the format of the log.
/// Errors are ignored: there is no other place to report them.
pub(super) fn say(line: &str) {
    let line = format!("{line}\n").into_bytes();
    match QUEUE.get() {
        Some(queue) => {
            queue.push(line);
            flush();
        }
        None => {
            let _ = io::stderr().write_all(&line);
        }
    }
}

/// Logs a panic as a log line. The default hook would write to standard error and wait.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
    let at = panic.location().map(ToString::to_string);
    // With RUST_BACKTRACE, like the default hook.
    let backtrace = Backtrace::capture();
    let captured = backtrace.status() == BacktraceStatus::Captured;
    if enabled!(Level::ERROR) {
        error!(at, backtrace = captured.then(|| tracing::field::display(backtrace)), "panicked: {text}");
    } else if let Some(queue) = QUEUE.get() {
        queue.push(format!("panicked at {}: {text}\n", at.unwrap_or_default()).into_bytes());
    }
}

/// The queue as a writer of events: each event is queued at once, as one line.
struct Lines(LogQueue);

struct Line<'a>(&'a LogQueue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Message of the log about itself. Formatted by hand, so that no directive hides the line.
const LOST: &str = "log lines were lost";

fn for_people(dropped: u64, error: Option<&str>) -> String {
    let mut line = format!("{} ERROR skirmish_io::log_queue: {LOST} lines={dropped}", time());
    if let Some(error) = error {
        let _ = write!(line, " error={error}");
    }
    line.push('\n');
    line
}

fn as_json(dropped: u64, error: Option<&str>) -> String {
    let line = serde_json::json!({
        "timestamp": time(),
        "level": "ERROR",
        "message": LOST,
        "lines": dropped,
        "error": error,
        "target": "skirmish_io::log_queue",
    });
    format!("{line}\n")
}

/// Returns the time in the format of the other lines.
fn time() -> String {
    let mut time = String::new();
    // Writing to a text does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_told_in_the_format_of_the_log() {
        let line = for_people(7, Some("no space"));
        assert!(
            line.ends_with(" ERROR skirmish_io::log_queue: log lines were lost lines=7 error=no space\n")
        );
        let line: serde_json::Value = serde_json::from_str(&as_json(7, None)).unwrap();
        assert_eq!((&line["lines"], &line["message"]), (&7.into(), &LOST.into()));
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
    }
}
