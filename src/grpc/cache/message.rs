//! What the cache takes and gives, as messages have it. It refuses nothing: what
//! makes no sense is handed on as such, for the cache to name.

use prost_types::{Duration, Timestamp};

use crate::{
    cache::{
        Condition, Consistency, Entry, Freshness, Invalidation, KeyInfo, Leased, NewEntry, Refill,
        Set,
    },
    grpc::convert::{int64, timestamp},
    proto::v1::{self, invalidate_cache_request::Target},
};

/// Nanoseconds of a millisecond.
const NANOS_PER_MS: i128 = 1_000_000;

pub(super) fn freshness(
    consistency: i32,
    max_age: Option<&Duration>,
    min_version: i64,
) -> Freshness {
    Freshness {
        consistency: match v1::Consistency::try_from(consistency) {
            Ok(v1::Consistency::Unspecified | v1::Consistency::Eventual) => {
                Some(Consistency::Eventual)
            }
            Ok(v1::Consistency::Strong) => Some(Consistency::Strong),
            Err(_) => None,
        },
        max_age_ms: max_age.map(span_ms),
        min_version,
    }
}

pub(super) fn set(request: &v1::SetRequest) -> Set<'_> {
    Set {
        key: &request.key,
        value: &request.value,
        ttl_ms: request.ttl.as_ref().map(span_ms),
        content_type: &request.content_type,
        tags: &request.tags,
        condition: condition(request.condition),
        if_version: request.if_version,
        lease_token: &request.lease_token,
    }
}

pub(super) fn item(entry: &v1::SetEntry) -> Set<'_> {
    Set {
        key: &entry.key,
        value: &entry.value,
        ttl_ms: entry.ttl.as_ref().map(span_ms),
        content_type: &entry.content_type,
        tags: &entry.tags,
        condition: condition(entry.condition),
        if_version: entry.if_version,
        lease_token: "",
    }
}

pub(super) fn owned(entry: v1::SetEntry) -> NewEntry {
    NewEntry {
        key: entry.key,
        value: entry.value,
        ttl_ms: entry.ttl.as_ref().map(span_ms),
        content_type: entry.content_type,
        tags: entry.tags,
        condition: condition(entry.condition),
        if_version: entry.if_version,
    }
}

pub(super) fn invalidation(target: &Target) -> Invalidation<'_> {
    match target {
        Target::Keys(keys) => Invalidation::Keys(&keys.keys),
        Target::Prefix(prefix) => Invalidation::Prefix(prefix),
        Target::Tags(tags) => Invalidation::Tags(&tags.tags),
        Target::WholeNamespace(whole) => Invalidation::Namespace(*whole),
        Target::WholeTenant(whole) => Invalidation::Tenant(*whole),
    }
}

fn condition(number: i32) -> Option<Condition> {
    match v1::SetCondition::try_from(number) {
        Ok(v1::SetCondition::Unspecified | v1::SetCondition::None) => Some(Condition::None),
        Ok(v1::SetCondition::IfAbsent) => Some(Condition::IfAbsent),
        Ok(v1::SetCondition::IfPresent) => Some(Condition::IfPresent),
        Err(_) => None,
    }
}

pub(super) fn entry(key: String, entry: Entry) -> v1::CacheEntry {
    v1::CacheEntry {
        key,
        size_bytes: int64(entry.value.len() as u64),
        value: entry.value,
        content_type: entry.content_type,
        tags: entry.tags,
        version: int64(entry.version),
        create_time: Some(timestamp(entry.create_ms)),
        expire_time: time(entry.expire_ms),
        stored_bytes: int64(entry.stored_bytes),
    }
}

pub(super) fn refill(request: &v1::GetOrLeaseRequest) -> Refill {
    Refill {
        duration_ms: request.lease_duration.as_ref().map(span_ms),
        stale_ok: request.stale_ok,
    }
}

pub(super) fn leased(key: String, leased: Leased) -> v1::GetOrLeaseResponse {
    match leased {
        Leased::Entry(found) => v1::GetOrLeaseResponse {
            entry: Some(entry(key, found)),
            ..Default::default()
        },
        Leased::Refill(lease_token) => v1::GetOrLeaseResponse {
            lease_token,
            ..Default::default()
        },
        Leased::Wait { again, stale } => v1::GetOrLeaseResponse {
            stale: stale.is_some(),
            entry: stale.map(|stale| entry(key, stale)),
            retry_after: again.try_into().ok(),
            ..Default::default()
        },
    }
}

pub(super) fn key_info(info: KeyInfo) -> v1::KeyInfo {
    v1::KeyInfo {
        key: info.key,
        size_bytes: int64(info.size_bytes),
        expire_time: time(info.expire_ms),
    }
}

pub(super) fn time(ms: Option<u64>) -> Option<Timestamp> {
    ms.map(timestamp)
}

/// A span in whole milliseconds, a part of one rounded up, so that what is
/// longer than nothing stays so. What is negative, or no span at all, is negative.
pub(super) fn span_ms(span: &Duration) -> i64 {
    if !(0..1_000_000_000).contains(&span.nanos) {
        return -1;
    }
    let nanos = i128::from(span.seconds) * 1_000 * NANOS_PER_MS + i128::from(span.nanos);
    let ms = nanos.div_euclid(NANOS_PER_MS) + i128::from(nanos.rem_euclid(NANOS_PER_MS) > 0);
    i64::try_from(ms).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_up_and_keep_their_sign() {
        for (seconds, nanos, ms) in [
            (0, 0, 0),
            (0, 1, 1),
            (0, 1_000_000, 1),
            (0, 1_000_001, 2),
            (1, 500_000_000, 1_500),
            (0, -1, -1),
            (1, 1_000_000_000, -1),
            (-1, 0, -1_000),
            (i64::MAX, 999_999_999, i64::MAX),
            (i64::MIN, 0, i64::MIN),
            (i64::MIN, i32::MIN, -1),
        ] {
            assert_eq!(
                span_ms(&Duration { seconds, nanos }),
                ms,
                "{seconds} {nanos}"
            );
        }
    }
}
