//! StateService: what this server is, what it allows, and how it is set up. It
//! does not know how it came to be so.

mod checkpoint;
mod configuration;
mod restore;
mod session;

use std::{sync::Arc, time::SystemTime};

use tonic::{Request, Response, Status};

pub(super) use self::configuration::Configurations;
use self::{
    checkpoint::Taking,
    restore::{Pieces, Restoring},
};
use super::{Context, Health};
use crate::{
    cache,
    config::Config,
    proto::v1::{
        self, Feature, GetConfigRequest, GetConfigResponse, GetServerInfoRequest,
        GetServerInfoResponse, Limits, ReloadConfigRequest, ReloadConfigResponse,
        WatchConfigRequest, state_service_server::StateService,
    },
    state::{Configuration, checkpoint::Checkpoints, restore::Restores, session::Sessions},
    tenant::{Tenants, page},
};

/// What stays of a server while it runs.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The store's backend.
    pub backend: &'static str,
    /// Whether reflection is served.
    pub reflection: bool,
    /// When it started.
    pub start_time: SystemTime,
}

/// The service, as one core serves it.
#[derive(Clone)]
pub struct Api {
    about: About,
    configuration: Arc<Configuration>,
    checkpoints: Checkpoints,
    restores: Restores,
    health: Arc<Health>,
    pub(super) tenants: Tenants,
    sessions: Sessions,
}

impl Api {
    /// The service of a server with this configuration, over these checkpoints, tenants and
    /// their sessions.
    pub fn new(
        about: About,
        configuration: Arc<Configuration>,
        (checkpoints, restores): (Checkpoints, Restores),
        health: Arc<Health>,
        tenants: Tenants,
        sessions: Sessions,
    ) -> Self {
        Self {
            about,
            configuration,
            checkpoints,
            restores,
            health,
            tenants,
            sessions,
        }
    }

    /// What the server is and what it allows.
    fn server_info(&self, config: &Config) -> GetServerInfoResponse {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let limits = Limits {
            key_bytes: size(cache::MAX_KEY_BYTES),
            value_bytes: size(config.cache.max_value_bytes),
            batch_items: size(config.cache.max_batch_items),
            message_bytes: size(config.server.max_message_bytes),
            tags: size(config.cache.max_tags),
            tag_bytes: size(config.cache.max_tag_bytes),
            max_ttl: prost_types::Duration::try_from(config.cache.max_ttl).ok(),
            page_size: size(page::MAX_SIZE),
            tenants: config.tenant.max_tenants,
            in_flight: size(config.server.max_in_flight),
            streams_per_connection: i64::from(config.server.max_streams_per_connection),
            session_data_bytes: size(config.session.max_data_bytes),
            session_ttl: prost_types::Duration::try_from(config.session.max_ttl).ok(),
        };
        let feature = |name: &str, enabled| Feature {
            name: name.to_owned(),
            enabled,
        };
        GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("RIPTIDE_COMMIT").to_owned(),
            backend: self.about.backend.to_owned(),
            limits: Some(limits),
            features: vec![
                feature("compression", config.cache.compression.enabled),
                feature("encryption", config.encryption.master_keys.is_some()),
                feature("ephemeral", config.store.ephemeral),
                feature("near_cache", config.cache.near.enabled),
                feature("reflection", self.about.reflection),
            ],
            start_time: Some(self.about.start_time.into()),
        }
    }
}

type Answer<T> = std::result::Result<Response<T>, Status>;

#[tonic::async_trait]
impl StateService for Api {
    async fn get_config(
        &self,
        request: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        let (context, _) = Context::of(request)?;
        context.answer(Ok(self.config()))
    }

    async fn get_server_info(
        &self,
        request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        let (context, _) = Context::of(request)?;
        let config = self.configuration.config();
        context.answer(Ok(self.server_info(&config)))
    }

    async fn reload_config(
        &self,
        request: Request<ReloadConfigRequest>,
    ) -> Result<Response<ReloadConfigResponse>, Status> {
        let (context, request) = Context::of(request)?;
        context.answer(self.reload(&request).await)
    }

    type WatchConfigStream = Configurations;

    async fn watch_config(
        &self,
        request: Request<WatchConfigRequest>,
    ) -> Result<Response<Self::WatchConfigStream>, Status> {
        let headers = request.metadata().clone().into_headers();
        let (context, _) = Context::of(request)?;
        let watch = self.watch(&context, &headers);
        context.answer(watch)
    }

