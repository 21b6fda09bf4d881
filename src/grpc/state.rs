//! StateService: what this server is, what it allows, and how it is set up. It
//! does not know how it came to be so.

use std::{sync::Arc, time::SystemTime};

use tonic::{Request, Response, Status};

use crate::{
    cache,
    config::{Config, Setting},
    proto::v1::{
        ConfigValue, Feature, GetConfigRequest, GetConfigResponse, GetServerInfoRequest,
        GetServerInfoResponse, Limits, state_service_server::StateService,
    },
    tenant::page,
};

/// What StateService tells.
#[derive(Debug)]
pub struct Info {
    server: GetServerInfoResponse,
    config: GetConfigResponse,
}

impl Info {
    /// What there is to tell of a server with this configuration.
    pub fn new(config: &Config, settings: &[Setting], backend: &str, reflection: bool) -> Self {
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        let now = prost_types::Timestamp::from(SystemTime::now());
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
        };
        let feature = |name: &str, enabled| Feature {
            name: name.to_owned(),
            enabled,
        };
        let server = GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("RIPTIDE_COMMIT").to_owned(),
            backend: backend.to_owned(),
            limits: Some(limits),
            features: vec![
                feature("compression", config.cache.compression.enabled),
                feature("encryption", config.encryption.master_keys.is_some()),
                feature("ephemeral", config.store.ephemeral),
                feature("near_cache", config.cache.near.enabled),
                feature("reflection", reflection),
            ],
            start_time: Some(now),
        };
        let value = |setting: &Setting| ConfigValue {
            path: setting.path.clone(),
            value: setting.value.clone(),
            source: setting.source.to_string(),
        };
        let values = settings.iter().map(value).collect();
        let config = GetConfigResponse {
            values,
            version: 1,
            load_time: Some(now),
        };
        Self { server, config }
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Api(pub Arc<Info>);

#[tonic::async_trait]
impl StateService for Api {
    async fn get_config(
        &self,
        _: Request<GetConfigRequest>,
    ) -> Result<Response<GetConfigResponse>, Status> {
        Ok(Response::new(self.0.config.clone()))
    }

    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Ok(Response::new(self.0.server.clone()))
    }
}
