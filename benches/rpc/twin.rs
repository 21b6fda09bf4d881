//! Servers with the service's messages and none of its work: what tonic alone
//! costs. They do not keep anything; a value is the same for every key.

mod quota;

use std::{
    io::Write,
    net::SocketAddr,
    sync::atomic::{AtomicI64, Ordering::Relaxed},
    thread,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use prost_types::Timestamp;
use riptide_persistence::proto::v1::{
    cache_service_server::{CacheService, CacheServiceServer},
    tenant_service_server::TenantServiceServer,
    *,
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, Response, Status};
use tower::Service;

use quota::Quota;

use crate::{
    scenario::{BATCH_VALUE_BYTES, MISSING, VALUE_BYTES},
    turn,
};

/// Serves as the twin of this name until the process is killed; prints its
/// address first.
pub fn serve(name: &str) -> Result<()> {
    match name {
        "default" => default(),
        "per-core" => per_core(),
        _ => bail!("no twin is named {name}: default, per-core"),
    }
}

/// As tonic's examples do it.
#[tokio::main]
async fn default() -> Result<()> {
    let listener = listen().await?;
    tonic::transport::Server::builder()
        .add_service(CacheServiceServer::new(Twin::new()))
        .add_service(TenantServiceServer::new(Quota::new()))
        .serve_with_incoming(
            tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true)),
        )
        .await?;
    Ok(())
}

/// As this server does it: a runtime per core, connections dealt out, answers of
/// a turn sent in one piece.
fn per_core() -> Result<()> {
    let cache = CacheServiceServer::new(Twin::new());
    let tenant = TenantServiceServer::new(Quota::new());
    let mut cores = Vec::new();
    for _ in 0..thread::available_parallelism()?.get() {
        let (sender, mut sockets) = mpsc::unbounded_channel::<std::net::TcpStream>();
        cores.push(sender);
        let (cache, tenant) = (cache.clone(), tenant.clone());
        thread::spawn(move || -> Result<()> {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?
                .block_on(async {
                    while let Some(socket) = sockets.recv().await {
                        let (socket, turns) =
                            turn::gather(tokio::net::TcpStream::from_std(socket)?);
                        let io = TokioIo::new(socket);
                        let (mut cache, mut tenant) = (cache.clone(), tenant.clone());
                        let service =
                            tower::service_fn(
                                move |request: http::Request<Incoming>| match request
                                    .uri()
                                    .path()
                                    .contains("TenantService")
                                {
                                    true => tenant.call(request),
                                    false => cache.call(request),
                                },
                            );
                        let service = TowerToHyperService::new(service);
                        tokio::spawn(
                            turns.drive(
                                http2::Builder::new(TokioExecutor::new())
                                    .timer(TokioTimer::new())
                                    .initial_stream_window_size(1 << 20)
                                    .initial_connection_window_size(2 << 20)
                                    .serve_connection(io, service),
                            ),
                        );
                    }
                    Ok(())
                })
        });
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = listen().await?;
            for core in cores.iter().cycle() {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                core.send(socket.into_std()?)?;
            }
            Ok(())
        })
}

async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    println!("{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    Ok(listener)
}

struct Twin {
    value: Bytes,
    batch_value: Bytes,
    versions: AtomicI64,
}

impl Twin {
    fn new() -> Self {
        Self {
            value: vec![b'v'; VALUE_BYTES].into(),
            batch_value: vec![b'v'; BATCH_VALUE_BYTES].into(),
            versions: AtomicI64::new(1),
        }
    }

    fn entry(key: String, value: &Bytes) -> Option<CacheEntry> {
        (!key.starts_with(MISSING)).then(|| CacheEntry {
            key,
            size_bytes: value.len() as i64,
            stored_bytes: value.len() as i64,
            value: value.clone(),
            version: 1_000_000,
            create_time: Some(moment()),
            expire_time: Some(moment()),
            ..CacheEntry::default()
        })
    }
}

fn moment() -> Timestamp {
    Timestamp {
        seconds: 1_800_000_000,
        nanos: 123_000_000,
    }
}

#[tonic::async_trait]
impl CacheService for Twin {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Ok(Response::new(GetResponse {
            entry: Self::entry(request.into_inner().key, &self.value),
        }))
    }

    async fn set(&self, request: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        Ok(Response::new(SetResponse {
            version: self.versions.fetch_add(1, Relaxed),
            expire_time: Some(moment()),
            stored_bytes: request.into_inner().value.len() as i64,
        }))
    }

    async fn batch_get(
        &self,
        request: Request<BatchGetRequest>,
    ) -> Result<Response<BatchGetResponse>, Status> {
        let keys = request.into_inner().keys;
        let results = keys
            .into_iter()
            .map(|key| BatchGetResult {
                key: key.clone(),
                entry: Self::entry(key, &self.batch_value),
                status: None,
            })
            .collect();
        Ok(Response::new(BatchGetResponse { results }))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Ok(Response::new(DeleteResponse::default()))
    }

    async fn batch_set(
        &self,
        _: Request<BatchSetRequest>,
    ) -> Result<Response<BatchSetResponse>, Status> {
        Ok(Response::new(BatchSetResponse::default()))
    }

    async fn batch_delete(
        &self,
        _: Request<BatchDeleteRequest>,
    ) -> Result<Response<BatchDeleteResponse>, Status> {
        Ok(Response::new(BatchDeleteResponse::default()))
    }

    async fn touch(&self, _: Request<TouchRequest>) -> Result<Response<TouchResponse>, Status> {
        Ok(Response::new(TouchResponse::default()))
    }

    async fn list_keys(
        &self,
        _: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        Ok(Response::new(ListKeysResponse::default()))
    }

    async fn invalidate_cache(
        &self,
        _: Request<InvalidateCacheRequest>,
    ) -> Result<Response<InvalidateCacheResponse>, Status> {
        Ok(Response::new(InvalidateCacheResponse::default()))
    }

    async fn get_or_lease(
        &self,
        _: Request<GetOrLeaseRequest>,
    ) -> Result<Response<GetOrLeaseResponse>, Status> {
        Ok(Response::new(GetOrLeaseResponse::default()))
    }

    async fn warm_cache(
        &self,
        _: Request<tonic::Streaming<WarmCacheRequest>>,
    ) -> Result<Response<WarmCacheResponse>, Status> {
        Ok(Response::new(WarmCacheResponse::default()))
    }

    type WatchInvalidationsStream =
        futures::stream::Empty<Result<WatchInvalidationsResponse, Status>>;

    async fn watch_invalidations(
        &self,
        _: Request<WatchInvalidationsRequest>,
    ) -> Result<Response<Self::WatchInvalidationsStream>, Status> {
        Ok(Response::new(futures::stream::empty()))
    }

    async fn get_cache_stats(
        &self,
        _: Request<GetCacheStatsRequest>,
    ) -> Result<Response<GetCacheStatsResponse>, Status> {
        Ok(Response::new(GetCacheStatsResponse::default()))
    }
}
