//! What an operator reads: log lines on standard error, as text for eyes and as
//! JSON for machines. It does not know what is logged.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Sends the log lines of this process to standard error.
///
/// # Errors
/// Where the filter cannot be read, or lines are sent somewhere already.
pub fn start(log: &Log) -> io::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(io::Error::other)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match json(log.format) {
        true => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .try_init(),
        false => lines.with_ansi(io::stderr().is_terminal()).try_init(),
    };
    started.map_err(io::Error::other)
}

/// Whether lines are written as JSON.
fn json(format: LogFormat) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    }
}
