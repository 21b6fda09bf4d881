//! CacheService: messages into calls of the cache, and its answers into
//! messages. It does not know what may be asked for; the cache refuses.

mod hot;
mod lease;
mod message;
mod stats;
mod warming;
mod watching;

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

pub(super) use self::hot::Hot;
use super::{Context, Health, convert::int64, home::at_home, status::rpc_status};
use crate::{
    cache::{Cache, Flushed, Range, Written},
    error::Result,
    proto::v1::{
        BatchDeleteRequest, BatchDeleteResponse, BatchDeleteResult, BatchGetRequest,
        BatchGetResponse, BatchGetResult, BatchSetRequest, BatchSetResponse, BatchSetResult,
        DeleteRequest, DeleteResponse, GetCacheStatsRequest, GetCacheStatsResponse,
        GetOrLeaseRequest, GetOrLeaseResponse, GetRequest, GetResponse, InvalidateCacheRequest,
        InvalidateCacheResponse, ListKeysRequest, ListKeysResponse, SetRequest, SetResponse,
        TouchRequest, TouchResponse, WarmCacheRequest, WarmCacheResponse,
        WatchInvalidationsRequest, cache_service_server::CacheService,
    },
    tenant::{Access, Tenancy, Tenants, page},
};

/// CacheService, as one core serves it.
pub struct CacheApi {
    tenants: Tenants,
    cache: Cache,
    /// Tells streams when to end.
    health: Arc<Health>,
}

impl CacheApi {
    /// The service over these tenants and their cache, until the server leaves.
    pub fn new(tenants: Tenants, cache: Cache, health: Arc<Health>) -> Self {
        Self {
            tenants,
            cache,
            health,
        }
    }

    async fn admit(&self, context: &Context, tenant_id: &str, access: Access) -> Result<Tenancy> {
        context.about(tenant_id);
        let mut tenancy = self
            .tenants
            .admit(&context.caller, tenant_id, access)
            .await?;
        tenancy.began = Some(context.began);
        context.tell_of(&tenancy);
        self.tenants.admit_transfer(&tenancy).await?;
        self.tenants.charge(&tenancy).await?;
        Ok(tenancy)
    }

