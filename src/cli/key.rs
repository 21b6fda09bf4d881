//! `key`: the API keys of a tenant, and the service's master keys. It never keeps a secret; it shows the one it
//! gets.

mod master;

use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    client::{self, Client, Global},
    failure::Failure,
    json,
    output::{self, show},
    tenant::{PAGE, Write, secret},
};
use crate::proto::v1::{
    ApiKey, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest, RotateApiKeyRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create an API key of --tenant; its secret is shown this once.
    Create(Create),
    /// List the API keys of --tenant, revoked ones included.
    List(List),
    /// Give an API key a new secret, which is shown this once.
    Rotate(Rotate),
    /// Revoke an API key, on every replica within a second.
    Revoke(Revoke),
    /// Make a master key, `id:base64`, for encryption.master_keys; asks no server.
    GenerateMaster(master::Generate),
    /// Wrap all tenants' data keys, and the keys of all checkpoints, by the first master
    /// key of the server's settings, and tell when the others can be removed.
    RotateMaster(master::Rotate),
}

#[derive(Args, Debug)]
pub(super) struct Create {
    /// A name for people.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    display_name: String,
    /// What it may do: cache.read, cache.write, cache.invalidate, session.read,
    /// session.write, usage.read, tenant.read; many, or comma-separated.
    #[arg(
        long = "scope",
        value_name = "SCOPE",
        value_delimiter = ',',
        default_value = "cache.read,cache.write,cache.invalidate"
    )]
    scopes: Vec<String>,
    /// Confine it to this namespace; can be given many times.
    #[arg(long = "only-namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Confine it to keys that begin so; can be given many times.
    #[arg(long = "only-prefix", value_name = "PREFIX")]
    key_prefixes: Vec<String>,
    /// It stops working after this time, such as 90d.
    #[arg(long, value_name = "TIME", value_parser = client::duration)]
    expires_in: Option<Duration>,
    #[command(flatten)]
    write: Write,
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
}

#[derive(Args, Debug)]
pub(super) struct Rotate {
    /// The key's id.
    key_id: String,
    /// How long the old secret lives on, up to 30d.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = client::duration)]
    overlap: Duration,
    #[command(flatten)]
    write: Write,
}

#[derive(Args, Debug)]
pub(super) struct Revoke {
    /// The key's id.
    key_id: String,
    #[command(flatten)]
    write: Write,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        if let Self::GenerateMaster(generate) = self {
            return generate.run(global);
        }
        let client = Client::connect(global).await?;
        let mut tenants = client.tenants();
        match self {
            Self::Create(create) => {
                let expire_time = create
                    .expires_in
                    .map(|span| SystemTime::now().checked_add(span));
                let expire_time = match expire_time {
                    Some(None) => return Err(Failure::usage("--expires-in: too far away")),
                    Some(Some(time)) => Some(time.into()),
                    None => None,
                };
                let request = CreateApiKeyRequest {
                    tenant_id: global.tenant_id(),
                    display_name: create.display_name,
                    scopes: create.scopes,
                    namespaces: create.namespaces,
                    key_prefixes: create.key_prefixes,
                    expire_time,
                    request_id: create.write.request_id,
                    validate_only: create.write.validate_only,
                };
                let made = tenants
                    .create_api_key(client.request(request))
                    .await?
                    .into_inner();
                tell(global, made.api_key.as_ref(), Some(&made.secret))
            }
            Self::List(list) => list.run(global, &client).await,
            Self::GenerateMaster(generate) => generate.run(global),
            Self::RotateMaster(rotate) => rotate.run(global, &client).await,
            Self::Rotate(rotate) => {
                let overlap = rotate.overlap.try_into();
                let overlap =
                    overlap.map_err(|_| Failure::usage("--overlap: up to 30d is allowed"))?;
                let request = RotateApiKeyRequest {
                    key_id: rotate.key_id,
                    overlap: Some(overlap),
                    request_id: rotate.write.request_id,
                    validate_only: rotate.write.validate_only,
                };
                let made = tenants
                    .rotate_api_key(client.request(request))
                    .await?
                    .into_inner();
                tell(global, made.api_key.as_ref(), Some(&made.secret))
            }
            Self::Revoke(Revoke { key_id, write }) => {
                let request = RevokeApiKeyRequest {
                    key_id,
                    validate_only: write.validate_only,
                    request_id: write.request_id,
                };
                let revoked = tenants
                    .revoke_api_key(client.request(request))
                    .await?
                    .into_inner();
                tell(global, revoked.api_key.as_ref(), None)
            }
        }
    }
}

fn tell(global: &Global, key: Option<&ApiKey>, new_secret: Option<&str>) -> Result<(), Failure> {
    let key = key.map(json::api_key).unwrap_or_default();
    let result = match new_secret {
        Some(secret) => json!({ "api_key": key, "secret": secret }),
        None => json!({ "api_key": key }),
    };
    show(global.output, &result, || {
        output::record(&key) + &secret(new_secret.unwrap_or_default())
    })
}

impl List {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut request = ListApiKeysRequest {
            tenant_id: global.tenant_id(),
            page_size: PAGE,
            page_token: String::new(),
        };
        let mut found = Vec::new();
        loop {
            let page = client
                .tenants()
                .list_api_keys(client.request(request.clone()))
                .await?;
            let page = page.into_inner();
            found.extend(page.api_keys.iter().map(json::api_key));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || found.len() > self.limit {
                break;
            }
        }
        let more = found.len() > self.limit || !request.page_token.is_empty();
        found.truncate(self.limit);
        let result = json!({ "api_keys": found, "more": more });
        show(global.output, &result, || {
            let fields = [
                "key_id",
                "display_name",
                "scopes",
                "last_used_time",
                "expire_time",
                "revoke_time",
            ];
            output::list(&found, &fields) + output::more(more)
        })
    }
}
