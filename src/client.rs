//! A client of the service in Rust: a channel, a key, a deadline, retries by reason, and
//! lists as streams. It does not know what is asked: each message of
//! [`proto::v1`](crate::proto::v1) that asks an RPC is sent to it.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use futures::TryStreamExt;
//! use riptide_persistence::{
//!     client::{Client, Failure, Reason},
//!     proto::v1::{GetRequest, ListKeysRequest, SetRequest},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::to("https://persistence.example:50051")
//!     .key(std::env::var("RIPTIDE_API_KEY")?)
//!     .ca_file("ca.pem")
//!     .deadline(Duration::from_secs(5))
//!     .connect()
//!     .await?;
//!
//! client
//!     .call(SetRequest {
//!         key: "greeting".into(),
//!         value: "hello".into(),
//!         ..Default::default()
//!     })
//!     .await?;
//! let answer = client
//!     .call(GetRequest {
//!         key: "greeting".into(),
//!         ..Default::default()
//!     })
//!     .await?;
//! assert!(answer.entry.is_some(), "no entry is a miss, and no error");
//!
//! // Every key, a page at a time.
//! let mut keys = std::pin::pin!(client.pages(ListKeysRequest::default()));
//! while let Some(key) = keys.try_next().await? {
//!     println!("{} takes {} bytes", key.key, key.size_bytes);
//! }
//!
//! // What went wrong is acted on by its reason.
//! let refused: Failure = client
//!     .call(SetRequest::default())
//!     .await
//!     .expect_err("it has no key");
//! if refused.reason() == Some(Reason::ValidationFailed) {
//!     for (field, allowed) in refused.violations() {
//!         println!("{field}: {allowed}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Retries
//!
//! A call that failed is made again where that is safe and can help, until its deadline:
//! [`retry`] has the table. A request that can name itself (`request_id`) and does not is
//! given a name, so that it is carried out once however often it is sent. What cannot be
//! named and may have happened is told as [`Outcome::Unknown`], never repeated.

mod ask;
mod connection;
mod failure;
mod page;
mod reason;
pub mod retry;
mod tls;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::Stream;
use http::uri::PathAndQuery;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use self::retry::{Observer, Policy, Retry};
use crate::random;

pub use self::{
    ask::{Ask, Followed, Paged, Streamed, Unary},
    connection::{DEADLINE, Options, Unconnected},
    failure::{Failure, Outcome},
    reason::Reason,
};
pub(crate) use self::{
    connection::{MESSAGE_BYTES, bearer, connect, innermost, uri},
    tls::Trust,
};

/// A connection to a service, with a key; its clones share the connection.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    key: Option<MetadataValue<Ascii>>,
    deadline: Duration,
}

struct Shared {
    /// To the first replica.
    first: Channel,
    /// To each other.
    others: Vec<Channel>,
    /// Whose turn it is.
    next: AtomicUsize,
    policy: Policy,
    observer: Option<Observer>,
}

impl Client {
    /// Begins a client of the server at an address, such as `https://persistence:50051`;
    /// `http://` may be left out.
    pub fn to(address: impl Into<String>) -> Options {
        Options::new(address.into())
    }

    /// The same connection with another key.
    ///
    /// # Errors
    /// [`Unconnected::Setting`] where it is not the text of a key.
    pub fn with_key(&self, key: &str) -> Result<Self, Unconnected> {
        Ok(Self {
            key: Some(bearer(key)?),
            ..self.clone()
        })
    }

    /// The same connection with another deadline.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// Makes a call, and makes it again where that is safe and can help.
    ///
    /// # Errors
    /// [`Failure`] where it failed the last time.
    pub async fn call<R: Unary>(&self, request: R) -> Result<R::Answer, Failure> {
        Ok(self.respond(request).await?.into_inner())
    }

    /// The same, with the metadata of the answer: `x-request-id`, and
    /// `riptide-quota-warning` for each limit that was passed in a mode that warns.
    ///
    /// # Errors
    /// [`Failure`] where it failed the last time.
    pub async fn respond<R: Unary>(&self, request: R) -> Result<Response<R::Answer>, Failure> {
        let once = |mut grpc: Grpc<Channel>, request: Request<R>| async move {
            let codec = ProstCodec::<R, R::Answer>::default();
            grpc.unary(request, path::<R>(), codec).await
        };
        self.repeat(request, true, once).await
    }

