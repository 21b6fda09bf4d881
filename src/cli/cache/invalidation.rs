//! `cache invalidate`, and what `cache flush` has in common with it. It does not know
//! how many entries a prefix, a tag or a namespace has.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        client::{Client, Global},
        failure::Failure,
        output::show,
    },
    proto::v1::{InvalidateCacheRequest, Keys, Tags, invalidate_cache_request::Target},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct Invalidate {
    #[command(flatten)]
    named: Named,
    /// Yes, it is meant so.
    #[arg(long)]
    yes: bool,
}

/// What is invalidated: one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Named {
    /// The keys of entries.
    #[arg(value_name = "KEY")]
    keys: Vec<String>,
    /// Every key of the namespace that begins so.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Every entry of the namespace with this tag; can be given many times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The whole namespace.
    #[arg(long)]
    namespace_all: bool,
    /// All namespaces of the tenant; needs --yes.
    #[arg(long)]
    tenant_all: bool,
}

impl Invalidate {
    pub(super) fn confirm(&self) -> Result<(), Failure> {
        confirm("--tenant-all", self.named.tenant_all, self.yes)
    }

    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let target = match self.named {
            Named {
                prefix: Some(prefix),
                ..
            } => Target::Prefix(prefix),
            Named {
                tenant_all: true, ..
            } => Target::WholeTenant(true),
            Named {
                namespace_all: true,
                ..
            } => Target::WholeNamespace(true),
            Named { tags, keys, .. } if keys.is_empty() => Target::Tags(Tags { tags }),
            Named { keys, .. } => Target::Keys(Keys { keys }),
        };
        invalidate(global, client, target, "invalidated").await
    }
}

/// Refuses what would empty a tenant, unless it is meant so.
pub(super) fn confirm(flag: &str, whole_tenant: bool, yes: bool) -> Result<(), Failure> {
    if whole_tenant && !yes {
        let message = format!("{flag} makes every entry of the tenant disappear; add --yes");
        return Err(Failure::usage(message));
    }
    Ok(())
}

/// Makes entries disappear, and tells of it in this word; how many, where that is
/// known.
pub(super) async fn invalidate(
    global: &Global,
    client: &Client,
    target: Target,
    done: &str,
) -> Result<(), Failure> {
    let counted = matches!(target, Target::Keys(_) | Target::WholeTenant(_));
    let request = InvalidateCacheRequest {
        tenant_id: global.tenant_id(),
        namespace: global.namespace(),
        target: Some(target),
    };
    let answer = client
        .caches()
        .invalidate_cache(client.request(request))
        .await?
        .into_inner();
    let result = json!({
        "invalidated": answer.invalidated,
        "generation": answer.generation,
    });
    show(global.output, &result, || {
        if counted {
            format!("{done}: {} entries", answer.invalidated)
        } else {
            done.to_owned()
        }
    })
}
