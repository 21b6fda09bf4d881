//! Which service a path belongs to. It does not know who may call it.

use std::{
    collections::HashMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, LazyLock},
};

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt, util::BoxCloneSyncService};

use tonic_health::pb::health_server::HealthServer;

use super::{
    CacheApi, Context, Health, METHODS, Method, TenantApi,
    cache::Hot,
    ending::ending,
    health, state, status,
    traffic::{Received, Traffic},
};
use crate::{
    error::{Error, Result},
    proto::v1::{
        DESCRIPTORS, cache_service_server::CacheServiceServer,
        state_service_server::StateServiceServer, tenant_service_server::TenantServiceServer,
    },
};

/// Where a call goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    /// An RPC of ours.
    Rpc(&'static Method),
    /// `grpc.health.v1`: asked once, or watched.
    Health {
        /// Whether it is watched.
        watch: bool,
    },
    /// Reflection.
    Reflection(Version),
    /// Nowhere.
    Unknown,
}

/// The versions of the reflection protocol.
#[derive(Clone, Copy, Debug)]
pub(super) enum Version {
    /// `grpc.reflection.v1`.
    V1,
    /// `grpc.reflection.v1alpha`, which older clients speak.
    V1Alpha,
}

static RPCS: LazyLock<HashMap<&str, &Method>> =
    LazyLock::new(|| METHODS.iter().map(|method| (method.path, method)).collect());

impl Route {
    /// The route of a path; an RPC that is not in [`METHODS`] leads nowhere.
    pub(super) fn of(path: &str) -> Self {
        if let Some(method) = RPCS.get(path) {
            return Self::Rpc(method);
        }
        match path.strip_prefix('/').and_then(|path| path.split_once('/')) {
            Some(("grpc.health.v1.Health", "Check")) => Self::Health { watch: false },
            Some(("grpc.health.v1.Health", "Watch")) => Self::Health { watch: true },
            Some(("grpc.reflection.v1.ServerReflection", _)) => Self::Reflection(Version::V1),
            Some(("grpc.reflection.v1alpha.ServerReflection", _)) => {
                Self::Reflection(Version::V1Alpha)
            }
            _ => Self::Unknown,
        }
    }
}

/// An answer on its way.
pub(super) type Answer =
    Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, Infallible>> + Send>>;

type Boxed = BoxCloneSyncService<Request<Received>, Response<Body>, Infallible>;

/// The services of a core.
pub struct Routes {
    tenant: TenantServiceServer<TenantApi>,
    cache: CacheServiceServer<CacheApi>,
    /// The same, for calls past the framework.
    hot: Arc<CacheApi>,
    state: StateServiceServer<state::Api>,
    health: HealthServer<health::Api>,
    reflection: Option<[Boxed; 2]>,
    /// Ends the streams that do not end themselves.
    leaving: Arc<Health>,
}

impl Routes {
    /// The services, taking messages of at most `max_message_bytes`.
    ///
    /// # Errors
    /// [`Error::Internal`] where reflection cannot read our own descriptors.
    pub fn new(
        max_message_bytes: usize,
        tenant: TenantApi,
        cache: CacheApi,
        state: state::Api,
        health: health::Api,
        reflection: bool,
    ) -> Result<Self> {
        let hot = Arc::new(cache);
        let cache = CacheServiceServer::from_arc(hot.clone());
        Ok(Self {
            tenant: TenantServiceServer::new(tenant).max_decoding_message_size(max_message_bytes),
            cache: cache.max_decoding_message_size(max_message_bytes),
            hot,
            state: StateServiceServer::new(state).max_decoding_message_size(max_message_bytes),
            leaving: health.0.clone(),
            health: HealthServer::new(health),
            reflection: reflection.then(reflect).transpose()?,
        })
    }

    /// The answer to a call of an RPC that is called most.
    pub(super) async fn hot(
        &self,
        rpc: Hot,
        context: &Context,
        body: Incoming,
        max_message_bytes: usize,
        traffic: &Traffic,
    ) -> Response<Body> {
        let hot = &self.hot;
        hot.serve(rpc, context, body, max_message_bytes, traffic)
            .await
    }

    /// The answer of the service that the route leads to.
    pub(super) fn call(
        &self,
        route: Route,
        request: Request<Received>,
        request_id: &str,
    ) -> Answer {
        match (route, &self.reflection) {
            (Route::Rpc(method), _) => match method.service {
                "TenantService" => self.tenant.clone().call(request),
                "CacheService" => self.cache.clone().call(request),
                "StateService" => self.state.clone().call(request),
                _ => nowhere(),
            },
            (Route::Health { .. }, _) => self.health.clone().call(request),
            (Route::Reflection(version), Some([v1, v1alpha])) => {
                let service = match version {
                    Version::V1 => v1,
                    Version::V1Alpha => v1alpha,
                };
                let answer = service.clone().oneshot(request);
                let leaving = status::of(&Error::Draining, request_id);
                let health = self.leaving.clone();
                Box::pin(async move {
                    let Ok(response) = answer.await;
                    Ok(ending(response, health, leaving))
                })
            }
            (Route::Reflection(_) | Route::Unknown, _) => nowhere(),
        }
    }
}

fn nowhere() -> Answer {
    let refused = Status::unimplemented("there is no such RPC").into_http();
    Box::pin(std::future::ready(Ok(refused)))
}

fn reflect() -> Result<[Boxed; 2]> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = |error: tonic_reflection::server::Error| Error::Internal(error.to_string());
    Ok([
        Boxed::new(builder().build_v1().map_err(broken)?),
        Boxed::new(builder().build_v1alpha().map_err(broken)?),
    ])
}