    /// Makes a call that is answered by a stream. Until its first message it is made again
    /// as others are, within the deadline; the stream itself has none. Where it breaks, ask
    /// again from where it stood: with the last `resume_token`, or the same `request_id`.
    ///
    /// # Errors
    /// [`Failure`] where it failed the last time. What breaks the stream is a
    /// [`Status`] of it, which [`Failure::from`] explains.
    pub async fn follow<R: Followed>(&self, request: R) -> Result<Streaming<R::Answer>, Failure> {
        let once = |mut grpc: Grpc<Channel>, request: Request<R>| async move {
            let codec = ProstCodec::<R, R::Answer>::default();
            grpc.server_streaming(request, path::<R>(), codec).await
        };
        let answer = self.repeat(request, false, once).await?;
        Ok(answer.into_inner())
    }

    /// Sends a stream that is answered by one message. It is sent once, as what was taken
    /// from it is gone, and has no deadline.
    ///
    /// # Errors
    /// [`Failure`] where it failed; what came before may be done, so its outcome is unknown.
    /// WarmCache tells how much is, by a `WarmCacheResponse` among the status's details.
    pub async fn send<R: Streamed>(
        &self,
        requests: impl Stream<Item = R> + Send + 'static,
    ) -> Result<R::Answer, Failure> {
        let mut request = Request::new(requests);
        self.sign(&mut request);
        let mut grpc = self.grpc();
        let failed = Failure::of_stream;
        grpc.ready().await.map_err(lost).map_err(failed)?;
        let codec = ProstCodec::<R, R::Answer>::default();
        let answer = grpc.client_streaming(request, path::<R>(), codec).await;
        Ok(answer.map_err(failed)?.into_inner())
    }

    /// All that a request lists, from its `page_token` on: what is there throughout is
    /// listed, what comes or goes meanwhile may be. A page is asked for when the one before
    /// it is read, each within the deadline of a call. Pin it to read it.
    pub fn pages<R: Paged>(&self, request: R) -> impl Stream<Item = Result<R::Item, Failure>> {
        page::pages(self.clone(), request)
    }

    /// Makes a call until it succeeds, or must not be made again. A server that is not told
    /// the deadline answers as long as it likes, once it has begun.
    async fn repeat<R, A, F>(
        &self,
        mut message: R,
        told: bool,
        once: impl Fn(Grpc<Channel>, Request<R>) -> F,
    ) -> Result<A, Failure>
    where
        R: Ask,
        F: Future<Output = Result<A, Status>>,
    {
        let began = Instant::now();
        let left = || self.deadline.saturating_sub(began.elapsed());
        if message.changes()
            && let Some(id) = message.request_id()
            && id.is_empty()
        {
            *id = Uuid::new_v4().to_string();
        }
        let repeatable = message.is_repeatable();
        let mut attempt = 1;
        loop {
            let mut request = Request::new(message.clone());
            self.sign(&mut request);
            if told {
                request.set_timeout(left());
            }
            let mut grpc = self.grpc();
            let answer = timeout(left(), async {
                grpc.ready().await.map_err(lost)?;
                once(grpc, request).await
            });
            let failure = match answer.await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => Failure::of(status, message.changes()),
                Err(_) => Failure::late(message.changes()),
            };
            let failure = failure.after(attempt);
            let policy = self.shared.policy;
            let Some(wait) = policy.wait(&failure, repeatable, attempt, left(), chance()) else {
                return Err(failure);
            };
            if let Some(observer) = &self.shared.observer {
                observer(&Retry {
                    path: R::PATH,
                    attempt,
                    wait,
                    failure: &failure,
                });
            }
            sleep(wait).await;
            attempt += 1;
        }
    }

    /// The next replica.
    fn grpc(&self) -> Grpc<Channel> {
        let Shared { first, others, .. } = &*self.shared;
        let turn = self.shared.next.fetch_add(1, Ordering::Relaxed) % (others.len() + 1);
        let other = turn.checked_sub(1).and_then(|other| others.get(other));
        Grpc::new(other.unwrap_or(first).clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES)
    }

    fn sign<T>(&self, request: &mut Request<T>) {
        if let Some(key) = &self.key {
            request.metadata_mut().insert("authorization", key.clone());
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("replicas", &(self.shared.others.len() + 1))
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

fn path<R: Ask>() -> PathAndQuery {
    PathAndQuery::from_static(R::PATH)
}

/// A connection that broke, as calls tell it.
fn lost(error: tonic::transport::Error) -> Status {
    Status::from_error(Box::new(error))
}

/// A number from 0 to 1, so that clients do not all come back at the same moment.
fn chance() -> f64 {
    f64::from(u32::from_le_bytes(random::bytes())) / f64::from(u32::MAX)
}
