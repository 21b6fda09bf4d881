//! What a request on the cache may ask for. All violations of one request are
//! gathered before it is refused. It does not know what is stored.

use super::{Condition, Freshness, LEASE_MS, Set, lease::Token};
use crate::{
    config,
    error::{Error, Result, Violations},
    store::{Check, Expiry},
    tenant::{Tenancy, stats::OTHER},
};

/// The namespace of requests that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Bytes of a key.
pub const MAX_KEY_BYTES: usize = 1024;

/// Tags that can be invalidated at once.
const MAX_INVALIDATED_TAGS: usize = 100;

/// Bytes of a content type.
const MAX_CONTENT_TYPE_BYTES: usize = 128;

/// Where a field stands in the request: its path is only written out for a
/// violation.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    /// In the request itself.
    Request,
    /// In an item of this repeated message.
    Item(&'static str, usize),
    /// It is an item of this repeated field.
    Value(&'static str, usize),
}

impl At {
    fn path(self, field: &str) -> String {
        match self {
            Self::Request => field.to_owned(),
            Self::Item(list, index) => format!("{list}[{index}].{field}"),
            Self::Value(list, index) => format!("{list}[{index}]"),
        }
    }
}

/// The namespace that a request means.
pub(super) fn namespace<'a>(asked: &'a str, violations: &mut Violations) -> &'a str {
    if asked.is_empty() {
        return DEFAULT_NAMESPACE;
    }
    violations.require(
        is_namespace(asked),
        "namespace",
        "must match [a-z0-9][a-z0-9._-]{0,63}, or be empty for `default`",
    );
    asked
}

fn is_namespace(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|&byte| plain(byte))
        && bytes
            .iter()
            .all(|&byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// A namespace that is to be watched: it must be named.
pub(super) fn watched_namespace(asked: &str, index: usize, violations: &mut Violations) {
    if !is_namespace(asked) {
        let at = At::Value("namespaces", index);
        violations.add(at.path("namespace"), "must match [a-z0-9][a-z0-9._-]{0,63}");
    }
}

/// The namespace that a request means, where it has nothing else to refuse.
pub(super) fn only_namespace(asked: &str) -> Result<&str> {
    let mut violations = Violations::default();
    let namespace = namespace(asked, &mut violations);
    violations.check().map(|()| namespace)
}

/// The namespace whose statistics are asked for; `None` means all of the tenant's,
/// and of the fleet there is no other.
///
/// # Errors
/// [`Error::Invalid`] with what is allowed.
pub fn stats_namespace(asked: &str, of_fleet: bool) -> Result<Option<&str>> {
    match asked {
        "" => Ok(None),
        _ if of_fleet => {
            let allowed = "must be empty where no tenant is named";
            Err(Error::invalid("namespace", allowed))
        }
        OTHER => Ok(Some(OTHER)),
        asked => only_namespace(asked).map(Some),
    }
}

/// The namespace and the key that a request means, within the caller's reach.
pub(super) fn place<'a>(
    tenancy: &Tenancy,
    asked: &'a str,
    key: &str,
    mut violations: Violations,
) -> Result<&'a str> {
    let namespace = namespace(asked, &mut violations);
    self::key(key, At::Request, &mut violations);
    violations.check()?;
    tenancy.reach_key(namespace, key)?;
    Ok(namespace)
}

/// A key that stands in a list, within the caller's reach.
pub(super) fn item_key(tenancy: &Tenancy, namespace: &str, key: &str, at: At) -> Result<()> {
    let mut violations = Violations::default();
    self::key(key, at, &mut violations);
    violations.check()?;
    tenancy.reach_key(namespace, key)
}

pub(super) fn key(key: &str, at: At, violations: &mut Violations) {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        violations.add(
            at.path("key"),
            format!("{} bytes, 1 to {MAX_KEY_BYTES} are allowed", key.len()),
        );
    }
}

