//! What an operator reads: log lines on standard error, as text for eyes and as
//! JSON for machines. It does not know what is logged.

pub mod access;
mod form;
mod lines;

use std::{
    io::{self, IsTerminal},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::{Level, Metadata, level_filters::LevelFilter, subscriber::set_global_default};
use tracing_subscriber::{
    EnvFilter, Registry, filter::filter_fn, fmt, layer::SubscriberExt, reload,
};

use self::{form::Form, lines::Lines};
use crate::config::{Log, LogFormat};

/// How long what is logged last may take to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Targets of our own; each stands for those below it.
const OURS: [&str; 3] = [
    env!("CARGO_CRATE_NAME"),
    access::TARGET,
    crate::tenant::audit::TARGET,
];

/// Of this process, whose log lines have one way out.
static OUTPUT: OnceLock<Output> = OnceLock::new();

struct Output {
    lines: Arc<Lines>,
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Sends the log lines of this process to standard error, by a thread that waits for
/// whoever reads it, so that nothing else has to. Of what other crates tell, no more
/// than their INFO is taken, whatever the filter asks for: their finer lines hold parts
/// of what goes over the wire. Those that drivers write by the `log` crate are left
/// out: what they tell, the backends say in their own words.
///
/// # Errors
/// Where the filter cannot be read, or lines are sent somewhere already.
pub fn start(log: &Log) -> io::Result<()> {
    let lines = Arc::new(Lines::default());
    let (filter, handle) = reload::Layer::new(read(log)?);
    let form = if json(log.format) {
        Form::Json
    } else {
        Form::text(io::stderr().is_terminal())
    };
    let written = fmt::layer()
        .with_writer(lines.clone())
        .event_format(form)
        .log_internal_errors(false);
    let subscriber = Registry::default()
        .with(filter)
        .with(filter_fn(is_told).with_max_level_hint(LevelFilter::TRACE))
        .with(written);
    set_global_default(subscriber).map_err(io::Error::other)?;
    access::set(log);
    lines.clone().start(io::stderr())?;
    let _ = OUTPUT.set(Output {
        lines,
        filter: handle,
    });
    Ok(())
}

/// Filters the log lines of this process anew, and tells of calls as it is set;
/// nothing where no lines are sent.
///
/// # Errors
/// Where the filter cannot be read, or there is nobody to take it.
pub fn filter(log: &Log) -> io::Result<()> {
    let filter = read(log)?;
    let Some(output) = OUTPUT.get() else {
        return Ok(());
    };
    output.filter.reload(filter).map_err(io::Error::other)?;
    access::set(log);
    Ok(())
}

/// Waits until all that was logged is written, though not for long.
pub fn flush() {
    if let Some(output) = OUTPUT.get() {
        output.lines.flush(FLUSH_TIMEOUT);
    }
}

/// Lines that were dropped since the start, as standard error took them too slowly.
pub fn dropped() -> u64 {
    OUTPUT.get().map_or(0, |output| output.lines.dropped())
}

fn is_told(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || OURS.iter().any(|ours| is_under(metadata.target(), ours))
}

fn is_under(target: &str, module: &str) -> bool {
    let rest = target.strip_prefix(module);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_stands_for_those_below_it() {
        assert!(is_under("riptide_persistence", "riptide_persistence"));
        assert!(is_under(
            "riptide_persistence::store",
            "riptide_persistence"
        ));
        assert!(!is_under("riptide_persistence_x", "riptide_persistence"));
        assert!(!is_under("h2::codec", "riptide_persistence"));
        assert!(OURS.contains(&"riptide_persistence"));
    }
}
