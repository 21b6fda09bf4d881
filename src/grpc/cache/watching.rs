//! WatchInvalidations: a watcher of the cache, told as it goes, for as long as its
//! caller may watch. It does not know where changes come from.
//!
//! The stream makes a message when the connection has room for one, and holds none:
//! what waits, waits in the cache, which bounds it.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::{CacheApi, Context};
use crate::{
    cache::{Change, Reach, Told, Watcher},
    error::{Error, Result},
    grpc::{Health, Stage, auth, deadline, status},
    proto::v1::{
        InvalidationEvent, Keys, Tags, WatchInvalidationsRequest, WatchInvalidationsResponse,
        invalidation_event::Target,
    },
    store::{Cursor, Incarnation, Position},
    tenant::{Access, Caller, Tenancy, Tenants, page},
};

/// How often it is looked whether the caller may still watch. In force within a
/// second, as far as the directory is.
const LOOK: Duration = Duration::from_millis(200);

/// How long a store that cannot be asked is waited for, before the caller is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream of responses.
pub(super) type Watch =
    stream::BoxStream<'static, std::result::Result<WatchInvalidationsResponse, Status>>;

/// A call that watches.
struct Watching {
    tenants: Tenants,
    context: Context,
    /// The key that came with the call; `None` where it is the admin's.
    bearer: Option<SecretString>,
    tenancy: Tenancy,
    watcher: Watcher,
    /// What a resume_token is bound to.
    filter: Vec<Vec<u8>>,
    /// When the caller's own deadline ends the call.
    until: Option<Instant>,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether the tenant's data were elsewhere when the caller was told last.
    elsewhere: bool,
    /// When the caller was told anything.
    told: Option<Instant>,
    /// When it was last seen that the caller may watch.
    looked: Instant,
}

impl CacheApi {
    pub(super) async fn watch(
        &self,
        context: Context,
        headers: &HeaderMap,
        request: WatchInvalidationsRequest,
    ) -> Result<Watch> {
        let tenancy = self
            .admit(&context, &request.tenant_id, Access::Read)
            .await?;
        let reach = Reach::new(&tenancy, &request.namespaces)?;
        let mut filter = vec![tenancy.incarnation.to_string().into_bytes()];
        filter.extend(
            reach
                .namespaces()
                .iter()
                .map(|name| name.as_bytes().to_vec()),
        );
        let from = open(&self.tenants, &filter, &request.resume_token).await?;
        let (from, elsewhere) = match from {
            Some((home, _)) if home.unwrap_or(tenancy.incarnation) != tenancy.home => (None, true),
            from => (from.map(|(_, position)| position), false),
        };
        let bearer = match &context.caller {
            Caller::Admin | Caller::Certified(_) => None,
            Caller::Key(_) => auth::bearer(headers)?.map(SecretString::from),
        };
        let until = deadline::asked(headers)?.map(|timeout| Instant::now() + timeout);
        let watcher = self.cache.watch(&tenancy, reach, from).await?;
        let health = self.health.clone();
        let watching = Watching {
            tenants: self.tenants.clone(),
            context,
            bearer,
            tenancy,
            watcher,
            filter,
            until,
            leaving: Box::pin(left(health)),
            elsewhere,
            told: None,
            looked: Instant::now(),
        };
        let messages = stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(error) => Some((Err(status::status(&error, &watching.context)), None)),
            }
        });
        Ok(messages.boxed())
    }
}

async fn left(health: Arc<Health>) {
    health.reached(Stage::Leaving).await;
}

impl Watching {
    /// The next response.
    async fn next(&mut self) -> Result<WatchInvalidationsResponse> {
        let told = self.told().await?;
        self.told = Some(Instant::now());
        let listing = listing(&self.filter);
        let place = format!("{}@{}", self.tenancy.home, told.position.0);
        let cursor = Cursor(place.into_bytes().into());
        let resume_token = self.tenants.seal_page(&listing.page(), &cursor).await?;
        Ok(WatchInvalidationsResponse {
            events: told.changes.into_iter().map(event).collect(),
            resume_token,
        })
    }

