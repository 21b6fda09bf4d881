//! Clients of a server, as any other would call it, and what their errors say. It
//! does not know where the server runs.

use riptide_persistence::proto::v1::{
    cache_service_client::CacheServiceClient, state_service_client::StateServiceClient,
    tenant_service_client::TenantServiceClient,
};
use tonic::{
    IntoRequest, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

/// Bytes of the messages clients take.
const MESSAGE_BYTES: usize = 64 << 20;

/// A channel that sends a key with every call.
pub type Keyed = InterceptedService<Channel, Bearer>;

/// The clients of all services, with one key.
#[derive(Clone)]
pub struct Clients {
    pub tenant: TenantServiceClient<Keyed>,
    pub cache: CacheServiceClient<Keyed>,
    pub state: StateServiceClient<Keyed>,
    /// For calls without a generated client.
    pub keyed: Keyed,
}

impl Clients {
    pub fn new(channel: Channel, bearer: Bearer) -> Self {
        let keyed = InterceptedService::new(channel, bearer);
        Self {
            tenant: TenantServiceClient::new(keyed.clone())
                .max_decoding_message_size(MESSAGE_BYTES),
            cache: CacheServiceClient::new(keyed.clone()).max_decoding_message_size(MESSAGE_BYTES),
            state: StateServiceClient::new(keyed.clone()),
            keyed,
        }
    }
}

/// Sends `authorization: Bearer <key>`, or nothing.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    /// Nothing.
    pub fn none() -> Self {
        Self(None)
    }

    pub fn new(key: &str) -> Self {
        Self(Some(format!("Bearer {key}").parse().unwrap()))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// The reason of an error; every one has one, of our domain.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .unwrap_or_else(|| panic!("no ErrorInfo: {status:?}"));
    assert_eq!(info.domain, "persistence.riptide");
    assert!(
        details.request_info().is_some(),
        "no RequestInfo: {status:?}"
    );
    info.reason.clone()
}

/// The fields that a request was refused for.
pub fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let request = details
        .bad_request()
        .unwrap_or_else(|| panic!("no BadRequest: {status:?}"));
    request
        .field_violations
        .iter()
        .map(|violation| violation.field.clone())
        .collect()
}

/// Calls an RPC with an empty message, whatever it is.
pub async fn empty_call(keyed: Keyed, path: &str) -> Result<tonic::Response<()>, Status> {
    raw_call(keyed, path, ()).await
}

/// Calls an RPC with any message, and reads nothing of its answer.
pub async fn raw_call<M: prost::Message + 'static>(
    keyed: Keyed,
    path: &str,
    message: impl IntoRequest<M>,
) -> Result<tonic::Response<()>, Status> {
    let mut client = tonic::client::Grpc::new(keyed);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<M, ()>::default();
    client
        .unary(message.into_request(), path.parse().unwrap(), codec)
        .await
}
