//! The messages of tenants and API keys, to and from the domain. It does not
//! know which values are allowed, only which ones a message can hold that the
//! domain cannot.

use secrecy::{ExposeSecret, SecretString};

use crate::{
    error::Violations,
    grpc::convert::{duration, int64, json, span_ms, structure, timestamp, timestamp_ms},
    proto::v1,
    tenant::{
        ApiKey, Caller, Change, Filter, Issued, NewApiKey, NewTenant, Owner, Profile, PurgeReport,
        Quotas, State, Suspension, SuspensionMode, Tenant, Update,
        plan::{CustomQuota, Mode},
    },
};

/// How a change is asked for.
pub(super) fn change(etag: &str, request_id: &str, validate_only: bool) -> Change {
    Change {
        etag: etag.to_owned(),
        request_id: request_id.to_owned(),
        validate_only,
        violations: Violations::default(),
    }
}

pub(super) fn tenant(tenant: Tenant, effective: Quotas) -> v1::Tenant {
    let state = match tenant.state() {
        State::Active => v1::TenantState::Active,
        State::Suspended => v1::TenantState::Suspended,
        State::Deleted => v1::TenantState::Deleted,
    };
    v1::Tenant {
        tenant_id: tenant.tenant_id,
        display_name: tenant.display_name,
        plan: tenant.plan,
        state: state.into(),
        suspension: tenant.suspension.map(suspension),
        owner: Some(v1::Owner {
            id: tenant.owner.id,
            name: tenant.owner.name,
            email: tenant.owner.email,
            organization: tenant.owner.organization,
        }),
        labels: tenant.labels.into_iter().collect(),
        settings: Some(structure(&tenant.settings)),
        quotas: Some(quotas_message(tenant.quotas)),
        effective_quotas: Some(quotas_message(effective)),
        encryption_enabled: tenant.encryption.is_some(),
        delete_protection: tenant.delete_protection,
        create_time: Some(timestamp(tenant.create_ms)),
        update_time: Some(timestamp(tenant.update_ms)),
        delete_time: tenant.delete_ms.map(timestamp),
        purge_time: tenant.purge_ms.map(timestamp),
        etag: tenant.etag,
    }
}

fn suspension(suspension: Suspension) -> v1::Suspension {
    let mode = match suspension.mode {
        SuspensionMode::ReadOnly => v1::SuspensionMode::ReadOnly,
        SuspensionMode::Blocked => v1::SuspensionMode::Blocked,
    };
    v1::Suspension {
        mode: mode.into(),
        reason: suspension.reason,
        time: Some(timestamp(suspension.time_ms)),
    }
}

fn quotas_message(quotas: Quotas) -> v1::Quotas {
    let custom = |quota: CustomQuota| v1::CustomQuota {
        limit: quota.limit,
        window: quota.window_ms.map(duration),
    };
    v1::Quotas {
        memory_bytes: quotas.memory_bytes,
        cache_entries: quotas.cache_entries,
        storage_bytes: quotas.storage_bytes,
        operations_per_minute: quotas.operations_per_minute,
        data_transfer_bytes: quotas.data_transfer_bytes,
        active_sessions: quotas.active_sessions,
        custom: quotas
            .custom
            .into_iter()
            .map(|(metric, quota)| (metric, custom(quota)))
            .collect(),
        modes: quotas
            .modes
            .into_iter()
            .map(|(metric, set)| (metric, quota_mode(set).into()))
            .collect(),
    }
}

pub(super) fn quota_mode(mode: Mode) -> v1::QuotaMode {
    match mode {
        Mode::Enforce => v1::QuotaMode::Enforce,
        Mode::Warn => v1::QuotaMode::Warn,
        Mode::Shadow => v1::QuotaMode::Shadow,
    }
}

fn quotas(at: &str, quotas: v1::Quotas, violations: &mut Violations) -> Quotas {
    let mut custom = |metric: &str, quota: v1::CustomQuota| {
        let field = format!("{at}quotas.custom.{metric}.window");
        CustomQuota {
            limit: quota.limit,
            window_ms: quota
                .window
                .and_then(|span| span_ms(&field, &span, violations)),
        }
    };
    let custom = quotas
        .custom
        .into_iter()
        .map(|(metric, set)| (metric.clone(), custom(&metric, set)))
        .collect();
    let mut mode = |metric: &str, mode: i32| match v1::QuotaMode::try_from(mode) {
        Ok(v1::QuotaMode::Unspecified | v1::QuotaMode::Enforce) => Mode::Enforce,
        Ok(v1::QuotaMode::Warn) => Mode::Warn,
        Ok(v1::QuotaMode::Shadow) => Mode::Shadow,
        Err(_) => {
            violations.add(
                format!("{at}quotas.modes.{metric}"),
                "no such mode; there are ENFORCE, WARN and SHADOW",
            );
            Mode::Enforce
        }
    };
    let modes = quotas
        .modes
        .into_iter()
        .map(|(metric, set)| (metric.clone(), mode(&metric, set)))
        .collect();
    Quotas {
        memory_bytes: quotas.memory_bytes,
        cache_entries: quotas.cache_entries,
        storage_bytes: quotas.storage_bytes,
        operations_per_minute: quotas.operations_per_minute,
        data_transfer_bytes: quotas.data_transfer_bytes,
        active_sessions: quotas.active_sessions,
        custom,
        modes,
    }
}

fn owner(owner: v1::Owner) -> Owner {
    Owner {
        id: owner.id,
        name: owner.name,
        email: owner.email,
        organization: owner.organization,
    }
}

