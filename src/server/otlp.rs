//! Spans on their way to a collector, by OTLP over gRPC: sent in batches by one task that
//! no call waits for. A collector that is gone, slow or refuses costs the spans, and
//! nothing else. It does not know what is recorded.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span as Sent, Status, span::SpanKind, status::StatusCode,
    },
};
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    config,
    tls::{self, Connector, Settings},
    trace::{Side, Span, Spans, Tracer, Value},
};

/// Spans of a batch.
const BATCH: usize = 512;

/// How long a batch waits for more spans.
const GATHER: Duration = Duration::from_secs(1);

/// How long a batch may take to be sent.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last spans may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What a collector may answer, in bytes.
const ANSWER_BYTES: usize = 64 << 10;

/// A span was recorded by the caller's side, says a bit of its flags.
const SAMPLED: u32 = 1;

/// What TLS to a collector may be mended by.
const SETTINGS: Settings = Settings {
    ca_file: "trace.otlp_ca_file",
    identity: None,
    plain: "http://",
};

/// The task that sends.
pub(super) struct Exporter {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    tracer: Arc<Tracer>,
}

impl Exporter {
    /// Starts it on this runtime; `None` where no collector is named.
    pub(super) fn start(config: &config::Trace, tracer: Arc<Tracer>, spans: Spans) -> Option<Self> {
        let endpoint = config.otlp_endpoint.clone()?;
        let channel = match channel(config, endpoint) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::error!(%error, "spans not sent");
                return None;
            }
        };
        let (stop, stopped) = oneshot::channel();
        let resource = resource(config);
        let task = tokio::spawn(send(channel, resource, tracer.clone(), spans, stopped));
        Some(Self { stop, task, tracer })
    }

    /// Sends what is left, for no longer than a moment.
    pub(super) async fn finish(self) {
        let Self { stop, task, tracer } = self;
        drop(stop);
        let abort = task.abort_handle();
        if timeout(FLUSH_TIMEOUT, task).await.is_err() {
            abort.abort();
            tracing::warn!("last spans not sent in time");
        }
        let (recorded, dropped) = (tracer.recorded(), tracer.dropped());
        tracing::info!(recorded, dropped, "spans ended");
    }
}

/// What connects to the collector when there is something to send, in TLS where its
/// address asks for it.
fn channel(config: &config::Trace, endpoint: String) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(endpoint).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(TIMEOUT);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint.connect_lazy());
    }
    let roots = tls::trusted(config.otlp_roots(), SETTINGS.ca_file)?;
    let config = tls::client()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = Connector::to(endpoint.uri(), config, b"h2")?;
    Ok(endpoint.connect_with_connector_lazy(connector.service()))
}

async fn send(
    channel: Channel,
    resource: Resource,
    tracer: Arc<Tracer>,
    mut spans: Spans,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut client = TraceServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
    let mut batch = Vec::with_capacity(BATCH);
    let (mut lost, mut well) = (0, true);
    loop {
        gather(&mut batch, &mut spans, &mut stopped).await;
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        let request = request(resource.clone(), batch.drain(..));
        let failure = match timeout(TIMEOUT, client.export(request)).await {
            Ok(Ok(answer)) => {
                let rejected = answer.into_inner().partial_success;
                let rejected = rejected.map_or(0, |partial| partial.rejected_spans);
                let rejected = usize::try_from(rejected).unwrap_or_default().min(count);
                tracer.lost(rejected);
                (rejected > 0).then(|| format!("{rejected} of {count} were rejected"))
            }
            Ok(Err(status)) => {
                tracer.lost(count);
                Some(why(&status))
            }
            Err(_) => {
                tracer.lost(count);
                Some("no answer in time".to_owned())
            }
        };
        // Told as it changes, since it may be so for days.
        match (&failure, well) {
            (Some(why), true) => tracing::warn!(why, "spans not taken by trace.otlp_endpoint"),
            (None, false) => tracing::info!(dropped = lost, "spans are taken again"),
            _ => {}
        }
        lost = if failure.is_some() { lost + count } else { 0 };
        well = failure.is_none();
    }
}

/// What a handshake failed for, or else the code of what failed. What a collector says
/// besides is its own, and may be anything.
fn why(status: &tonic::Status) -> String {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(words) = tls::failure(&format!("{error:?}"), &SETTINGS) {
            return format!("TLS with it failed: {words}");
        }
        cause = error.source();
    }
    status.code().to_string()
}

/// Takes the next batch: waits for a first span, and then a while for more. Nothing comes
/// once it is stopped and all that was recorded is taken.
async fn gather(batch: &mut Vec<Span>, spans: &mut Spans, stopped: &mut oneshot::Receiver<()>) {
    let mut until = None;
    while batch.len() < BATCH {
        let (room, closed) = (BATCH - batch.len(), spans.is_closed());
        tokio::select! {
            biased;
            count = spans.recv_many(batch, room) => {
                if count == 0 {
                    return;
                }
                until.get_or_insert_with(|| Instant::now() + GATHER);
            }
            _ = &mut *stopped, if !closed => spans.close(),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
        }
    }
}

/// What is told of this process.
fn resource(config: &config::Trace) -> Resource {
    let own = [
        ("service.name", config.service_name.as_str()),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let named = |name: &str| {
        config
            .resource_attributes
            .iter()
            .any(|(own, _)| own == name)
    };
    let own = own.into_iter().filter(|(name, _)| !named(name));
    let given = config.resource_attributes.iter();
    let given = given.map(|(name, value)| (name.as_str(), value.as_str()));
    Resource {
        attributes: own
            .chain(given)
            .map(|(name, value)| attribute(name, Value::from(value.to_owned())))
            .collect(),
        ..Default::default()
    }
}

fn request(resource: Resource, spans: impl Iterator<Item = Span>) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Default::default()
    };
    let spans = ScopeSpans {
        scope: Some(scope),
        spans: spans.map(sent).collect(),
        ..Default::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![spans],
            ..Default::default()
        }],
    }
}

fn sent(span: Span) -> Sent {
    let kind = match span.side {
        Side::Server => SpanKind::Server,
        Side::Client => SpanKind::Client,
    };
    let parent = span.parent_id.map(|id| id.0.to_be_bytes().to_vec());
    let attributes = span.attributes.into_iter();
    Sent {
        trace_id: span.trace_id.0.to_be_bytes().to_vec(),
        span_id: span.span_id.0.to_be_bytes().to_vec(),
        trace_state: span.state.into(),
        parent_span_id: parent.unwrap_or_default(),
        flags: SAMPLED,
        name: span.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(span.began),
        end_time_unix_nano: nanos(span.ended.max(span.began)),
        attributes: attributes
            .map(|(name, value)| attribute(name, value))
            .collect(),
        status: span.failed.then(|| Status {
            code: StatusCode::Error.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.into_owned()),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
