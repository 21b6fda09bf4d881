//! Which call a task works for, and the trace that the call is part of, as W3C's Trace
//! Context tells it. It does not know what a log line looks like, nor where spans go.

mod context;
mod span;

use std::{fmt, sync::Arc};

pub(crate) use span::{Recording, Step};

pub use context::Parent;
pub use span::{Side, Span, Spans, Tracer, Value};

use crate::random;

tokio::task_local! {
    static CURRENT: Call;
}

/// A call, as all that is told of it names it.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Its id.
    pub request_id: Arc<str>,
    /// The trace it is part of, where it is part of one.
    pub trace_id: Option<TraceId>,
    /// Its spans, where they are recorded.
    pub(crate) recording: Option<Arc<Recording>>,
}

/// Does what is done for a call. Holds the work once: an `async fn` would hold it as it
/// is given, too.
pub fn within<F: Future>(call: Call, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(call, work)
}

/// Does at once what is done for a call.
pub fn sync_within<T>(call: Call, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(call, work)
}

/// Asks for the call this task works for; `None` where it works for none.
pub fn current<T>(ask: impl FnOnce(&Call) -> T) -> Option<T> {
    CURRENT.try_with(ask).ok()
}

/// The id of a trace; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The id of a span; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

impl SpanId {
    /// A new one.
    fn new() -> Self {
        Self(random::number().max(1))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
