//! `tenant`: the lifecycle of tenants. It knows no rule of it; the server does.

mod billing;
mod fields;
mod usage;

use std::collections::HashMap;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

pub(super) use self::fields::label;
use self::{
    billing::Billing,
    fields::{Create, Update},
    usage::Usage,
};
use super::{
    client::{Client, Global},
    failure::Failure,
    json,
    output::{self, show},
};
use crate::proto::v1::{
    DeleteTenantRequest, GetTenantRequest, ListTenantsRequest, PurgeTenantRequest,
    ResumeTenantRequest, RotateDataKeyRequest, SuspendTenantRequest, SuspensionMode, TenantState,
    UndeleteTenantRequest,
};

/// The largest page a server gives.
pub(super) const PAGE: i32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a tenant and its first API key, whose secret is shown this once.
    Create(Create),
    /// List tenants.
    List(List),
    /// Show a tenant.
    Get(Target),
    /// Change a tenant: what is not named stays as it is.
    Update(Update),
    /// Suspend a tenant, on every replica within a second.
    Suspend(Suspend),
    /// Put a suspended tenant back in service.
    Resume(Changed),
    /// Delete a tenant; it can be undeleted for the grace, 7 days by default.
    Delete(Delete),
    /// Bring a deleted tenant back with all it had.
    Undelete(Changed),
    /// Remove a deleted tenant for good: its entries, its keys, itself. With
    /// --validate-only, tell what would be removed.
    Purge(Changed),
    /// Give an encrypted tenant a new data key; what was written stays readable.
    RotateDataKey(Changed),
    /// Show what a tenant holds and did, what it may, and a plot over time.
    Usage(Usage),
    /// Show what a tenant owes for a month.
    Billing(Billing),
}

#[derive(Args, Debug)]
pub(super) struct Target {
    /// The tenant [default: --tenant].
    #[arg(value_name = "TENANT")]
    id: Option<String>,
}

impl Target {
    fn id(&self, global: &Global) -> String {
        self.id.clone().unwrap_or_else(|| global.tenant_id())
    }
}

/// What every change of one tenant can say.
#[derive(Args, Debug)]
pub(super) struct Changed {
    #[command(flatten)]
    target: Target,
    /// Only if the tenant has not changed since it had this etag.
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
    #[command(flatten)]
    write: Write,
}

/// What every change can say.
#[derive(Args, Debug)]
pub(super) struct Write {
    /// A UUID that makes a retry safe: the same one gets the first answer.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    pub(super) request_id: String,
    /// Check everything and write nothing.
    #[arg(long)]
    pub(super) validate_only: bool,
}

#[derive(Args, Debug)]
pub(super) struct List {
    /// Only tenants whose id begins so.
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Only tenants on this plan.
    #[arg(long, default_value = "", hide_default_value = true)]
    plan: String,
    /// Only tenants in this state; can be given many times.
    #[arg(long = "state", value_enum)]
    states: Vec<State>,
    /// Only tenants that bear this label; can be given many times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Deleted tenants too.
    #[arg(long)]
    show_deleted: bool,
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
}

#[derive(Args, Debug)]
pub(super) struct Suspend {
    #[command(flatten)]
    changed: Changed,
    /// What still works: reads, or nothing.
    #[arg(long, value_enum, default_value = "blocked")]
    mode: Mode,
    /// A reason for people.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

#[derive(Args, Debug)]
pub(super) struct Delete {
    #[command(flatten)]
    changed: Changed,
    /// It is no failure when there is no such tenant.
    #[arg(long)]
    allow_missing: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    ReadOnly,
    Blocked,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    Active,
    Suspended,
    Deleted,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect(global).await?;
        let mut tenants = client.tenants();
        let tenant = match self {
            Self::Create(create) => return self::create(create, global, &client).await,
            Self::List(list) => return list.run(global, &client).await,
            Self::Purge(changed) => return purge(changed, global, &client).await,
            Self::RotateDataKey(changed) => {
                return rotate_data_key(changed, global, &client).await;
            }
            Self::Usage(usage) => return usage.run(global, &client).await,
            Self::Billing(billing) => return billing.run(global, &client).await,
            Self::Get(target) => {
                let request = GetTenantRequest {
                    tenant_id: target.id(global),
                };
                tenants
                    .get_tenant(client.request(request))
                    .await?
                    .into_inner()
                    .tenant
            }
            Self::Update(update) => {
                let request = client.request(update.message(global)?);
                tenants.update_tenant(request).await?.into_inner().tenant
            }
            Self::Suspend(Suspend {
                changed,
                mode,
                reason,
            }) => {
                let mode = match mode {
                    Mode::ReadOnly => SuspensionMode::ReadOnly,
                    Mode::Blocked => SuspensionMode::Blocked,
                };
                let request = SuspendTenantRequest {
                    tenant_id: changed.target.id(global),
                    mode: mode.into(),
                    reason,
                    etag: changed.etag,
                    request_id: changed.write.request_id,
                    validate_only: changed.write.validate_only,
                };
                tenants
                    .suspend_tenant(client.request(request))
                    .await?
                    .into_inner()
                    .tenant
            }
            Self::Resume(changed) => {
                let request = ResumeTenantRequest {
                    tenant_id: changed.target.id(global),
                    etag: changed.etag,
                    request_id: changed.write.request_id,
                    validate_only: changed.write.validate_only,
                };
                tenants
                    .resume_tenant(client.request(request))
                    .await?
                    .into_inner()
                    .tenant
            }
            Self::Delete(Delete {
                changed,
                allow_missing,
            }) => {
                let request = DeleteTenantRequest {
                    tenant_id: changed.target.id(global),
                    etag: changed.etag,
                    allow_missing,
                    request_id: changed.write.request_id,
                    validate_only: changed.write.validate_only,
                };
                tenants
                    .delete_tenant(client.request(request))
                    .await?
                    .into_inner()
                    .tenant
            }
            Self::Undelete(changed) => {
                let request = UndeleteTenantRequest {
                    tenant_id: changed.target.id(global),
                    etag: changed.etag,
                    request_id: changed.write.request_id,
                    validate_only: changed.write.validate_only,
                };
                tenants
                    .undelete_tenant(client.request(request))
                    .await?
                    .into_inner()
                    .tenant
            }
        };
        let tenant = tenant.as_ref().map(json::tenant);
        let none = || "there is no such tenant".to_owned();
        show(global.output, &json!({ "tenant": tenant }), || {
            tenant.as_ref().map_or_else(none, output::record)
        })
    }
}

