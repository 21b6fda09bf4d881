//! Messages as JSON: the fields' names in the contract, times as RFC 3339,
//! enums by their names. It does not know which command shows them.

mod metering;
mod stats;

use std::collections::{BTreeMap, HashMap};

use prost_types::{Struct, Timestamp, value::Kind};
use serde_json::{Map, Number, Value, json};

pub(super) use self::{
    metering::{quota_mode, quota_usage, statement, usage, usage_point},
    stats::{cache_stats, store_stats},
};
use crate::proto::v1::{
    ApiKey, AuditEvent, CacheEntry, DataKey, KeyInfo, PurgeReport, Quotas, Session, SuspensionMode,
    Tenant, TenantState,
};

pub(super) fn tenant(tenant: &Tenant) -> Value {
    let suspension = tenant.suspension.as_ref().map(|suspension| {
        json!({
            "mode": name(SuspensionMode::try_from(suspension.mode).map(|mode| mode.as_str_name()), "SUSPENSION_MODE_"),
            "reason": suspension.reason,
            "time": time(suspension.time),
        })
    });
    let owner = tenant.owner.as_ref().map(|owner| {
        json!({
            "id": owner.id,
            "name": owner.name,
            "email": owner.email,
            "organization": owner.organization,
        })
    });
    json!({
        "tenant_id": tenant.tenant_id,
        "display_name": tenant.display_name,
        "plan": tenant.plan,
        "state": name(TenantState::try_from(tenant.state).map(|state| state.as_str_name()), "TENANT_STATE_"),
        "suspension": suspension,
        "owner": owner,
        "labels": sorted(&tenant.labels),
        "settings": tenant.settings.as_ref().map(from_struct),
        "quotas": tenant.quotas.as_ref().map(quotas),
        "effective_quotas": tenant.effective_quotas.as_ref().map(quotas),
        "encryption_enabled": tenant.encryption_enabled,
        "delete_protection": tenant.delete_protection,
        "create_time": time(tenant.create_time),
        "update_time": time(tenant.update_time),
        "delete_time": time(tenant.delete_time),
        "purge_time": time(tenant.purge_time),
        "etag": tenant.etag,
    })
}

fn quotas(quotas: &Quotas) -> Value {
    let mut fields = Map::new();
    for (metric, limit) in [
        ("memory_bytes", quotas.memory_bytes),
        ("cache_entries", quotas.cache_entries),
        ("storage_bytes", quotas.storage_bytes),
        ("operations_per_minute", quotas.operations_per_minute),
        ("data_transfer_bytes", quotas.data_transfer_bytes),
        ("active_sessions", quotas.active_sessions),
    ] {
        if let Some(limit) = limit {
            fields.insert(metric.to_owned(), limit.into());
        }
    }
    let custom: Map<_, _> = quotas
        .custom
        .iter()
        .map(|(metric, quota)| {
            let window = quota.window.as_ref().map(ToString::to_string);
            (
                metric.clone(),
                json!({"limit": quota.limit, "window": window}),
            )
        })
        .collect();
    if !custom.is_empty() {
        fields.insert("custom".to_owned(), custom.into());
    }
    let modes: Map<_, _> = quotas
        .modes
        .iter()
        .map(|(metric, mode)| (metric.clone(), quota_mode(*mode)))
        .collect();
    if !modes.is_empty() {
        fields.insert("modes".to_owned(), modes.into());
    }
    fields.into()
}

pub(super) fn api_key(key: &ApiKey) -> Value {
    json!({
        "key_id": key.key_id,
        "tenant_id": key.tenant_id,
        "display_name": key.display_name,
        "scopes": key.scopes,
        "namespaces": key.namespaces,
        "key_prefixes": key.key_prefixes,
        "create_time": time(key.create_time),
        "expire_time": time(key.expire_time),
        "last_used_time": time(key.last_used_time),
        "revoke_time": time(key.revoke_time),
    })
}

pub(super) fn audit_event(event: &AuditEvent) -> Value {
    json!({
        "time": time(event.time),
        "actor": event.actor,
        "rpc": event.rpc,
        "tenant_id": event.tenant_id,
        "outcome": event.outcome,
        "request_id": event.request_id,
        "peer": event.peer,
        "count": event.count,
        "replica": event.replica,
        "sequence": event.sequence,
        "expire_time": time(event.expire_time),
        "previous_expire_time": time(event.previous_expire_time),
        "previous_hash": event.previous_hash,
        "hash": event.hash,
    })
}

