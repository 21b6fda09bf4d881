//! Usage, quotas and bills as JSON. It does not know which command shows them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::{name, time};
use crate::proto::v1::{QuotaMode, QuotaUsage, Statement, StatementLine, Usage, UsagePoint};

pub(in crate::cli) fn usage(usage: &Usage) -> Value {
    json!({
        "memory_bytes": usage.memory_bytes,
        "cache_entries": usage.cache_entries,
        "storage_bytes": usage.storage_bytes,
        "active_sessions": usage.active_sessions,
        "operations": usage.operations,
        "hits": usage.hits,
        "misses": usage.misses,
        "throttled": usage.throttled,
        "bytes_in": usage.bytes_in,
        "bytes_out": usage.bytes_out,
        "data_transfer_bytes": usage.data_transfer_bytes,
        "compute_ms": usage.compute_ms,
        "memory_byte_seconds": usage.memory_byte_seconds,
        "storage_byte_seconds": usage.storage_byte_seconds,
        "exact": usage.exact,
        "custom": sorted(&usage.custom),
    })
}

pub(in crate::cli) fn quota_usage(quota: &QuotaUsage) -> Value {
    json!({
        "limit": quota.limit,
        "used": quota.used,
        "remaining": quota.remaining,
        "reset_time": time(quota.reset_time),
        "mode": quota_mode(quota.mode),
    })
}

pub(in crate::cli) fn usage_point(point: &UsagePoint) -> Value {
    json!({
        "start_time": time(point.start_time),
        "operations": point.operations,
        "hits": point.hits,
        "misses": point.misses,
        "throttled": point.throttled,
        "bytes_in": point.bytes_in,
        "bytes_out": point.bytes_out,
        "data_transfer_bytes": point.data_transfer_bytes,
        "compute_ms": point.compute_ms,
        "memory_byte_seconds": point.memory_byte_seconds,
        "storage_byte_seconds": point.storage_byte_seconds,
        "custom": sorted(&point.custom),
    })
}

/// What happens at a limit, such as `ENFORCE`.
pub(in crate::cli) fn quota_mode(mode: i32) -> Value {
    let mode = QuotaMode::try_from(mode).map(|mode| mode.as_str_name());
    name(mode, "QUOTA_MODE_")
}

pub(in crate::cli) fn statement(statement: &Statement) -> Value {
    json!({
        "tenant_id": statement.tenant_id,
        "period": statement.period,
        "start_time": time(statement.start_time),
        "end_time": time(statement.end_time),
        "lines": statement.lines.iter().map(statement_line).collect::<Value>(),
        "total_micros": statement.total_micros,
        "currency": statement.currency,
        "projected_total_micros": statement.projected_total_micros,
        "closed": statement.closed,
        "close_time": time(statement.close_time),
    })
}

fn statement_line(line: &StatementLine) -> Value {
    json!({
        "metric": line.metric,
        "quantity": line.quantity,
        "included": line.included,
        "unit_price_micros": line.unit_price_micros,
        "amount_micros": line.amount_micros,
        "unit": line.unit,
        "plan": line.plan,
        "start_time": time(line.start_time),
        "end_time": time(line.end_time),
    })
}

fn sorted(custom: &HashMap<String, i64>) -> Value {
    json!(custom.iter().collect::<BTreeMap<_, _>>())
}