async fn create(create: Create, global: &Global, client: &Client) -> Result<(), Failure> {
    let request = client.request(create.message(global));
    let created = client.tenants().create_tenant(request).await?.into_inner();
    let tenant = created.tenant.as_ref().map(json::tenant);
    let api_key = created.api_key.as_ref().map(json::api_key);
    let result = json!({ "tenant": tenant, "api_key": api_key, "secret": created.secret });
    show(global.output, &result, || {
        let tenant = tenant.as_ref().map(output::record).unwrap_or_default();
        format!("{tenant}{}", secret(&created.secret))
    })
}

/// A secret, and that it will not be seen again.
pub(super) fn secret(secret: &str) -> String {
    match secret.is_empty() {
        true => String::new(),
        false => format!("\n\nAPI key (shown this once): {secret}"),
    }
}

impl List {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let states = self.states.iter().map(|state| match state {
            State::Active => TenantState::Active.into(),
            State::Suspended => TenantState::Suspended.into(),
            State::Deleted => TenantState::Deleted.into(),
        });
        let mut request = ListTenantsRequest {
            page_size: PAGE,
            page_token: String::new(),
            states: states.collect(),
            plan: self.plan,
            labels: self.labels.into_iter().collect::<HashMap<_, _>>(),
            name_prefix: self.prefix,
            show_deleted: self.show_deleted,
        };
        let mut found = Vec::new();
        loop {
            let page = client
                .tenants()
                .list_tenants(client.request(request.clone()))
                .await?;
            let page = page.into_inner();
            found.extend(page.tenants.iter().map(json::tenant));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || found.len() > self.limit {
                break;
            }
        }
        let more = found.len() > self.limit || !request.page_token.is_empty();
        found.truncate(self.limit);
        let result = json!({ "tenants": found, "more": more });
        show(global.output, &result, || {
            let fields = ["tenant_id", "display_name", "plan", "state", "create_time"];
            output::list(&found, &fields) + output::more(more)
        })
    }
}

async fn purge(changed: Changed, global: &Global, client: &Client) -> Result<(), Failure> {
    let request = PurgeTenantRequest {
        tenant_id: changed.target.id(global),
        etag: changed.etag,
        request_id: changed.write.request_id,
        validate_only: changed.write.validate_only,
    };
    let purged = client
        .tenants()
        .purge_tenant(client.request(request))
        .await?
        .into_inner();
    let report = purged.report.as_ref().map(json::report).unwrap_or_default();
    show(global.output, &json!({ "report": report }), || {
        output::record(&report)
    })
}

async fn rotate_data_key(
    changed: Changed,
    global: &Global,
    client: &Client,
) -> Result<(), Failure> {
    let request = RotateDataKeyRequest {
        tenant_id: changed.target.id(global),
        etag: changed.etag,
        request_id: changed.write.request_id,
        validate_only: changed.write.validate_only,
    };
    let rotated = client
        .tenants()
        .rotate_data_key(client.request(request))
        .await?
        .into_inner();
    let key = rotated.data_key.as_ref().map(json::data_key);
    let tenant = rotated.tenant.as_ref().map(json::tenant);
    let result = json!({ "data_key": key, "data_keys": rotated.data_keys, "tenant": tenant });
    show(global.output, &result, || {
        let key = key.as_ref().map(output::record).unwrap_or_default();
        format!("{key}\n\nThe tenant has {} data keys.", rotated.data_keys)
    })
}
