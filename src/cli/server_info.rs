//! `whoami` and `info`: what the server thinks of the caller and of itself. It
//! does not know what either means.

use serde_json::{Map, json};

use super::{
    client::{Client, Global},
    failure::Failure,
    json,
    output::{self, show},
};
use crate::proto::v1::{GetServerInfoRequest, Limits, WhoAmIRequest};

pub(super) async fn whoami(global: &Global) -> Result<(), Failure> {
    let client = Client::connect(global).await?;
    let answer = client
        .tenants()
        .who_am_i(client.request(WhoAmIRequest {}))
        .await?
        .into_inner();
    let result = json!({
        "tenant_id": answer.tenant_id,
        "admin": answer.admin,
        "key_id": answer.key_id,
        "scopes": answer.scopes,
    });
    show(global.output, &result, || output::record(&result))
}

pub(super) async fn info(global: &Global) -> Result<(), Failure> {
    let client = Client::connect(global).await?;
    let request = client.request(GetServerInfoRequest {});
    let info = client.states().get_server_info(request).await?.into_inner();
    let features = info
        .features
        .iter()
        .map(|feature| (feature.name.clone(), feature.enabled.into()));
    let result = json!({
        "version": info.version,
        "commit": info.commit,
        "backend": info.backend,
        "start_time": json::time(info.start_time),
        "limits": info.limits.as_ref().map(limits),
        "features": features.collect::<Map<_, _>>(),
    });
    show(global.output, &result, || output::record(&result))
}

fn limits(limits: &Limits) -> serde_json::Value {
    json!({
        "key_bytes": limits.key_bytes,
        "value_bytes": limits.value_bytes,
        "batch_items": limits.batch_items,
        "message_bytes": limits.message_bytes,
        "tags": limits.tags,
        "tag_bytes": limits.tag_bytes,
        "max_ttl": limits.max_ttl.as_ref().map(ToString::to_string),
        "page_size": limits.page_size,
        "tenants": limits.tenants,
        "in_flight": limits.in_flight,
        "streams_per_connection": limits.streams_per_connection,
        "session_data_bytes": limits.session_data_bytes,
        "session_ttl": limits.session_ttl.as_ref().map(ToString::to_string),
    })
}
