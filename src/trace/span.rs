//! The spans of calls that are recorded: the call's own, and one of each call of the
//! store beneath it. Whoever records one hands it over without waiting; where nobody
//! takes it in time, it is dropped and counted. It does not know where spans go.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use tokio::sync::mpsc;

use super::{Parent, SpanId, TraceId};
use crate::random;

/// Spans that wait to be sent.
const WAITING: usize = 4096;

/// Calls of the store that are recorded of one call; a checkpoint makes thousands.
const STEPS: u32 = 128;

/// Spans as they are recorded.
pub type Spans = mpsc::Receiver<Span>;

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    /// The trace it is of.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The span it was made in.
    pub parent_id: Option<SpanId>,
    /// The `tracestate` that came with the call.
    pub state: Box<str>,
    /// What was done.
    pub name: Cow<'static, str>,
    /// Which side of a call it shows.
    pub side: Side,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What else is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed by the server's own doing.
    pub failed: bool,
}

/// Which side of a call a span shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that answers.
    Server,
    /// The one that asks.
    Client,
}

/// What is known of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Decides which calls are recorded, and takes their spans.
#[derive(Debug)]
pub struct Tracer {
    spans: mpsc::Sender<Span>,
    /// Of calls that come without a trace, those are recorded whose trace has an id
    /// below it, in the 63 bits that all who decide by ids look at.
    below: AtomicU64,
    recorded: AtomicU64,
    dropped: AtomicU64,
}

impl Tracer {
    /// Records this share, from 0 to 1, of the calls whose caller did not decide; and what
    /// it records.
    pub fn new(sample_ratio: f64) -> (Arc<Self>, Spans) {
        let (spans, recorded) = mpsc::channel(WAITING);
        let tracer = Self {
            spans,
            below: AtomicU64::default(),
            recorded: AtomicU64::default(),
            dropped: AtomicU64::default(),
        };
        tracer.sample(sample_ratio);
        (Arc::new(tracer), recorded)
    }

    /// Records another share from now on.
    pub fn sample(&self, ratio: f64) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it saturates
        let below = (ratio * (1_u64 << 63) as f64) as u64;
        self.below.store(below, Ordering::Relaxed);
    }

    /// Begins to record a call, where it is to be recorded: as its caller decided, or by
    /// chance.
    pub(crate) fn begin(self: &Arc<Self>, parent: Option<&Parent>) -> Option<Arc<Recording>> {
        let trace_id = match parent {
            Some(parent) if parent.sampled => parent.trace_id,
            Some(_) => return None,
            None => {
                let (high, low) = (random::number(), random::number());
                if low >> 1 >= self.below.load(Ordering::Relaxed) {
                    return None;
                }
                TraceId((u128::from(high) << 64 | u128::from(low)).max(1))
            }
        };
        Some(Arc::new(Recording {
            tracer: self.clone(),
            trace_id,
            span_id: SpanId::new(),
            parent_id: parent.map(|parent| parent.span_id),
            state: parent.map_or_else(Box::default, |parent| parent.state.clone()),
            began: SystemTime::now(),
            steps: AtomicU32::new(0),
        }))
    }

    /// Spans that were recorded, whatever became of them.
    pub fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::Relaxed)
    }

    /// Spans that were lost: nobody took them in time, or they could not be sent.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts spans that could not be sent.
    pub fn lost(&self, spans: usize) {
        self.dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }

    fn take(&self, span: Span) {
        self.recorded.fetch_add(1, Ordering::Relaxed);
        if self.spans.try_send(span).is_err() {
            self.lost(1);
        }
    }
}

/// A call that is recorded.
#[derive(Debug)]
pub(crate) struct Recording {
    tracer: Arc<Tracer>,
    pub(crate) trace_id: TraceId,
    span_id: SpanId,
    parent_id: Option<SpanId>,
    state: Box<str>,
    began: SystemTime,
    /// Calls of the store, so far.
    steps: AtomicU32,
}

impl Recording {
    /// The call ended.
    pub(crate) fn end(
        &self,
        name: impl Into<Cow<'static, str>>,
        attributes: Vec<(&'static str, Value)>,
        failed: bool,
    ) {
        self.tracer.take(Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent_id: self.parent_id,
            state: self.state.clone(),
            name: name.into(),
            side: Side::Server,
            began: self.began,
            ended: SystemTime::now(),
            attributes,
            failed,
        });
    }
}