/// A beginning of keys that is to be invalidated.
pub(super) fn prefix(prefix: &str, violations: &mut Violations) {
    if prefix.is_empty() || prefix.len() > MAX_KEY_BYTES {
        violations.add(
            "prefix",
            format!("{} bytes, 1 to {MAX_KEY_BYTES} are allowed", prefix.len()),
        );
    }
}

/// Tags that are to be invalidated.
pub(super) fn invalidated_tags(
    tags: &[String],
    settings: &config::Cache,
    violations: &mut Violations,
) {
    const FIELD: &str = "tags.tags";
    if tags.is_empty() || tags.len() > MAX_INVALIDATED_TAGS {
        violations.add(
            FIELD,
            format!(
                "{} tags, 1 to {MAX_INVALIDATED_TAGS} are allowed",
                tags.len()
            ),
        );
    }
    for (index, tag) in tags.iter().enumerate().take(MAX_INVALIDATED_TAGS) {
        self::tag(
            tag,
            || At::Value(FIELD, index).path(""),
            settings,
            violations,
        );
    }
}

/// How many items a batch may have.
pub(super) fn batch(field: &'static str, items: usize, settings: &config::Cache) -> Result<()> {
    let limit = settings.max_batch_items;
    if items == 0 {
        return Err(Error::invalid(
            field,
            format!("empty, 1 to {limit} items are allowed"),
        ));
    }
    if items > limit {
        return Err(Error::BatchTooLarge {
            field,
            items,
            limit,
        });
    }
    Ok(())
}

/// How fresh an answer must be.
pub(super) fn freshness(freshness: &Freshness, violations: &mut Violations) {
    violations.require(
        freshness.consistency.is_some(),
        "consistency",
        "unknown; CONSISTENCY_EVENTUAL and CONSISTENCY_STRONG are allowed",
    );
    violations.require(
        freshness.max_age_ms.is_none_or(|ms| ms >= 0),
        "max_age",
        "must not be negative",
    );
    violations.require(
        freshness.min_version >= 0,
        "min_version",
        "must not be negative",
    );
}

/// When an entry ends whose time to live is asked for so.
pub(super) fn expiry(
    ttl_ms: Option<i64>,
    at: At,
    tenancy: &Tenancy,
    settings: &config::Cache,
    violations: &mut Violations,
) -> Expiry {
    let max_ms = u64::try_from(settings.max_ttl.as_millis()).unwrap_or(u64::MAX);
    match ttl_ms.map(u64::try_from) {
        None => match tenancy.default_ttl_ms {
            Some(ms) => Expiry::AfterMs(ms.clamp(1, max_ms)),
            None => Expiry::Never,
        },
        Some(Ok(ms)) if (1..=max_ms).contains(&ms) => Expiry::AfterMs(ms),
        Some(_) => {
            violations.add(
                at.path("ttl"),
                format!(
                    "must be from 1 ms to {} s, or unset for the tenant's default",
                    settings.max_ttl.as_secs()
                ),
            );
            Expiry::Never
        }
    }
}

/// A version that a write is bound to; 0 means none.
pub(super) fn version(if_version: i64, at: At, violations: &mut Violations) -> Option<u64> {
    let version = u64::try_from(if_version);
    if version.is_err() {
        violations.add(at.path("if_version"), "must not be negative; 0 means any");
    }
    version.ok().filter(|&version| version > 0)
}

/// A write that was found to be in order: when it may happen, when its entry ends,
/// and the lease that it is a refill under.
pub(super) struct Allowed {
    pub(super) check: Check,
    pub(super) expiry: Expiry,
    pub(super) lease: Option<Token>,
}

