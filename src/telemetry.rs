//! What an operator reads: log lines on standard error, as text for eyes and as
//! JSON for machines. It does not know what is logged.

use std::io::{self, IsTerminal};

use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{Log, LogFormat};

/// Sends the log lines of this process to standard error. Lines that drivers
/// write by the `log` crate are left out: what they tell, the backends say in
/// their own words, without addresses of source files.
///
/// # Errors
/// Where the filter cannot be read, or lines are sent somewhere already.
pub fn start(log: &Log) -> io::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(io::Error::other)?;
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = if json(log.format) {
        let lines = lines.json().flatten_event(true).with_current_span(true);
        set_global_default(lines.with_span_list(false).finish())
    } else {
        set_global_default(lines.with_ansi(io::stderr().is_terminal()).finish())
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