    async fn read(&self, context: &Context, request: GetRequest) -> Result<GetResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let freshness = message::freshness(
            request.consistency,
            request.max_age.as_ref(),
            request.min_version,
        );
        let (namespace, key) = (&request.namespace, &request.key);
        let found = at_home!(
            self,
            (context, Access::Read),
            tenancy,
            self.cache.get(&tenancy, namespace, key, &freshness)
        );
        Ok(GetResponse {
            entry: found.map(|entry| message::entry(request.key, entry)),
        })
    }

    async fn write(&self, context: &Context, request: SetRequest) -> Result<SetResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let set = message::set(&request);
        let written = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.set(&tenancy, &request.namespace, &set)
        );
        Ok(SetResponse {
            version: int64(written.version),
            expire_time: message::time(written.expire_ms),
            stored_bytes: int64(written.stored_bytes),
        })
    }

    async fn remove(&self, context: &Context, request: DeleteRequest) -> Result<DeleteResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let (namespace, key) = (&request.namespace, &request.key);
        let if_version = request.if_version;
        let deleted = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.delete(&tenancy, namespace, key, if_version)
        );
        Ok(DeleteResponse { deleted })
    }

    async fn read_batch(
        &self,
        context: &Context,
        request: BatchGetRequest,
    ) -> Result<BatchGetResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let freshness = message::freshness(request.consistency, None, 0);
        let (namespace, keys) = (&request.namespace, &request.keys);
        let found = at_home!(
            self,
            (context, Access::Read),
            tenancy,
            self.cache.batch_get(&tenancy, namespace, keys, &freshness)
        );
        let result = |(key, found): (String, Result<_>)| match found {
            Ok(Some(entry)) => BatchGetResult {
                entry: Some(message::entry(key.clone(), entry)),
                key,
                status: None,
            },
            Ok(None) => BatchGetResult {
                key,
                ..Default::default()
            },
            Err(error) => BatchGetResult {
                key,
                entry: None,
                status: Some(rpc_status(&error, context)),
            },
        };
        let results = request.keys.into_iter().zip(found).map(result).collect();
        Ok(BatchGetResponse { results })
    }

    async fn write_batch(
        &self,
        context: &Context,
        request: BatchSetRequest,
    ) -> Result<BatchSetResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let sets: Vec<_> = request.entries.iter().map(message::item).collect();
        let written = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.batch_set(&tenancy, &request.namespace, &sets)
        );
        let keys = request.entries.into_iter().map(|entry| entry.key);
        let result = |(key, written): (String, Result<Written>)| match written {
            Ok(written) => BatchSetResult {
                key,
                version: int64(written.version),
                expire_time: message::time(written.expire_ms),
                stored_bytes: int64(written.stored_bytes),
                status: None,
            },
            Err(error) => BatchSetResult {
                key,
                status: Some(rpc_status(&error, context)),
                ..Default::default()
            },
        };
        let results = keys.zip(written).map(result).collect();
        Ok(BatchSetResponse { results })
    }

    async fn remove_batch(
        &self,
        context: &Context,
        request: BatchDeleteRequest,
    ) -> Result<BatchDeleteResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let (namespace, keys) = (&request.namespace, &request.keys);
        let removed = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.batch_delete(&tenancy, namespace, keys)
        );
        let result = |(key, removed): (String, Result<bool>)| match removed {
            Ok(deleted) => BatchDeleteResult {
                key,
                deleted,
                status: None,
            },
            Err(error) => BatchDeleteResult {
                key,
                deleted: false,
                status: Some(rpc_status(&error, context)),
            },
        };
        let results = request.keys.into_iter().zip(removed).map(result).collect();
        Ok(BatchDeleteResponse { results })
    }

    async fn extend(&self, context: &Context, request: TouchRequest) -> Result<TouchResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let ttl_ms = request.ttl.as_ref().map(message::span_ms);
        let (namespace, key) = (&request.namespace, &request.key);
        let touched = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.touch(&tenancy, namespace, key, ttl_ms)
        );
        Ok(TouchResponse {
            found: touched.found,
            expire_time: message::time(touched.expire_ms),
        })
    }

    async fn list(&self, context: &Context, request: ListKeysRequest) -> Result<ListKeysResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let range = Range::new(
            &tenancy,
            &request.namespace,
            &request.prefix,
            request.page_size,
        )?;
        let space = tenancy.space.clone();
        let listing = page::Listing {
            name: "ListKeys",
            filter: &[
                space.name().as_bytes(),
                range.namespace.as_bytes(),
                range.prefix.as_bytes(),
            ],
        };
        let after = self
            .tenants
            .open_page(&listing, &request.page_token)
            .await?;
        let found = at_home!(
            self,
            (context, Access::Read),
            tenancy,
            self.cache.list_keys(&tenancy, &range, after.clone())
        );
        let next_page_token = match &found.next {
            Some(next) => self.tenants.seal_page(&listing, next).await?,
            None => String::new(),
        };
        Ok(ListKeysResponse {
            keys: found.keys.into_iter().map(message::key_info).collect(),
            next_page_token,
        })
    }

    async fn invalidate(
        &self,
        context: &Context,
        request: InvalidateCacheRequest,
    ) -> Result<InvalidateCacheResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let namespace = &request.namespace;
        let target = || request.target.as_ref().map(message::invalidation);
        let Flushed {
            invalidated,
            generation,
        } = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.cache.invalidate(&tenancy, namespace, target())
        );
        Ok(InvalidateCacheResponse {
            invalidated: int64(invalidated),
            generation: int64(generation),
        })
    }
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[async_trait]
impl CacheService for CacheApi {
    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.read(&context, request).await)
    }

    async fn set(&self, request: Request<SetRequest>) -> Answer<SetResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.write(&context, request).await)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.remove(&context, request).await)
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Answer<BatchGetResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.read_batch(&context, request).await)
    }

    async fn batch_set(&self, request: Request<BatchSetRequest>) -> Answer<BatchSetResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.write_batch(&context, request).await)
    }

    async fn batch_delete(
        &self,
        request: Request<BatchDeleteRequest>,
    ) -> Answer<BatchDeleteResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.remove_batch(&context, request).await)
    }

    async fn touch(&self, request: Request<TouchRequest>) -> Answer<TouchResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.extend(&context, request).await)
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Answer<ListKeysResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.list(&context, request).await)
    }

    async fn get_or_lease(
        &self,
        request: Request<GetOrLeaseRequest>,
    ) -> Answer<GetOrLeaseResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.read_or_lease(&context, request).await)
    }

    async fn warm_cache(
        &self,
        request: Request<tonic::Streaming<WarmCacheRequest>>,
    ) -> Answer<WarmCacheResponse> {
        let headers = request.metadata().clone().into_headers();
        let (context, messages) = Context::of(request)?;
        self.warm(&context, &headers, messages).await
    }

    type WatchInvalidationsStream = watching::Watch;

    async fn watch_invalidations(
        &self,
        request: Request<WatchInvalidationsRequest>,
    ) -> Answer<Self::WatchInvalidationsStream> {
        let headers = request.metadata().clone().into_headers();
        let (context, request) = Context::of(request)?;
        let watch = self.watch(context.clone(), &headers, request).await;
        context.answer(watch)
    }

    async fn get_cache_stats(
        &self,
        request: Request<GetCacheStatsRequest>,
    ) -> Answer<GetCacheStatsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.stats(&context, &request).await)
    }

    async fn invalidate_cache(
        &self,
        request: Request<InvalidateCacheRequest>,
    ) -> Answer<InvalidateCacheResponse> {
        let (context, request) = Context::of(request)?;
        context.about(&request.tenant_id);
        context.answer(self.invalidate(&context, request).await)
    }
}
