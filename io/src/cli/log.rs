//! Log lines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use super::Failure;
use crate::config::{Log, LogFormat};

/// What the transport of etcd says of every frame is for whoever asks for it by name.
const UNLESS_ASKED: &str = "h2=warn,hyper_util=warn,tonic=warn,tower=warn";

/// Starts logging for the whole process.
pub(super) fn start(log: &Log, environment: &[(String, String)]) -> Result<(), Failure> {
    // Later directives win.
    let filter = EnvFilter::try_new(format!("{UNLESS_ASKED},{}", log.level))
        .map_err(|e| Failure::Usage(format!("log.level: {}: {e}", log.level)))?;
    let no_color = environment.iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !no_color;
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match log.format {
        LogFormat::Human => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| Failure::Failed(format!("cannot start the log: {e}")))
}