    type CreateCheckpointStream = Taking;

    async fn create_checkpoint(
        &self,
        request: Request<v1::CreateCheckpointRequest>,
    ) -> Result<Response<Self::CreateCheckpointStream>, Status> {
        let (context, request) = Context::of(request)?;
        let taking = self.take_checkpoint(&context, request).await;
        context.answer(taking)
    }

    async fn list_checkpoints(
        &self,
        request: Request<v1::ListCheckpointsRequest>,
    ) -> Result<Response<v1::ListCheckpointsResponse>, Status> {
        let (context, request) = Context::of(request)?;
        context.answer(self.checkpoints_page(request).await)
    }

    async fn get_checkpoint(
        &self,
        request: Request<v1::GetCheckpointRequest>,
    ) -> Result<Response<v1::GetCheckpointResponse>, Status> {
        let (context, request) = Context::of(request)?;
        context.answer(self.checkpoint(&request.checkpoint_id).await)
    }

    async fn delete_checkpoint(
        &self,
        request: Request<v1::DeleteCheckpointRequest>,
    ) -> Result<Response<v1::DeleteCheckpointResponse>, Status> {
        let (context, request) = Context::of(request)?;
        context.answer(self.remove_checkpoint(request).await)
    }

    async fn verify_checkpoint(
        &self,
        request: Request<v1::VerifyCheckpointRequest>,
    ) -> Result<Response<v1::VerifyCheckpointResponse>, Status> {
        let (context, request) = Context::of(request)?;
        context.answer(self.verified(&request.checkpoint_id).await)
    }

    async fn rewrap_checkpoint_keys(
        &self,
        request: Request<v1::RewrapCheckpointKeysRequest>,
    ) -> Answer<v1::RewrapCheckpointKeysResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.rewrap_keys(request).await)
    }

    type RestoreCheckpointStream = Restoring;

    async fn restore_checkpoint(
        &self,
        request: Request<v1::RestoreCheckpointRequest>,
    ) -> Result<Response<Self::RestoreCheckpointStream>, Status> {
        let (context, request) = Context::of(request)?;
        let restoring = self.restore(&context, request).await;
        context.answer(restoring)
    }

    type DownloadCheckpointStream = Pieces;

    async fn download_checkpoint(
        &self,
        request: Request<v1::DownloadCheckpointRequest>,
    ) -> Result<Response<Self::DownloadCheckpointStream>, Status> {
        let (context, request) = Context::of(request)?;
        let pieces = self.download(&context, &request.checkpoint_id).await;
        context.answer(pieces)
    }

    async fn upload_checkpoint(
        &self,
        request: Request<tonic::Streaming<v1::UploadCheckpointRequest>>,
    ) -> Result<Response<v1::UploadCheckpointResponse>, Status> {
        let (context, messages) = Context::of(request)?;
        let uploaded = self.upload(messages).await?;
        context.answer(uploaded)
    }

    async fn create_session(
        &self,
        request: Request<v1::CreateSessionRequest>,
    ) -> Answer<v1::CreateSessionResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.create(&context, request).await)
    }

    async fn get_session(
        &self,
        request: Request<v1::GetSessionRequest>,
    ) -> Answer<v1::GetSessionResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.get(&context, &request).await)
    }

    async fn update_session(
        &self,
        request: Request<v1::UpdateSessionRequest>,
    ) -> Answer<v1::UpdateSessionResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.update(&context, request).await)
    }

    async fn touch_session(
        &self,
        request: Request<v1::TouchSessionRequest>,
    ) -> Answer<v1::TouchSessionResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.touch(&context, &request).await)
    }

    async fn terminate_session(
        &self,
        request: Request<v1::TerminateSessionRequest>,
    ) -> Answer<v1::TerminateSessionResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.terminate(&context, &request).await)
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Answer<v1::ListSessionsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.list(&context, &request).await)
    }

    async fn terminate_sessions(
        &self,
        request: Request<v1::TerminateSessionsRequest>,
    ) -> Answer<v1::TerminateSessionsResponse> {
        let (context, request) = Context::of(request)?;
        context.answer(self.terminate_all(&context, &request).await)
    }
}