    async fn told(&mut self) -> Result<Told> {
        let Some(told) = self.told else {
            // At once, so that the caller knows from when on it is told of changes.
            return Ok(Told {
                changes: Vec::new(),
                position: self.watcher.position().clone(),
            });
        };
        let mut heartbeat = told + self.watcher.heartbeat();
        loop {
            if std::mem::take(&mut self.elsewhere) {
                return self.watcher.go_on(&self.tenancy).await;
            }
            if self.looked.elapsed() >= LOOK {
                self.look().await?;
                continue;
            }
            let looked = self.looked + LOOK;
            let until = self.until.unwrap_or_else(|| looked + LOOK);
            tokio::select! {
                // One that is told without end is told that it is over all the same.
                biased;
                () = &mut self.leaving => return Err(Error::Draining),
                () = sleep_until(until), if self.until.is_some() => {
                    return Err(Error::DeadlineExceeded);
                }
                told = self.watcher.next() => match told {
                    // Where it is, the next look tells.
                    Err(Error::RestoreInProgress) => {
                        sleep_until(looked).await;
                        self.tenants.look_anew(&self.tenancy.tenant_id);
                    }
                    told => return told,
                },
                () = sleep_until(heartbeat) => match self.watcher.idle() {
                    Some(told) => return Ok(told),
                    // It says that nothing has changed, which is not known now.
                    None => heartbeat = Instant::now() + LOOK,
                },
                () = sleep_until(looked) => {}
            }
        }
    }

    /// Whether the caller may still watch, and there is anything to be told by.
    async fn look(&mut self) -> Result<()> {
        if self.watcher.silence() >= PATIENCE {
            return Err(Error::StoreUnavailable);
        }
        let allowed = async {
            let caller = match &self.bearer {
                Some(bearer) => {
                    let bearer = Some(bearer.expose_secret());
                    self.tenants.authenticate(bearer).await?
                }
                None => self.context.caller.lasting()?,
            };
            let tenancy = self
                .tenants
                .admit(&caller, &self.tenancy.tenant_id, Access::Read)
                .await?;
            if tenancy.incarnation != self.tenancy.incarnation {
                return Err(Error::no_tenant(&*self.tenancy.tenant_id));
            }
            Ok(tenancy)
        };
        match allowed.await {
            Ok(tenancy) => {
                self.elsewhere |= tenancy.home != self.tenancy.home;
                self.tenancy = tenancy;
            }
            // The silence of the store is waited for, in its time.
            Err(Error::StoreUnavailable) => {}
            Err(error) => return Err(error),
        }
        self.looked = Instant::now();
        Ok(())
    }
}

/// What a resume_token belongs to: a life of a tenant, and what is watched of it.
struct Bound<'a>(Vec<&'a [u8]>);

fn listing(filter: &[Vec<u8>]) -> Bound<'_> {
    Bound(filter.iter().map(Vec::as_slice).collect())
}

impl Bound<'_> {
    fn page(&self) -> page::Listing<'_> {
        page::Listing {
            name: "WatchInvalidations",
            filter: &self.0,
        }
    }
}

/// The place that a resume_token stands for, and the home of the cache that it is in
/// (where the token tells none, the first); `None` for the empty one.
async fn open(
    tenants: &Tenants,
    filter: &[Vec<u8>],
    token: &str,
) -> Result<Option<(Option<Incarnation>, Position)>> {
    let opened = tenants.open_page(&listing(filter).page(), token).await;
    let cursor = opened.map_err(|error| match error {
        Error::InvalidPageToken => Error::InvalidResumeToken,
        error => error,
    })?;
    let position = cursor.map(|cursor| {
        let text = std::str::from_utf8(&cursor.0).map_err(|_| Error::InvalidResumeToken)?;
        Ok(match text.split_once('@') {
            Some((home, position)) => {
                let home = Incarnation::parse(home).ok_or(Error::InvalidResumeToken)?;
                (Some(home), Position(position.into()))
            }
            None => (None, Position(text.into())),
        })
    });
    position.transpose()
}

fn event(change: Change) -> InvalidationEvent {
    let (namespace, target) = match change {
        Change::Tenant => (String::new(), Some(Target::Tenant(true))),
        Change::Namespace(of) => (of, None),
        Change::Prefix(of, prefix) => (of, Some(Target::Prefix(prefix))),
        Change::Tags(of, tags) => (of, Some(Target::Tags(Tags { tags }))),
        Change::Keys(of, keys) => (of, Some(Target::Keys(Keys { keys }))),
    };
    InvalidationEvent { namespace, target }
}
