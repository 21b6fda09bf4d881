//! TenantService over a real socket, on both backends. It does not know how the
//! answers come about.

mod billing;
mod keys;
mod life;
mod listing;
pub mod quota;
mod replicas;
mod usage;

use riptide_persistence::proto::v1::{
    CreateTenantRequest, GetTenantRequest, SetRequest, SuspendTenantRequest, SuspensionMode,
    Tenant, UpdateTenantRequest,
};
use tonic::{Code, Status};

use crate::server::{Clients, reason};

pub const REQUEST: &str = "0190a1b2-0000-7000-8000-0000000000ff";

pub fn named(tenant_id: &str) -> CreateTenantRequest {
    CreateTenantRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    }
}

pub fn rename(tenant_id: &str, name: &str) -> UpdateTenantRequest {
    UpdateTenantRequest {
        tenant: Some(Tenant {
            tenant_id: tenant_id.into(),
            display_name: name.into(),
            ..Default::default()
        }),
        update_mask: mask(&["display_name"]),
        ..Default::default()
    }
}

pub fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask {
        paths: paths.iter().map(ToString::to_string).collect(),
    })
}

pub fn suspend(tenant_id: &str, mode: SuspensionMode) -> SuspendTenantRequest {
    SuspendTenantRequest {
        tenant_id: tenant_id.into(),
        mode: mode.into(),
        reason: "unpaid".into(),
        ..Default::default()
    }
}

pub async fn get(clients: &Clients, tenant_id: &str) -> Result<Tenant, Status> {
    let request = GetTenantRequest {
        tenant_id: tenant_id.into(),
    };
    Ok(clients
        .tenant
        .clone()
        .get_tenant(request)
        .await?
        .into_inner()
        .tenant
        .unwrap())
}

/// Stores an entry with the key of these clients.
pub async fn store(clients: &Clients, key: &str) -> Result<i64, Status> {
    let request = SetRequest {
        key: key.into(),
        value: "value".into(),
        ..Default::default()
    };
    Ok(clients
        .cache
        .clone()
        .set(request)
        .await?
        .into_inner()
        .version)
}

/// Asserts that a call was refused so.
pub fn assert_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    code: Code,
    why: &str,
) -> Status {
    let status = answer.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (code, why),
        "{status:?}"
    );
    status
}
