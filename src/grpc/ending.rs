//! A stream that ends when the server leaves, and tells why. It does not know
//! what the stream tells until then.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Response};
use http_body::Frame;
use tonic::{Status, body::Body, codegen::Bytes};

use super::{Health, Stage};

/// The response, whose body ends with `leaving` when the server leaves.
pub(super) fn ending(
    response: Response<Body>,
    health: Arc<Health>,
    leaving: Status,
) -> Response<Body> {
    response.map(|inner| {
        let left: Left = Box::pin(async move { health.reached(Stage::Leaving).await });
        Body::new(Ending {
            inner,
            left: Some((left, leaving)),
        })
    })
}

struct Ending {
    inner: Body,
    /// What is waited for, and what is told then; nothing once it was told.
    left: Option<(Left, Status)>,
}

type Left = Pin<Box<dyn Future<Output = ()> + Send>>;

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some((left, leaving)) = &mut self.left else {
            return Poll::Ready(None);
        };
        if left.as_mut().poll(context).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(context);
        }
        let mut trailers = HeaderMap::new();
        let told = leaving.add_header(&mut trailers);
        self.left = None;
        Poll::Ready(Some(told.map(|()| Frame::trailers(trailers))))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_goes_on_until_the_server_leaves() {
        let (health, body) = (Arc::new(Health::new(0)), Body::new("data".to_owned()));
        let leaving = Status::unavailable("the server is draining");
        let mut body = ending(Response::new(body), health.clone(), leaving).into_body();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, "data");
        health.enter(Stage::Draining);
        assert!(body.frame().await.is_none());

        let silent = Body::new(http_body_util::StreamBody::new(futures::stream::pending::<
            Result<Frame<Bytes>, Status>,
        >()));
        let leaving = Status::unavailable("the server is draining");
        let body = ending(Response::new(silent), health.clone(), leaving).into_body();
        health.enter(Stage::Leaving);
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers.get("grpc-status").unwrap(), "14");
    }
}
