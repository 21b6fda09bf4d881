//! WarmCache: a stream of messages into parts for the cache, each admitted as a
//! call of its own, until the stream ends or may not go on. It does not know what
//! is done with a part.

use std::sync::{Mutex, PoisonError};

use futures::{Stream, stream};
use http::HeaderMap;
use tonic::{Status, Streaming};

use super::{Answer, CacheApi, Context, message};
use crate::{
    cache::{Failed, Part, Warmed},
    error::{Error, Result},
    grpc::{Stage, auth, convert::int64, status},
    proto::v1::{WarmCacheRequest, WarmCacheResponse, WarmFailure},
    tenant::{Access, Caller, Permission, Scope, Tenancy},
};

/// Why the messages ended before their end.
enum Trouble {
    /// The next may not be taken.
    Refused(Error),
    /// It cannot be read, or the caller is gone.
    Broken(Status),
}

/// The messages of a call.
struct Messages<'a> {
    api: &'a CacheApi,
    context: &'a Context,
    /// The key that came with the call; `None` where it is the admin's.
    bearer: Option<&'a str>,
    /// The first, until it was taken.
    first: Option<WarmCacheRequest>,
    rest: Streaming<WarmCacheRequest>,
    /// What the first named.
    tenant_id: String,
    namespace: String,
    /// The call as its first message was admitted.
    tenancy: Option<Tenancy>,
}

impl CacheApi {
    pub(super) async fn warm(
        &self,
        context: &Context,
        headers: &HeaderMap,
        mut messages: Streaming<WarmCacheRequest>,
    ) -> Answer<WarmCacheResponse> {
        let bearer = match &context.caller {
            Caller::Admin | Caller::Certified(_) => Ok(None),
            Caller::Key(_) => auth::bearer(headers),
        };
        let bearer = bearer.map_err(|error| status::status(&error, context))?;
        let first = match self.message(&mut messages).await {
            Ok(first) => first.unwrap_or_default(),
            Err(Trouble::Refused(error)) => return context.answer(Err(error)),
            Err(Trouble::Broken(status)) => return Err(status),
        };
        let namespace = first.namespace.clone();
        let messages = Messages {
            api: self,
            context,
            bearer,
            tenant_id: first.tenant_id.clone(),
            namespace: first.namespace.clone(),
            first: Some(first),
            rest: messages,
            tenancy: None,
        };
        let trouble = Mutex::new(None);
        let parts = messages.parts(&trouble);
        let (warmed, done) = self.cache.warm(&namespace, parts).await;
        let warmed = response(warmed, context);
        let trouble = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (done, trouble) {
            (Ok(()), None) => context.answer(Ok(warmed)),
            // What stopped the cache came before what stopped the messages.
            (Err(error), _) | (Ok(()), Some(Trouble::Refused(error))) => {
                Err(context.warned(status::partial(&error, context, warmed)))
            }
            (Ok(()), Some(Trouble::Broken(status))) => Err(status),
        }
    }
}

impl CacheApi {
    /// The next message; none is waited for when the server leaves.
    async fn message(
        &self,
        messages: &mut Streaming<WarmCacheRequest>,
    ) -> std::result::Result<Option<WarmCacheRequest>, Trouble> {
        tokio::select! {
            message = messages.message() => message.map_err(Trouble::Broken),
            () = self.health.reached(Stage::Leaving) => Err(Trouble::Refused(Error::Draining)),
        }
    }
}

impl<'a> Messages<'a> {
    /// The parts that the messages bring, until there is trouble.
    fn parts(self, trouble: &'a Mutex<Option<Trouble>>) -> impl Stream<Item = Part> + Send + 'a {
        stream::unfold(self, move |mut messages| async move {
            match messages.next().await {
                Ok(part) => part.map(|part| (part, messages)),
                Err(met) => {
                    *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(met);
                    None
                }
            }
        })
    }

    async fn next(&mut self) -> std::result::Result<Option<Part>, Trouble> {
        let message = match self.first.take() {
            Some(first) => Some(first),
            None => self.api.message(&mut self.rest).await?,
        };
        let Some(message) = message else {
            return Ok(None);
        };
        self.part(message).await.map(Some).map_err(Trouble::Refused)
    }

    /// Admits a message as a call that writes, and reads where it has keys; the
    /// caller's key may have been revoked since the one before.
    async fn part(&mut self, message: WarmCacheRequest) -> Result<Part> {
        self.same("tenant_id", &message.tenant_id, &self.tenant_id)?;
        self.same("namespace", &message.namespace, &self.namespace)?;
        match self.bearer {
            Some(bearer) => self.api.tenants.authenticate(Some(bearer)).await?,
            None => self.context.caller.lasting()?,
        };
        if !message.keys.is_empty() {
            let reads = Permission::Scope(Scope::CacheRead);
            self.context.caller.require(reads)?;
        }
        let mut tenancy = self
            .api
            .admit(self.context, &self.tenant_id, Access::Write)
            .await?;
        // How long a message takes is for the sender to decide.
        tenancy.began = None;
        let first = self.tenancy.get_or_insert_with(|| tenancy.clone());
        if first.incarnation != tenancy.incarnation {
            // Created anew meanwhile: it is not the tenant that the caller meant.
            return Err(Error::no_tenant(&*tenancy.tenant_id));
        }
        Ok(Part {
            tenancy,
            entries: message.entries.into_iter().map(message::owned).collect(),
            keys: message.keys,
        })
    }

    /// That a message names nothing but what the first one did.
    fn same(&self, field: &'static str, named: &str, first: &str) -> Result<()> {
        if named.is_empty() || named == first {
            return Ok(());
        }
        let allowed = "only what the stream's first message named is allowed, or nothing";
        Err(Error::invalid(field, allowed))
    }
}

fn response(warmed: Warmed, context: &Context) -> WarmCacheResponse {
    let failure = |Failed { item, key, error }| WarmFailure {
        key,
        item: int64(item),
        status: Some(status::rpc_status(&error, context)),
    };
    WarmCacheResponse {
        stored: int64(warmed.stored),
        pulled: int64(warmed.pulled),
        not_kept: int64(warmed.not_kept),
        missing: int64(warmed.missing),
        failed: int64(warmed.failed),
        failures: warmed.failures.into_iter().map(failure).collect(),
    }
}
