//! What an operator reads: log lines on standard error, as text for eyes and as
//! JSON for machines. It does not know what is logged.

use std::{
    io::{self, IsTerminal},
    sync::OnceLock,
};

use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::config::{Log, LogFormat};

/// Puts another filter in the place of the one in force.
type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>;

/// Of this process, whose log lines have one way out.
static REFILTER: OnceLock<Refilter> = OnceLock::new();

/// Sends the log lines of this process to standard error. Lines that drivers
/// write by the `log` crate are left out: what they tell, the backends say in
/// their own words, without addresses of source files.
///
/// # Errors
/// Where the filter cannot be read, or lines are sent somewhere already.
pub fn start(log: &Log) -> io::Result<()> {
    let lines = fmt().with_env_filter(read(log)?).with_writer(io::stderr);
    let (started, refilter): (_, Refilter) = if json(log.format) {
        let lines = lines.json().flatten_event(true).with_current_span(true);
        let lines = lines.with_span_list(false).with_filter_reloading();
        let handle = lines.reload_handle();
        let refilter = Box::new(move |filter| handle.reload(filter));
        (set_global_default(lines.finish()), refilter)
    } else {
        let lines = lines
            .with_ansi(io::stderr().is_terminal())
            .with_filter_reloading();
        let handle = lines.reload_handle();
        let refilter = Box::new(move |filter| handle.reload(filter));
        (set_global_default(lines.finish()), refilter)
    };
    started.map_err(io::Error::other)?;
    let _ = REFILTER.set(refilter);
    Ok(())
}

/// Filters the log lines of this process anew; nothing where none are sent.
///
/// # Errors
/// Where the filter cannot be read, or there is nobody to take it.
pub fn filter(log: &Log) -> io::Result<()> {
    let filter = read(log)?;
    match REFILTER.get() {
        Some(refilter) => refilter(filter).map_err(io::Error::other),
        None => Ok(()),
    }
}

fn read(log: &Log) -> io::Result<EnvFilter> {
    let filter = EnvFilter::builder().parse(&log.filter);
    filter.map_err(io::Error::other)
}

/// Whether lines are written as JSON.
fn json(format: LogFormat) -> bool {
    match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    }
}
