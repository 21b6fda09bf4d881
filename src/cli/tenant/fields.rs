//! The fields a person gives a tenant, at its creation and later. It does not
//! know which values are allowed.

use clap::Args;
use prost_types::{FieldMask, Struct};

use super::{Changed, Write};
use crate::{
    cli::{client::Global, failure::Failure, json, quota::setting},
    proto::v1::{CreateTenantRequest, Owner, Tenant, UpdateTenantRequest},
};

/// The fields a person gives a tenant.
#[derive(Args, Debug)]
struct Fields {
    /// A name for people.
    #[arg(long, value_name = "TEXT")]
    display_name: Option<String>,
    /// The plan, such as free, basic, professional, enterprise.
    #[arg(long)]
    plan: Option<String>,
    /// A label; can be given many times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// The owner's id at the platform.
    #[arg(long, value_name = "TEXT")]
    owner_id: Option<String>,
    /// The owner's name.
    #[arg(long, value_name = "TEXT")]
    owner_name: Option<String>,
    /// The owner's e-mail address.
    #[arg(long, value_name = "TEXT")]
    owner_email: Option<String>,
    /// The owner's organisation.
    #[arg(long, value_name = "TEXT")]
    owner_organization: Option<String>,
    /// Settings of the platform's own, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = json::object)]
    settings: Option<Struct>,
    /// A limit of the tenant's own, such as memory_bytes=1GiB, cache_entries=-1
    /// (unlimited), active_sessions=default (back to the plan's), or of a metric
    /// of the platform's own, such as pages_rendered=1000/1h; many times.
    #[arg(long = "quota", value_name = "METRIC=LIMIT", value_parser = setting::limit)]
    limits: Vec<setting::Limit>,
    /// What happens at a limit, such as cache_entries=warn; many times.
    #[arg(long = "quota-mode", value_name = "METRIC=MODE", value_parser = setting::mode)]
    modes: Vec<setting::Mode>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Create {
    /// The tenant's id, ^[a-z][a-z0-9-]{2,62}$ [default: --tenant, else generated].
    #[arg(value_name = "TENANT")]
    id: Option<String>,
    #[command(flatten)]
    fields: Fields,
    /// Encrypt its values in the store, for good; the server needs a master key.
    #[arg(long)]
    encrypt: bool,
    /// Refuse to delete the tenant.
    #[arg(long)]
    delete_protection: bool,
    #[command(flatten)]
    write: Write,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Update {
    #[command(flatten)]
    changed: Changed,
    #[command(flatten)]
    fields: Fields,
    /// A label that goes; can be given many times.
    #[arg(long = "remove-label", value_name = "KEY")]
    removed_labels: Vec<String>,
    /// Whether deleting the tenant is refused.
    #[arg(long, value_name = "BOOL")]
    delete_protection: Option<bool>,
}

pub(in crate::cli) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("expected <key>=<value>, such as env=prod")?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Create {
    pub(super) fn message(self, global: &Global) -> CreateTenantRequest {
        let Self {
            id,
            fields,
            encrypt,
            delete_protection,
            write,
        } = self;
        CreateTenantRequest {
            tenant_id: id.unwrap_or_else(|| global.tenant_id()),
            owner: fields.owner(),
            settings: fields.settings,
            quotas: setting::message(&fields.limits, &fields.modes),
            display_name: fields.display_name.unwrap_or_default(),
            plan: fields.plan.unwrap_or_default(),
            labels: fields.labels.into_iter().collect(),
            encryption_enabled: encrypt,
            delete_protection,
            request_id: write.request_id,
            validate_only: write.validate_only,
        }
    }
}

impl Update {
    /// The new values, and a mask of what is named.
    pub(super) fn message(self, global: &Global) -> Result<UpdateTenantRequest, Failure> {
        let Self {
            changed,
            fields,
            removed_labels,
            delete_protection,
        } = self;
        let mut paths = Vec::new();
        let mut named = |given: bool, path: &str| {
            if given {
                paths.push(path.to_owned());
            }
        };
        named(fields.display_name.is_some(), "display_name");
        named(fields.plan.is_some(), "plan");
        named(fields.owner_id.is_some(), "owner.id");
        named(fields.owner_name.is_some(), "owner.name");
        named(fields.owner_email.is_some(), "owner.email");
        named(fields.owner_organization.is_some(), "owner.organization");
        named(fields.settings.is_some(), "settings");
        named(delete_protection.is_some(), "delete_protection");
        paths.extend(fields.labels.iter().map(|(key, _)| format!("labels.{key}")));
        paths.extend(removed_labels.iter().map(|key| format!("labels.{key}")));
        paths.extend(setting::paths(&fields.limits, &fields.modes));
        if paths.is_empty() {
            return Err(Failure::usage("nothing to change is named; see --help"));
        }
        let tenant = Tenant {
            tenant_id: changed.target.id(global),
            owner: fields.owner(),
            settings: fields.settings,
            quotas: setting::message(&fields.limits, &fields.modes),
            display_name: fields.display_name.unwrap_or_default(),
            plan: fields.plan.unwrap_or_default(),
            labels: fields.labels.into_iter().collect(),
            delete_protection: delete_protection.unwrap_or_default(),
            etag: changed.etag,
            ..Tenant::default()
        };
        Ok(UpdateTenantRequest {
            tenant: Some(tenant),
            update_mask: Some(FieldMask { paths }),
            request_id: changed.write.request_id,
            validate_only: changed.write.validate_only,
        })
    }
}

impl Fields {
    fn owner(&self) -> Option<Owner> {
        let fields = [
            &self.owner_id,
            &self.owner_name,
            &self.owner_email,
            &self.owner_organization,
        ];
        if fields.iter().all(|field| field.is_none()) {
            return None;
        }
        let [id, name, email, organization] = fields.map(|field| field.clone().unwrap_or_default());
        Some(Owner {
            id,
            name,
            email,
            organization,
        })
    }
}
