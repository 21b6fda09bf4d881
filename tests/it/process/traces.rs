//! Traces that go through the service: a caller's goes on in it, down to the store, and
//! arrives at a collector, whose troubles are never those of callers. It does not know
//! how spans are sent.

use riptide_persistence::proto::v1::{GetRequest, SetRequest};
use rstest::rstest;
use tokio::{io::AsyncReadExt, net::TcpListener};
use tonic::Request;

use super::collector::{Collector, text};
use crate::{
    cli::Folder,
    server::{Backend, Clients, Kind, Server},
};

const PARENT: &str = "00f067aa0ba902b7";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A call that is part of a trace, in a span that is recorded or not.
fn call<T>(trace_id: &str, recorded: bool, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let flags = u8::from(recorded);
    let parent = format!("00-{trace_id}-{PARENT}-{flags:02x}");
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.parse().unwrap());
    metadata.insert("tracestate", "vendor=1,other=2".parse().unwrap());
    request
}

fn set() -> SetRequest {
    SetRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    }
}

async fn server(kind: Kind, url: String, ratio: f64) -> (Server, Clients) {
    let server = kind
        .start_with(|config| {
            config.trace.otlp_endpoint = Some(url);
            config.trace.sample_ratio = ratio;
            config.trace.resource_attributes = vec![("team".into(), "cache".into())];
        })
        .await;
    let clients = server.tenant("acme").await.clients;
    (server, clients)
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_callers_trace_goes_on_to_the_store(#[case] kind: Kind) {
    let collector = Collector::start().await;
    let (server, mut acme) = server(kind, collector.url(), 0.0).await;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    // What the caller does not record is not recorded, nor what is of no trace.
    let unrecorded = call("1".repeat(32).as_str(), false, set());
    acme.cache.set(unrecorded).await.unwrap();
    acme.cache.set(set()).await.unwrap();
    acme.cache.set(call(trace_id, true, set())).await.unwrap();
    let missing = GetRequest {
        key: "missing".into(),
        ..Default::default()
    };
    acme.cache.get(call(trace_id, true, missing)).await.unwrap();
    let invalid = call(trace_id, true, SetRequest::default());
    acme.cache.set(invalid).await.unwrap_err();

    let service = "riptide.persistence.v1.CacheService";
    for (name, code, below) in [
        ("Set", "0", Some("commit")),
        ("Get", "0", Some("read")),
        ("Set", "3", None),
    ] {
        let name = format!("{service}/{name}");
        let own = collector
            .span(&name, |span| {
                span.name == name
                    && text(&span.attributes, "rpc.grpc.status_code").as_deref() == Some(code)
            })
            .await;
        assert_eq!(
            (
                hex(&own.trace_id).as_str(),
                hex(&own.parent_span_id).as_str()
            ),
            (trace_id, PARENT)
        );
        assert_eq!(
            (own.kind, own.trace_state.as_str()),
            (2, "vendor=1,other=2")
        );
        // A caller's mistake is no failure of the server's.
        assert!(own.status.is_none() && own.start_time_unix_nano <= own.end_time_unix_nano);
        let has = |name: &str| text(&own.attributes, name).unwrap_or_default();
        assert_eq!(
            [
                has("rpc.system"),
                has("rpc.service"),
                has("riptide.tenant_id")
            ],
            ["grpc", service, "acme"]
        );
        let Some(below) = below else { continue };
        let step = collector
            .span(below, |span| span.parent_span_id == own.span_id)
            .await;
        assert_eq!((step.name, step.kind), (format!("store {below}"), 3));
        assert_eq!(hex(&step.trace_id), trace_id);
        assert!(text(&step.attributes, "db.system.name").is_some());
        assert!(own.start_time_unix_nano <= step.start_time_unix_nano);
    }
    assert!(
        collector
            .spans()
            .iter()
            .all(|span| hex(&span.trace_id) == trace_id)
    );
    let resource = collector
        .requests()
        .remove(0)
        .resource_spans
        .remove(0)
        .resource
        .unwrap();
    let is = |name: &str| text(&resource.attributes, name).unwrap();
    assert_eq!(
        [is("service.name"), is("team")],
        ["riptide-persistence", "cache"]
    );
    server.stop().await;
}

#[tokio::test]
async fn what_was_recorded_last_is_sent_before_it_ends() {
    let collector = Collector::start().await;
    let (server, mut acme) = server(Kind::Embedded, collector.url(), 1.0).await;
    acme.cache.set(set()).await.unwrap();
    server.stop().await;
    // Without a trace of the caller's, one begins here.
    let set = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
        span.name.ends_with("CacheService/Set")
    };
    let spans = collector.spans();
    let own = spans.iter().find(|span| set(span)).unwrap();
    assert!(own.parent_span_id.is_empty() && own.trace_id.iter().any(|byte| *byte != 0));
    assert!(spans.iter().any(|span| span.parent_span_id == own.span_id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_in_trouble_is_no_trouble_of_callers() {
    // One that goes away.
    let collector = Collector::start().await;
    let (server, mut acme) = server(Kind::Embedded, collector.url(), 1.0).await;
    acme.cache.set(set()).await.unwrap();
    collector
        .span("a set", |span| span.name.ends_with("/Set"))
        .await;
    drop(collector);
    // More than wait for a collector.
    for _ in 0..5000 {
        acme.cache.set(set()).await.unwrap();
    }
    server.stop().await;

    // One that takes all and says nothing, and one that says nonsense.
    for nonsense in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    use tokio::io::AsyncWriteExt;
                    let _ = stream.write_all(nonsense).await;
                    let mut taken = Vec::new();
                    let _ = stream.read_to_end(&mut taken).await;
                });
            }
        });
        let (server, mut acme) = self::server(Kind::Embedded, url, 1.0).await;
        for _ in 0..5000 {
            acme.cache.set(set()).await.unwrap();
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn without_a_collector_nothing_is_recorded() {
    let server = Server::start(Backend::Embedded).await;
    let mut acme = server.tenant("acme").await.clients;
    let trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
    acme.cache.set(call(trace_id, true, set())).await.unwrap();
    server.stop().await;
}

#[test]
fn an_endpoint_that_is_none_stops_the_start_by_its_name() {
    let folder = Folder::new();
    let secret = "http://user:canary@localhost:4317";
    let settings =
        format!("persistence: {{trace: {{otlp_endpoint: '{secret}', sample_ratio: 0.5}}}}");
    folder.write("persistence.yml", settings);
    let refused = folder.run(&["serve"]).refused(1, "trace.otlp_endpoint");
    assert!(!format!("{refused:?}").contains("canary"), "{refused:?}");
}
