//! The RPCs that are called most, served past the framework. It does not know what
//! they do.

use hyper::body::Incoming;
use tonic::body::Body;

use super::CacheApi;
use crate::grpc::{Context, Method, traffic::Traffic, unary};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(in crate::grpc) enum Hot {
    Get,
    Set,
}

impl Hot {
    /// Which of them this is, if any.
    pub(in crate::grpc) fn of(method: &Method) -> Option<Self> {
        match method.path {
            "/riptide.persistence.v1.CacheService/Get" => Some(Self::Get),
            "/riptide.persistence.v1.CacheService/Set" => Some(Self::Set),
            _ => None,
        }
    }
}

impl CacheApi {
    /// The answer to a call of one of them.
    pub(in crate::grpc) async fn serve(
        &self,
        rpc: Hot,
        context: &Context,
        body: Incoming,
        max_bytes: usize,
        traffic: &Traffic,
    ) -> http::Response<Body> {
        let Traffic { received, sent } = traffic;
        match rpc {
            Hot::Get => match unary::message(body, max_bytes, received).await {
                Ok(request) => {
                    unary::answer(context.answer(self.read(context, request).await), sent)
                }
                Err(status) => status.into_http(),
            },
            Hot::Set => match unary::message(body, max_bytes, received).await {
                Ok(request) => {
                    // Boxed, so that reads do not carry the room of writes.
                    let written = Box::pin(self.write(context, request)).await;
                    unary::answer(context.answer(written), sent)
                }
                Err(status) => status.into_http(),
            },
        }
    }
}