/// A call of the store that is recorded.
pub(crate) struct Step {
    of: Arc<Recording>,
    method: &'static str,
    backend: &'static str,
    began: SystemTime,
    /// What came of it, and whether it failed; as long as that is not known, it was left
    /// by the call that waited for it.
    outcome: (&'static str, bool),
}

impl Step {
    /// Begins to record it, where the call that this task works for is recorded.
    pub(crate) fn begin(method: &'static str, backend: &'static str) -> Option<Self> {
        let of = super::current(|call| call.recording.clone()).flatten()?;
        if of.steps.fetch_add(1, Ordering::Relaxed) >= STEPS {
            return None;
        }
        Some(Self {
            of,
            method,
            backend,
            began: SystemTime::now(),
            outcome: ("abandoned", true),
        })
    }

    /// It ended.
    pub(crate) fn end(mut self, outcome: &'static str, failed: bool) {
        self.outcome = (outcome, failed);
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let Self {
            of,
            method,
            backend,
            began,
            outcome: (outcome, failed),
        } = self;
        of.tracer.take(Span {
            trace_id: of.trace_id,
            span_id: SpanId::new(),
            parent_id: Some(of.span_id),
            state: of.state.clone(),
            name: format!("store {method}").into(),
            side: Side::Client,
            began: *began,
            ended: SystemTime::now(),
            attributes: vec![
                ("db.system.name", (*backend).into()),
                ("db.operation.name", (*method).into()),
                ("riptide.outcome", (*outcome).into()),
            ],
            failed: *failed,
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::trace::{Call, within};

    fn parent(sampled: bool) -> Parent {
        Parent {
            trace_id: TraceId(7),
            span_id: SpanId(8),
            sampled,
            state: "a=1".into(),
        }
    }

    #[test]
    fn who_calls_decides_and_else_chance_does() {
        for ratio in [0.0, 0.25, 1.0] {
            let (tracer, _spans) = Tracer::new(ratio);
            assert!(tracer.begin(Some(&parent(true))).is_some());
            assert!(tracer.begin(Some(&parent(false))).is_none());
            let recorded = (0..4000).filter(|_| tracer.begin(None).is_some()).count();
            let expected = 4000.0 * ratio;
            // Ten times the deviation that chance has.
            assert!(
                (recorded as f64 - expected).abs() < 300.0,
                "{recorded} of {ratio}"
            );
            if ratio == 0.0 || ratio == 1.0 {
                assert_eq!(recorded as f64, expected);
            }
        }
        let (tracer, _spans) = Tracer::new(0.0);
        tracer.sample(1.0);
        assert!(tracer.begin(None).is_some());
    }

    #[tokio::test]
    async fn a_call_and_its_steps_are_one_trace() {
        let (tracer, mut spans) = Tracer::new(0.0);
        assert!(Step::begin("read", "redis").is_none());
        let recording = tracer.begin(Some(&parent(true))).unwrap();
        let call = Call {
            recording: Some(recording.clone()),
            ..Default::default()
        };
        within(call, async {
            for _ in 0..STEPS + 10 {
                if let Some(step) = Step::begin("read", "redis") {
                    step.end("ok", false);
                }
            }
        })
        .await;
        recording.end("S/M", vec![("rpc.method", "M".into())], true);
        let mut all = Vec::new();
        while let Ok(span) = spans.try_recv() {
            all.push(span);
        }
        let (own, steps) = all.split_last().unwrap();
        assert_eq!(steps.len(), STEPS as usize);
        assert_eq!((own.trace_id, own.parent_id), (TraceId(7), Some(SpanId(8))));
        assert!(own.failed && &*own.state == "a=1" && own.side == Side::Server);
        for step in steps {
            assert_eq!(
                (step.trace_id, step.parent_id),
                (TraceId(7), Some(own.span_id))
            );
            assert_eq!(step.side, Side::Client);
        }
        let mut ids: Vec<_> = all.iter().map(|span| span.span_id.0).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all.len());
    }

    #[test]
    fn spans_that_nobody_takes_are_dropped_and_counted() {
        let (tracer, spans) = Tracer::new(1.0);
        for _ in 0..WAITING + 10 {
            tracer.begin(None).unwrap().end("S/M", Vec::new(), false);
        }
        assert_eq!(
            (tracer.recorded(), tracer.dropped()),
            (WAITING as u64 + 10, 10)
        );
        drop(spans);
        tracer.begin(None).unwrap().end("S/M", Vec::new(), false);
        assert_eq!(tracer.dropped(), 11);
    }
}