/// Checks all of an entry to be written but the caller's reach.
pub(super) fn set(
    set: &Set<'_>,
    at: At,
    tenancy: &Tenancy,
    settings: &config::Cache,
    mut violations: Violations,
) -> Result<Allowed> {
    key(set.key, at, &mut violations);
    let expiry = expiry(set.ttl_ms, at, tenancy, settings, &mut violations);
    if set.content_type.len() > MAX_CONTENT_TYPE_BYTES {
        violations.add(
            at.path("content_type"),
            format!(
                "{} bytes, at most {MAX_CONTENT_TYPE_BYTES} are allowed",
                set.content_type.len()
            ),
        );
    }
    tags(set.tags, at, settings, &mut violations);
    let check = check(set, at, &mut violations);
    let lease = lease(set, at, &mut violations);
    violations.check()?;
    if set.value.len() > settings.max_value_bytes {
        return Err(Error::EntryTooLarge {
            bytes: set.value.len() as u64,
            limit: settings.max_value_bytes as u64,
        });
    }
    let expiry = match expiry {
        Expiry::AfterMs(after_ms) if lease.is_some() => lingering(after_ms, settings),
        expiry => expiry,
    };
    Ok(Allowed {
        check,
        expiry,
        lease,
    })
}

/// The expiry of an entry that is still shown, as stale, while it is refilled anew.
fn lingering(after_ms: u64, settings: &config::Cache) -> Expiry {
    let stale_ms = u64::try_from(settings.lease.stale_for.as_millis()).unwrap_or(u64::MAX);
    Expiry::Lingering {
        after_ms,
        linger_ms: stale_ms.min(after_ms),
    }
}

fn tags(tags: &[String], at: At, settings: &config::Cache, violations: &mut Violations) {
    if tags.len() > settings.max_tags {
        violations.add(
            at.path("tags"),
            format!(
                "{} tags, at most {} are allowed",
                tags.len(),
                settings.max_tags
            ),
        );
    }
    for (index, tag) in tags.iter().enumerate().take(settings.max_tags) {
        let field = || format!("{}[{index}]", at.path("tags"));
        self::tag(tag, field, settings, violations);
    }
}

fn tag(
    tag: &str,
    field: impl FnOnce() -> String,
    settings: &config::Cache,
    violations: &mut Violations,
) {
    if tag.is_empty() || tag.len() > settings.max_tag_bytes {
        violations.add(
            field(),
            format!(
                "{} bytes, 1 to {} are allowed",
                tag.len(),
                settings.max_tag_bytes
            ),
        );
    }
}

/// How long a lease is to hold; `None` where the request does not say it.
pub(super) fn lease_duration(asked_ms: Option<i64>, violations: &mut Violations) -> Option<u64> {
    let asked_ms = asked_ms.map(|ms| u64::try_from(ms).unwrap_or(0))?;
    violations.require(
        LEASE_MS.contains(&asked_ms),
        "lease_duration",
        &format!(
            "must be from {} to {} ms, or unset for 10 s",
            LEASE_MS.start(),
            LEASE_MS.end()
        ),
    );
    Some(asked_ms)
}

/// The lease that an entry is set under; the lease is all the condition there is.
fn lease(set: &Set<'_>, at: At, violations: &mut Violations) -> Option<Token> {
    if set.lease_token.is_empty() {
        return None;
    }
    let token = Token::decode(set.lease_token);
    if token.is_none() {
        violations.add(at.path("lease_token"), "not a token that GetOrLease gave");
    }
    for (given, field) in [
        (
            set.condition
                .is_some_and(|condition| condition != Condition::None),
            "condition",
        ),
        (set.if_version != 0, "if_version"),
    ] {
        if given {
            violations.add(at.path(field), "cannot be combined with lease_token");
        }
    }
    token
}

fn check(set: &Set<'_>, at: At, violations: &mut Violations) -> Check {
    let version = version(set.if_version, at, violations);
    match (set.condition, version) {
        (None, _) => {
            violations.add(
                at.path("condition"),
                "unknown; NONE, IF_ABSENT and IF_PRESENT are allowed",
            );
            Check::Any
        }
        (Some(Condition::IfAbsent), Some(_)) => {
            violations.add(
                at.path("if_version"),
                "cannot be combined with the condition IF_ABSENT",
            );
            Check::Any
        }
        (Some(_), Some(version)) => Check::Version(version),
        (Some(Condition::None), None) => Check::Any,
        (Some(Condition::IfAbsent), None) => Check::Absent,
        (Some(Condition::IfPresent), None) => Check::Present,
    }
}
