//! `cache`: the entries of a tenant. It knows nothing of how they are kept.

mod invalidation;
mod stats;
mod warm;
mod watch;

use std::{
    fs,
    io::{self, IsTerminal, Read},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    client::{self, Client, Global},
    failure::{Exit, Failure},
    json,
    output::{self, Format, show},
    tenant::PAGE,
};
use crate::proto::v1::{
    DeleteRequest, GetRequest, ListKeysRequest, SetCondition, SetRequest,
    invalidate_cache_request::Target,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the value of an entry to standard output, as it is; with
    /// `--output json` all about it.
    Get {
        /// The entry's key.
        key: String,
    },
    /// Set an entry.
    Set(Set),
    /// Delete an entry.
    Delete {
        /// The entry's key.
        key: String,
        /// Only if it has this version.
        #[arg(
            long,
            value_name = "VERSION",
            default_value_t = 0,
            hide_default_value = true
        )]
        if_version: i64,
    },
    /// List the keys of a namespace.
    List {
        /// Only keys that begin so.
        #[arg(default_value = "", hide_default_value = true)]
        prefix: String,
        /// At most so many.
        #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
        limit: usize,
    },
    /// Show what the tenant's cache, or one namespace of it, holds and did.
    Stats(stats::Stats),
    /// Store entries and pull keys near, from a file of lines.
    #[command(after_help = warm::HELP)]
    Warm(warm::Warm),
    /// Make entries disappear at once: of these keys, with a prefix or with tags, or
    /// all of a namespace or of the tenant.
    Invalidate(invalidation::Invalidate),
    /// Make all entries of a namespace, or of the tenant, disappear at once.
    Flush {
        /// All namespaces of the tenant; needs --yes.
        #[arg(long)]
        whole_tenant: bool,
        /// Yes, it is meant so.
        #[arg(long)]
        yes: bool,
    },
    /// Print what changes as it happens, a line each, until interrupted: keys that
    /// are set, removed or invalidated, prefixes, tags, namespaces, the tenant.
    /// Without --namespace, of all namespaces.
    Watch(watch::Watch),
}

#[derive(Args, Debug)]
pub(super) struct Set {
    /// The entry's key.
    key: String,
    /// The value; `-` reads standard input.
    #[arg(
        required_unless_present = "file",
        conflicts_with = "file",
        allow_negative_numbers = true
    )]
    value: Option<String>,
    /// A file that holds the value.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long it lives, such as 500ms, 30s or 7d [default: the plan's].
    #[arg(long, value_name = "TIME", value_parser = client::duration)]
    ttl: Option<Duration>,
    /// A tag; can be given many times.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// The value's media type.
    #[arg(
        long,
        value_name = "TYPE",
        default_value = "",
        hide_default_value = true
    )]
    content_type: String,
    /// Only if there is no such entry.
    #[arg(long, conflicts_with = "if_present")]
    if_absent: bool,
    /// Only if there is such an entry.
    #[arg(long)]
    if_present: bool,
    /// Only if it has this version.
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 0,
        hide_default_value = true
    )]
    if_version: i64,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let confirmed = match &self {
            Self::Flush { whole_tenant, yes } => {
                invalidation::confirm("--whole-tenant", *whole_tenant, *yes)
            }
            Self::Invalidate(invalidate) => invalidate.confirm(),
            _ => Ok(()),
        };
        confirmed?;
        if let Self::Watch(watch) = self {
            return watch.run(global).await;
        }
        // The value first: there is no call where it cannot be read.
        let value = match &self {
            Self::Set(set) => set.read()?,
            _ => Vec::new(),
        };
        let client = Client::connect(global).await?;
        match self {
            Self::Get { key } => get(global, &client, key).await,
            Self::Set(set) => set.run(global, &client, value).await,
            Self::Watch(watch) => watch.run(global).await,
            Self::Delete { key, if_version } => {
                let request = DeleteRequest {
                    tenant_id: global.tenant_id(),
                    namespace: global.namespace(),
                    key,
                    if_version,
                };
                let deleted = client
                    .caches()
                    .delete(client.request(request))
                    .await?
                    .into_inner();
                let deleted = deleted.deleted;
                show(global.output, &json!({ "deleted": deleted }), || {
                    if deleted {
                        "deleted"
                    } else {
                        "there was no such entry"
                    }
                    .to_owned()
                })
            }
            Self::Stats(stats) => stats.run(global, &client).await,
            Self::List { prefix, limit } => list(global, &client, prefix, limit).await,
            Self::Warm(warm) => warm.run(global, &client).await,
            Self::Invalidate(invalidate) => invalidate.run(global, &client).await,
            Self::Flush { whole_tenant, .. } => {
                let target = match whole_tenant {
                    true => Target::WholeTenant(true),
                    false => Target::WholeNamespace(true),
                };
                invalidation::invalidate(global, &client, target, "flushed").await
            }
        }
    }
}

