//! A server that answers what a test tells it, page by page, and can fail or
//! hold at any of them. It knows the messages, and no rule of what is in them.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use riptide_persistence::proto::v1::{
    CheckQuotaRequest, CheckQuotaResponse, GetTenantBillingRequest, GetTenantBillingResponse,
    GetTenantUsageRequest, GetTenantUsageResponse, ListStatementsRequest, ListStatementsResponse,
    Statement,
};
use tokio::{net::TcpListener, sync::oneshot};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
    transport::server::{Server, TcpIncoming},
};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

/// What it answers, and what it was asked.
#[derive(Default)]
pub struct Script {
    pub statements: Vec<Statement>,
    /// Statements the server says there are, beyond those it lists.
    pub hidden: i64,
    /// Pages until the period is complete.
    pub incomplete: AtomicUsize,
    /// Pages answered before it fails; 0 never does.
    pub fails_at: AtomicUsize,
    /// Pages answered before it stops answering; 0 never does.
    pub holds_at: AtomicUsize,
    pub delay: Duration,
    /// The tokens it was asked for.
    pub asked: Mutex<Vec<String>>,
    pub usage: GetTenantUsageResponse,
    pub usage_asked: Mutex<Vec<GetTenantUsageRequest>>,
    pub billing: GetTenantBillingResponse,
    pub checks: Mutex<Vec<CheckQuotaRequest>>,
    pub check: CheckQuotaResponse,
}

/// Counts one down; whether it came to its end with this.
fn falls(count: &AtomicUsize) -> bool {
    let one_less = |count: usize| count.checked_sub(1);
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) == Ok(1)
}

impl Script {
    async fn page(&self, request: ListStatementsRequest) -> Result<ListStatementsResponse, Status> {
        tokio::time::sleep(self.delay).await;
        self.asked.lock().unwrap().push(request.page_token.clone());
        if falls(&self.fails_at) {
            return Err(Status::unavailable("the store is away"));
        }
        if falls(&self.holds_at) {
            std::future::pending::<()>().await;
        }
        let from = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .map_err(|_| Status::invalid_argument("token"))?,
        };
        let to = (from + request.page_size as usize).min(self.statements.len());
        let ended = to == self.statements.len();
        let complete = self.incomplete.load(Ordering::SeqCst) == 0;
        falls(&self.incomplete);
        Ok(ListStatementsResponse {
            statements: self.statements[from..to].to_vec(),
            next_page_token: if ended { String::new() } else { to.to_string() },
            complete,
            total_size: self.statements.len() as i64 + self.hidden,
        })
    }
}

/// The server; it ends with this.
pub struct StandIn {
    pub script: Arc<Script>,
    pub address: String,
    _stop: oneshot::Sender<()>,
}

impl StandIn {
    pub fn start(script: Script) -> Self {
        let script = Arc::new(script);
        let service = Answers(script.clone());
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let served = Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpIncoming::from(listener));
                tokio::select! {
                    served = served => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            script,
            address: format!("http://{}", told.recv().unwrap()),
            _stop: stop,
        }
    }
}

#[derive(Clone)]
struct Answers(Arc<Script>);

impl NamedService for Answers {
    const NAME: &'static str = "riptide.persistence.v1.TenantService";
}

impl Service<http::Request<Body>> for Answers {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<Body>) -> Self::Future {
        let script = self.0.clone();
        Box::pin(async move {
            let method = call.uri().path().rsplit('/').next().map(str::to_owned);
            Ok(match method.as_deref() {
                Some("ListStatements") => {
                    let page = service_fn(move |request: Request<ListStatementsRequest>| {
                        let script = script.clone();
                        async move { script.page(request.into_inner()).await.map(Response::new) }
                    });
                    Grpc::new(ProstCodec::default()).unary(page, call).await
                }
                Some("GetTenantUsage") => {
                    let usage = service_fn(move |request: Request<GetTenantUsageRequest>| {
                        let script = script.clone();
                        async move {
                            let mut asked = script.usage_asked.lock().unwrap();
                            asked.push(request.into_inner());
                            Ok::<_, Status>(Response::new(script.usage.clone()))
                        }
                    });
                    Grpc::new(ProstCodec::default()).unary(usage, call).await
                }
                Some("GetTenantBilling") => {
                    let billing = service_fn(move |_: Request<GetTenantBillingRequest>| {
                        let answer = script.billing.clone();
                        async move { Ok::<_, Status>(Response::new(answer)) }
                    });
                    Grpc::new(ProstCodec::default()).unary(billing, call).await
                }
                Some("CheckQuota") => {
                    let check = service_fn(move |request: Request<CheckQuotaRequest>| {
                        let script = script.clone();
                        async move {
                            script.checks.lock().unwrap().push(request.into_inner());
                            Ok::<_, Status>(Response::new(script.check))
                        }
                    });
                    Grpc::new(ProstCodec::default()).unary(check, call).await
                }
                _ => Status::unimplemented("not in the script").into_http(),
            })
        })
    }
}