pub(super) fn new_tenant(
    request: v1::CreateTenantRequest,
    violations: &mut Violations,
) -> NewTenant {
    NewTenant {
        tenant_id: request.tenant_id,
        profile: Profile {
            display_name: request.display_name,
            plan: request.plan,
            owner: request.owner.map(owner),
            labels: request.labels.into_iter().collect(),
            settings: request
                .settings
                .map(|settings| json("settings", settings, violations)),
            quotas: request.quotas.map(|set| quotas("", set, violations)),
            encryption_enabled: request.encryption_enabled,
            delete_protection: request.delete_protection,
        },
    }
}

pub(super) fn update(
    tenant: v1::Tenant,
    update_mask: Option<prost_types::FieldMask>,
    violations: &mut Violations,
) -> Update {
    Update {
        tenant_id: tenant.tenant_id,
        profile: Profile {
            display_name: tenant.display_name,
            plan: tenant.plan,
            owner: tenant.owner.map(owner),
            labels: tenant.labels.into_iter().collect(),
            settings: tenant
                .settings
                .map(|settings| json("tenant.settings", settings, violations)),
            quotas: tenant.quotas.map(|set| quotas("tenant.", set, violations)),
            encryption_enabled: tenant.encryption_enabled,
            delete_protection: tenant.delete_protection,
        },
        update_mask: update_mask.unwrap_or_default().paths,
    }
}

pub(super) fn filter(request: v1::ListTenantsRequest, violations: &mut Violations) -> Filter {
    let mut state = |(at, state): (usize, i32)| match v1::TenantState::try_from(state) {
        Ok(v1::TenantState::Active) => Some(State::Active),
        Ok(v1::TenantState::Suspended) => Some(State::Suspended),
        Ok(v1::TenantState::Deleted) => Some(State::Deleted),
        Ok(v1::TenantState::Unspecified) | Err(_) => {
            violations.add(
                format!("states[{at}]"),
                "no such state; there are ACTIVE, SUSPENDED and DELETED",
            );
            None
        }
    };
    Filter {
        states: request
            .states
            .into_iter()
            .enumerate()
            .filter_map(&mut state)
            .collect(),
        plan: request.plan,
        labels: request.labels.into_iter().collect(),
        name_prefix: request.name_prefix,
        show_deleted: request.show_deleted,
    }
}

pub(super) fn suspension_mode(mode: i32, violations: &mut Violations) -> SuspensionMode {
    match v1::SuspensionMode::try_from(mode) {
        Ok(v1::SuspensionMode::ReadOnly) => SuspensionMode::ReadOnly,
        Ok(v1::SuspensionMode::Unspecified | v1::SuspensionMode::Blocked) => {
            SuspensionMode::Blocked
        }
        Err(_) => {
            violations.add("mode", "no such mode; there are READ_ONLY and BLOCKED");
            SuspensionMode::Blocked
        }
    }
}

pub(super) fn new_api_key(
    request: v1::CreateApiKeyRequest,
    violations: &mut Violations,
) -> NewApiKey {
    NewApiKey {
        display_name: request.display_name,
        scopes: request.scopes,
        namespaces: request.namespaces,
        key_prefixes: request.key_prefixes,
        expire_ms: request
            .expire_time
            .and_then(|time| timestamp_ms("expire_time", &time, violations)),
    }
}

pub(super) fn api_key(key: ApiKey) -> v1::ApiKey {
    v1::ApiKey {
        key_id: key.key_id,
        tenant_id: key.tenant_id,
        display_name: key.display_name,
        scopes: key.scopes,
        namespaces: key.namespaces,
        key_prefixes: key.key_prefixes,
        create_time: Some(timestamp(key.create_ms)),
        expire_time: key.expire_ms.map(timestamp),
        last_used_time: key.last_used_ms.map(timestamp),
        revoke_time: key.revoke_ms.map(timestamp),
    }
}

/// A key and its text, which is empty where none was made.
pub(super) fn issued(issued: Issued) -> (Option<v1::ApiKey>, String) {
    let text = |secret: SecretString| secret.expose_secret().to_owned();
    (
        Some(api_key(issued.api_key)),
        issued.secret.map(text).unwrap_or_default(),
    )
}

pub(super) fn purge_report(report: PurgeReport) -> v1::PurgeReport {
    let reclaim = |done| {
        if done {
            v1::PhysicalReclaim::Done
        } else {
            v1::PhysicalReclaim::Pending
        }
    };
    v1::PurgeReport {
        entries: int64(report.entries),
        bytes: int64(report.bytes),
        sessions: int64(report.sessions),
        session_bytes: int64(report.session_bytes),
        api_keys: int64(report.api_keys),
        data_key_destroyed: report.data_keys,
        physical_reclaim: reclaim(report.reclaimed).into(),
        checkpoint_reclaim: reclaim(report.forgotten).into(),
    }
}

pub(super) fn who(caller: &Caller) -> v1::WhoAmIResponse {
    match caller.grant() {
        None => v1::WhoAmIResponse {
            tenant_id: String::new(),
            admin: true,
            key_id: caller.key_id().to_owned(),
            scopes: vec!["admin".to_owned()],
        },
        Some(grant) => v1::WhoAmIResponse {
            tenant_id: grant.tenant_id.clone(),
            admin: false,
            key_id: grant.key_id.clone(),
            scopes: grant
                .scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
        },
    }
}