async fn get(global: &Global, client: &Client, key: String) -> Result<(), Failure> {
    let request = GetRequest {
        tenant_id: global.tenant_id(),
        namespace: global.namespace(),
        key,
        ..GetRequest::default()
    };
    let entry = client
        .caches()
        .get(client.request(request))
        .await?
        .into_inner()
        .entry;
    match (global.output, &entry) {
        (Format::Table, Some(entry)) => {
            output::write(&entry.value)?;
            // For eyes alone: a pipe gets the bytes as they are.
            let line = io::stdout().is_terminal() && !entry.value.ends_with(b"\n");
            if line { output::write(b"\n") } else { Ok(()) }
        }
        (Format::Table, None) => Err(Failure::new(
            Exit::NotFound,
            "there is no such entry (MISS)",
        )),
        (Format::Json, entry) => {
            let found = entry.as_ref().map(json::entry);
            show(global.output, &json!({ "entry": found }), String::new)?;
            entry
                .as_ref()
                .map(|_| ())
                .ok_or_else(|| Failure::told(Exit::NotFound))
        }
    }
}

async fn list(
    global: &Global,
    client: &Client,
    prefix: String,
    limit: usize,
) -> Result<(), Failure> {
    let mut request = ListKeysRequest {
        tenant_id: global.tenant_id(),
        namespace: global.namespace(),
        prefix,
        page_size: PAGE,
        page_token: String::new(),
    };
    let mut found = Vec::new();
    loop {
        let page = client
            .caches()
            .list_keys(client.request(request.clone()))
            .await?
            .into_inner();
        found.extend(page.keys.iter().map(json::key_info));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || found.len() > limit {
            break;
        }
    }
    let more = found.len() > limit || !request.page_token.is_empty();
    found.truncate(limit);
    let result = json!({ "keys": found, "more": more });
    show(global.output, &result, || {
        output::list(&found, &["key", "size_bytes", "expire_time"]) + output::more(more)
    })
}

impl Set {
    fn read(&self) -> Result<Vec<u8>, Failure> {
        let failed = |what: &str, error: io::Error| {
            Failure::new(Exit::Failed, format!("cannot read {what}: {error}"))
        };
        match (&self.file, self.value.as_deref()) {
            (Some(file), _) => {
                fs::read(file).map_err(|error| failed(&file.display().to_string(), error))
            }
            (None, Some("-")) => {
                let mut value = Vec::new();
                let read = io::stdin().lock().read_to_end(&mut value);
                read.map_err(|error| failed("standard input", error))
                    .map(|_| value)
            }
            (None, value) => Ok(value.unwrap_or_default().as_bytes().to_vec()),
        }
    }

    async fn run(self, global: &Global, client: &Client, value: Vec<u8>) -> Result<(), Failure> {
        let condition = match (self.if_absent, self.if_present) {
            (true, _) => SetCondition::IfAbsent,
            (_, true) => SetCondition::IfPresent,
            _ => SetCondition::None,
        };
        let ttl = self.ttl.map(TryInto::try_into).transpose();
        let request = SetRequest {
            tenant_id: global.tenant_id(),
            namespace: global.namespace(),
            key: self.key,
            value: value.into(),
            ttl: ttl.map_err(|_| Failure::usage("--ttl: too long"))?,
            content_type: self.content_type,
            tags: self.tags,
            condition: condition.into(),
            if_version: self.if_version,
            lease_token: String::new(),
        };
        let set = client
            .caches()
            .set(client.request(request))
            .await?
            .into_inner();
        let result = json!({
            "version": set.version,
            "expire_time": json::time(set.expire_time),
            "stored_bytes": set.stored_bytes,
        });
        show(global.output, &result, || output::record(&result))
    }
}
