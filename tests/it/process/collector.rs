//! A collector of traces, as the service's operators have one: it speaks OTLP over gRPC,
//! in the clear or in TLS, and keeps what it is sent. It does not know what should come.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::authority::Holder;

/// A running collector; gone when dropped.
pub struct Collector {
    url: String,
    address: SocketAddr,
    kept: Kept,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone());
        let serving = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpListenerStream::new(listener));
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            url: format!("http://{address}"),
            address,
            kept,
            tasks: vec![task],
        }
    }

    /// One that is met in TLS, and shows the certificate of this holder.
    pub async fn start_in_tls(holder: &Holder) -> Self {
        let mut collector = Self::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        collector.url = format!("https://{}", listener.local_addr().unwrap());
        let acceptor = TlsAcceptor::from(holder.server("h2"));
        let inner = collector.address;
        collector.tasks.push(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    // Who means another protocol is not served.
                    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                    let mut inner = TcpStream::connect(inner).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut inner).await;
                });
            }
        }));
        collector
    }

    /// What `trace.otlp_endpoint` has to be.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What it was sent so far.
    pub fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.kept.0.lock().unwrap().clone()
    }

    /// The spans it was sent so far.
    pub fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|r| r.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The first span that is so, once it is there.
    pub async fn span(&self, what: &str, is: impl Fn(&Span) -> bool) -> Span {
        for _ in 0..600 {
            if let Some(span) = self.spans().into_iter().find(&is) {
                return span;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no span of {what} among {:?}", self.spans());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The text of an attribute.
pub fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found?.value.clone()?.value? {
        Value::StringValue(text) => Some(text),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{name}: {other:?}"),
    }
}
