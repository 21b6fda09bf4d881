//! How a server is reached: addresses, TLS, the key, and what a connection is held to.
//! It does not know what is asked over it.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint, Uri},
};

use super::{
    Client, Shared,
    retry::{Observer, Policy, Retry},
    tls::Trust,
};

/// How long a call may take in all, retries included, where nothing else is told.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How long it may take to reach a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that tells nothing is asked whether it still stands after this.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// It has so long to answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Larger than any value a server can be set up to take.
pub(crate) const MESSAGE_BYTES: usize = 512 << 20;

/// What a client is made of; [`Client::to`] begins one.
#[derive(Clone)]
pub struct Options {
    first: String,
    others: Vec<String>,
    key: Option<String>,
    trust: Trust,
    deadline: Duration,
    policy: Policy,
    observer: Option<Observer>,
}

impl Options {
    pub(super) fn new(address: String) -> Self {
        Self {
            first: address,
            others: Vec::new(),
            key: None,
            trust: Trust::default(),
            deadline: DEADLINE,
            policy: Policy::default(),
            observer: None,
        }
    }

    /// Another replica of the same service. Calls go to each in turn, and a call that is
    /// repeated goes to the next.
    #[must_use]
    pub fn or_to(mut self, address: impl Into<String>) -> Self {
        self.others.push(address.into());
        self
    }

    /// The API key that every call carries.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Whose certificates are trusted, in PEM; without it those that this machine trusts.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust.ca_file = Some(path.into());
        self
    }

    /// The certificate that is shown to the server, and its private key, in PEM.
    #[must_use]
    pub fn identity(mut self, cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        self.trust.identity = Some((cert_file.into(), key_file.into()));
        self
    }

    /// How long a call may take in all, its retries and the waits between them included;
    /// [`DEADLINE`] where nothing is told. The server is told what is left of it.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How often a call is made at most, the first time included; 1 never retries, and 0
    /// is 1. Whatever it is, no wait goes past the deadline.
    #[must_use]
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.policy.attempts = attempts.max(1);
        self
    }

    /// Is told of each retry before the wait for it.
    #[must_use]
    pub fn on_retry(mut self, observer: impl Fn(&Retry<'_>) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// A client that has reached each server.
    ///
    /// # Errors
    /// [`Unconnected`] where an option cannot be used, or a server cannot be reached.
    pub async fn connect(self) -> Result<Client, Unconnected> {
        let first = connect(&uri(&self.first)?, CONNECT_TIMEOUT, &self.trust).await?;
        let mut others = Vec::new();
        for address in &self.others {
            others.push(connect(&uri(address)?, CONNECT_TIMEOUT, &self.trust).await?);
        }
        self.client(first, others)
    }

    /// A client that reaches for a server when it is first called: a service can start
    /// before what it calls does. It is made inside a tokio runtime.
    ///
    /// # Errors
    /// [`Unconnected`] where an option cannot be used.
    pub fn connect_lazily(self) -> Result<Client, Unconnected> {
        let first = self.lazily(&self.first)?;
        let others = self.others.iter().map(|address| self.lazily(address));
        let others = others.collect::<Result<_, _>>()?;
        self.client(first, others)
    }

    fn lazily(&self, address: &str) -> Result<Channel, Unconnected> {
        let uri = uri(address)?;
        let endpoint = endpoint(&uri, CONNECT_TIMEOUT);
        Ok(if is_tls(&uri) {
            let connector = self.trust.connector(&uri)?;
            endpoint.connect_with_connector_lazy(connector.service())
        } else {
            endpoint.connect_lazy()
        })
    }

    fn client(self, first: Channel, others: Vec<Channel>) -> Result<Client, Unconnected> {
        let key = self.key.as_deref().map(bearer).transpose()?;
        Ok(Client {
            shared: Arc::new(Shared {
                first,
                others,
                next: Default::default(),
                policy: self.policy,
                observer: self.observer,
            }),
            key,
            deadline: self.deadline,
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            first,
            others,
            trust,
            deadline,
            policy,
            ..
        } = self;
        f.debug_struct("Options")
            .field("first", first)
            .field("others", others)
            .field("trust", trust)
            .field("deadline", deadline)
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}

/// Why there is no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unconnected {
    /// What was told cannot be used.
    #[error("{name}: {problem}")]
    Setting {
        /// `address`, `key`, `ca_file`, `cert_file` or `key_file`.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody answers there, or not as a server of ours.
    #[error("cannot reach a server at {address}: {cause}")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        cause: String,
    },
}

impl Unconnected {
    pub(super) fn setting(name: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting {
            name,
            problem: problem.into(),
        }
    }
}

/// `authorization` for a key.
pub(crate) fn bearer(key: &str) -> Result<MetadataValue<Ascii>, Unconnected> {
    let value = MetadataValue::try_from(format!("Bearer {}", key.trim()));
    let mut value = value.map_err(|_| Unconnected::setting("key", "not the text of an API key"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An address, which may leave out that it is not TLS.
pub(crate) fn uri(address: &str) -> Result<Uri, Unconnected> {
    let whole = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let allowed = "is not http://<host>:<port> or https://<host>:<port>";
    let unfit = || Unconnected::setting("address", format!("{whole:?} {allowed}"));
    let uri: Uri = whole.parse().map_err(|_| unfit())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(unfit()),
    }
}

/// A channel to a server that was reached in time.
pub(crate) async fn connect(
    uri: &Uri,
    timeout: Duration,
    trust: &Trust,
) -> Result<Channel, Unconnected> {
    let endpoint = endpoint(uri, timeout);
    let connecting = async {
        if is_tls(uri) {
            let connector = trust.connector(uri)?;
            return Ok(endpoint.connect_with_connector(connector.service()).await);
        }
        Ok(endpoint.connect().await)
    };
    let unreachable = |cause: String| Unconnected::Unreachable {
        address: uri.to_string(),
        cause,
    };
    match tokio::time::timeout(timeout, connecting).await {
        Ok(reached) => reached?.map_err(|error| unreachable(innermost(&error))),
        Err(_) => Err(unreachable("no answer in time".to_owned())),
    }
}

fn endpoint(uri: &Uri, timeout: Duration) -> Endpoint {
    Endpoint::from(uri.clone())
        .connect_timeout(timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https")
}

/// What the system said, without what the layers above it add.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