/// An entry; a value that is not UTF-8 is `value_base64` instead.
pub(super) fn entry(entry: &CacheEntry) -> Value {
    let (field, value) = match std::str::from_utf8(&entry.value) {
        Ok(text) => ("value", text.to_owned()),
        Err(_) => ("value_base64", data_encoding::BASE64.encode(&entry.value)),
    };
    json!({
        "key": entry.key,
        field: value,
        "content_type": entry.content_type,
        "tags": entry.tags,
        "version": entry.version,
        "create_time": time(entry.create_time),
        "expire_time": time(entry.expire_time),
        "size_bytes": entry.size_bytes,
        "stored_bytes": entry.stored_bytes,
    })
}

pub(super) fn key_info(key: &KeyInfo) -> Value {
    json!({
        "key": key.key,
        "size_bytes": key.size_bytes,
        "expire_time": time(key.expire_time),
    })
}

/// A session; one that is listed has no data.
pub(super) fn session(session: &Session) -> Value {
    let idle_timeout = session.idle_timeout.map(|span| span.to_string());
    json!({
        "session_id": session.session_id,
        "tenant_id": session.tenant_id,
        "user_id": session.user_id,
        "data": session.data.as_ref().map(from_struct),
        "attributes": sorted(&session.attributes),
        "create_time": time(session.create_time),
        "update_time": time(session.update_time),
        "last_active_time": time(session.last_active_time),
        "expire_time": time(session.expire_time),
        "idle_expire_time": time(session.idle_expire_time),
        "idle_timeout": idle_timeout,
        "etag": session.etag,
    })
}

pub(super) fn report(report: &PurgeReport) -> Value {
    let reclaim = report.physical_reclaim().as_str_name();
    let checkpoints = report.checkpoint_reclaim().as_str_name();
    json!({
        "entries": report.entries,
        "bytes": report.bytes,
        "sessions": report.sessions,
        "session_bytes": report.session_bytes,
        "api_keys": report.api_keys,
        "data_key_destroyed": report.data_key_destroyed,
        "physical_reclaim": reclaim.trim_start_matches("PHYSICAL_RECLAIM_"),
        "checkpoint_reclaim": checkpoints.trim_start_matches("PHYSICAL_RECLAIM_"),
    })
}

pub(super) fn data_key(key: &DataKey) -> Value {
    json!({
        "data_key_id": key.data_key_id,
        "master_key_id": key.master_key_id,
        "create_time": time(key.create_time),
    })
}

/// A time as RFC 3339, or null.
pub(super) fn time(time: Option<Timestamp>) -> Value {
    time.map(|time| time.to_string()).into()
}

/// An enum's value without what its name begins with.
pub(super) fn name<E>(name: Result<&'static str, E>, prefix: &str) -> Value {
    name.map_or(Value::from("UNKNOWN"), |name| {
        name.trim_start_matches(prefix).into()
    })
}

fn sorted(labels: &HashMap<String, String>) -> Value {
    json!(labels.iter().collect::<BTreeMap<_, _>>())
}

fn from_struct(fields: &Struct) -> Value {
    let fields = fields
        .fields
        .iter()
        .map(|(name, value)| (name.clone(), from_value(value)));
    fields.collect::<Map<_, _>>().into()
}

fn from_value(value: &prost_types::Value) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(switch)) => Value::Bool(*switch),
        Some(Kind::NumberValue(number)) => {
            // All numbers travel as floating point; whole ones are shown as such.
            let whole = number.fract() == 0.0 && number.abs() < 9e15;
            if whole {
                Value::from(*number as i64)
            } else {
                Number::from_f64(*number).into()
            }
        }
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_value).collect(),
        Some(Kind::StructValue(fields)) => from_struct(fields),
    }
}

/// Reads a JSON object.
pub(super) fn object(text: &str) -> Result<Struct, String> {
    match serde_json::from_str(text).map(to_value) {
        Ok(prost_types::Value {
            kind: Some(Kind::StructValue(fields)),
        }) => Ok(fields),
        _ => Err("a JSON object is allowed, such as {\"region\": \"eu\"}".to_owned()),
    }
}

fn to_value(value: Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(switch) => Kind::BoolValue(switch),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.into_iter().map(to_value).collect(),
        }),
        Value::Object(fields) => Kind::StructValue(Struct {
            fields: fields
                .into_iter()
                .map(|(name, value)| (name, to_value(value)))
                .collect(),
        }),
    };
    prost_types::Value { kind: Some(kind) }
}
