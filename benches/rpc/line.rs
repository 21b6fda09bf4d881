//! A connection that makes gRPC calls from requests encoded beforehand, with as
//! little work as a call can take: it shares the machine with the server. It
//! does not know what the messages mean.

use std::{future::poll_fn, net::SocketAddr};

use anyhow::{Context, Result, bail, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Method, Request, Version};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::turn;

/// A call, ready to be sent as often as wanted.
#[derive(Clone)]
pub struct Call {
    head: Request<()>,
    body: Bytes,
}

impl Call {
    /// Encodes a call of `path` with `message`, as the holder of `key`.
    pub fn new(path: &str, key: &str, message: &impl Message) -> Result<Self> {
        let head = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://127.0.0.1{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("authorization", format!("Bearer {key}"))
            .body(())?;
        let mut body = BytesMut::with_capacity(5 + message.encoded_len());
        body.put_u8(0);
        body.put_u32(u32::try_from(message.encoded_len())?);
        message.encode(&mut body)?;
        Ok(Self {
            head,
            body: body.freeze(),
        })
    }
}

/// The message in an answer.
pub fn decode<M: Message + Default>(answer: &Bytes) -> Result<M> {
    ensure!(answer.len() >= 5, "the answer is shorter than its head");
    Ok(M::decode(answer.slice(5..))?)
}

/// A connection; its clones share it.
#[derive(Clone)]
pub struct Line {
    requests: SendRequest<Bytes>,
}

impl Line {
    /// Connects, and drives the connection on this runtime.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::over(stream).await
    }

    /// The same over what is connected already.
    pub async fn over<S>(stream: S) -> Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (socket, turns) = turn::gather(stream);
        // Windows so wide that flow control costs the same nothing everywhere.
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(8 << 20)
            .initial_connection_window_size(64 << 20)
            .enable_push(false)
            .handshake(socket)
            .await?;
        tokio::spawn(async move {
            // Its end shows as the failure of the calls on it.
            let _ = turns.drive(connection).await;
        });
        Ok(Self { requests })
    }

    /// Makes a call and returns the framed answer, or why there is none.
    pub async fn call(&mut self, call: &Call) -> Result<Bytes> {
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (answer, mut body) = self.requests.send_request(call.head.clone(), false)?;
        body.send_data(call.body.clone(), true)?;
        collect(answer).await
    }
}

async fn collect(answer: ResponseFuture) -> Result<Bytes> {
    let answer = answer.await?;
    ensure!(
        answer.status() == http::StatusCode::OK,
        "HTTP status {}",
        answer.status()
    );
    if answer.headers().contains_key("grpc-status") {
        well(answer.headers())?;
    }
    let mut body = answer.into_body();
    let mut whole = Bytes::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        if whole.is_empty() {
            whole = chunk;
        } else {
            let mut longer = BytesMut::with_capacity(whole.len() + chunk.len());
            longer.put(whole);
            longer.put(chunk);
            whole = longer.freeze();
        }
    }
    well(&body.trailers().await?.context("no trailers")?)?;
    Ok(whole)
}

fn well(headers: &HeaderMap) -> Result<()> {
    let status = headers.get("grpc-status").context("no grpc-status")?;
    if status == "8" {
        bail!(Exhausted(format!("{:?}", headers.get("grpc-message"))));
    }
    if status != "0" {
        bail!("grpc-status {status:?}: {:?}", headers.get("grpc-message"));
    }
    Ok(())
}

/// A call was answered RESOURCE_EXHAUSTED.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub struct Exhausted(String);
