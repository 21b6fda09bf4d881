//! What a caller sets of a tenant, and the rules for it. It does not know
//! whether the tenant exists.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    plan::{METRICS, Quotas},
    record::{Owner, Tenant},
};
use crate::{
    config::{self, CUSTOM_METRICS},
    error::Violations,
};

const NAME_CHARS: usize = 128;
const OWNER_CHARS: usize = 256;
const LABELS: usize = 64;
const LABEL_VALUE_BYTES: usize = 256;
const SETTINGS_BYTES: usize = 16 * 1024;

/// The fields of a tenant that a caller sets.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Profile {
    /// A name for people.
    pub display_name: String,
    /// A plan's name; empty means the default one.
    pub plan: String,
    /// Who answers for it, where that is set.
    pub owner: Option<Owner>,
    /// Labels for selection.
    pub labels: BTreeMap<String, String>,
    /// Settings of the platform's own, where they are set.
    pub settings: Option<Map<String, Value>>,
    /// The tenant's own quotas, where they are set.
    pub quotas: Option<Quotas>,
    /// Whether values are to be encrypted, for a creation.
    pub encryption_enabled: bool,
    /// Whether deletion is refused.
    pub delete_protection: bool,
}

impl Profile {
    /// Notes every rule that is broken; `at` goes before the fields' names.
    pub fn validate(&self, at: &str, settings: &config::Tenant, violations: &mut Violations) {
        if !self.plan.is_empty() {
            validate_plan(at, &self.plan, settings, violations);
        }
        let none = Owner::default();
        validate_name(at, &self.display_name, violations);
        validate_owner(at, self.owner.as_ref().unwrap_or(&none), violations);
        validate_labels(at, &self.labels, violations);
        if let Some(settings) = &self.settings {
            validate_settings(at, settings, violations);
        }
        if let Some(quotas) = &self.quotas {
            validate_quotas(at, quotas, violations);
        }
    }
}

/// Notes every rule that a changed tenant breaks as a whole: what a change of
/// single labels, settings or quotas adds up to.
pub(super) fn validate_whole(tenant: &Tenant, violations: &mut Violations) {
    validate_labels("tenant.", &tenant.labels, violations);
    validate_settings("tenant.", &tenant.settings, violations);
    validate_quotas("tenant.", &tenant.quotas, violations);
}

fn validate_plan(at: &str, plan: &str, settings: &config::Tenant, violations: &mut Violations) {
    if !settings.plans.contains_key(plan) {
        let known: Vec<&str> = settings.plans.keys().map(String::as_str).collect();
        violations.add(
            format!("{at}plan"),
            format!("no such plan; the configuration has {}", known.join(", ")),
        );
    }
}

/// Notes a display name that is too long.
pub(super) fn validate_name(at: &str, name: &str, violations: &mut Violations) {
    violations.require(
        name.chars().count() <= NAME_CHARS,
        &format!("{at}display_name"),
        "longer than 128 characters",
    );
}

fn validate_owner(at: &str, owner: &Owner, violations: &mut Violations) {
    for (field, text) in [
        ("id", &owner.id),
        ("name", &owner.name),
        ("email", &owner.email),
        ("organization", &owner.organization),
    ] {
        violations.require(
            text.chars().count() <= OWNER_CHARS,
            &format!("{at}owner.{field}"),
            "longer than 256 characters",
        );
    }
}

fn validate_labels(at: &str, labels: &BTreeMap<String, String>, violations: &mut Violations) {
    if labels.len() > LABELS {
        violations.add(
            format!("{at}labels"),
            format!("{} labels, at most {LABELS} are allowed", labels.len()),
        );
    }
    for (key, value) in labels {
        if !is_word(key, b"_.-") {
            violations.add(
                format!("{at}labels.{key}"),
                "not a label's key: 1 to 63 characters, a lower-case letter, then lower-case letters, digits, `_`, `.` and `-`",
            );
        }
        if value.len() > LABEL_VALUE_BYTES {
            violations.add(format!("{at}labels.{key}"), "a value longer than 256 bytes");
        }
    }
}

fn validate_settings(at: &str, settings: &Map<String, Value>, violations: &mut Violations) {
    let bytes = serde_json::to_vec(settings).map_or(usize::MAX, |json| json.len());
    if bytes > SETTINGS_BYTES {
        violations.add(
            format!("{at}settings"),
            format!("{bytes} bytes as JSON, at most {SETTINGS_BYTES} are allowed"),
        );
    }
}

fn validate_quotas(at: &str, quotas: &Quotas, violations: &mut Violations) {
    const LIMIT: &str = "a limit is 0 or more, or -1 for unlimited";
    for (metric, limit) in quotas.limits() {
        violations.require(
            limit.is_none_or(|limit| limit >= -1),
            &format!("{at}quotas.{metric}"),
            LIMIT,
        );
    }
    if quotas.custom.len() > CUSTOM_METRICS {
        let given = quotas.custom.len();
        violations.add(
            format!("{at}quotas.custom"),
            format!("{given} metrics, at most {CUSTOM_METRICS} are allowed"),
        );
    }
    for (metric, quota) in &quotas.custom {
        let field = format!("{at}quotas.custom.{metric}");
        if !config::is_custom_metric(metric) {
            violations.add(
                &field,
                "not a metric's name: 1 to 63 characters, a lower-case letter, then lower-case letters, digits and `_`, and none of the service's own metrics",
            );
        }
        violations.require(quota.limit >= -1, &format!("{field}.limit"), LIMIT);
        let span =
            |ms| (config::MIN_WINDOW..=config::MAX_WINDOW).contains(&Duration::from_millis(ms));
        violations.require(
            quota.window_ms.is_none_or(span),
            &format!("{field}.window"),
            "a window is 1 s to 31 days; none makes the metric a level",
        );
    }
    if quotas.modes.len() > CUSTOM_METRICS + METRICS.len() {
        violations.add(
            format!("{at}quotas.modes"),
            "more metrics than there can be",
        );
    }
    for metric in quotas.modes.keys() {
        if !is_word(metric, b"_") {
            violations.add(format!("{at}quotas.modes.{metric}"), "not a metric's name");
        }
    }
}

/// `^[a-z][a-z0-9<also>]{0,62}$`
fn is_word(text: &str, also: &[u8]) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || also.contains(b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        error::Error,
        tenant::plan::{CustomQuota, Mode},
    };

    fn broken(profile: &Profile) -> Vec<String> {
        let settings = config::Tenant {
            default_plan: "free".into(),
            max_tenants: -1,
            delete_grace: std::time::Duration::ZERO,
            plans: [("free".to_owned(), config::Plan::default())].into(),
            ..config::Tenant::default()
        };
        let mut violations = Violations::default();
        profile.validate("", &settings, &mut violations);
        match violations.check() {
            Err(Error::Invalid(found)) => found.into_iter().map(|v| v.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_broken_rule_is_named_at_once() {
        let profile = Profile {
            display_name: "ä".repeat(129),
            plan: "gold".into(),
            owner: Some(Owner {
                email: "x".repeat(257),
                ..Owner::default()
            }),
            labels: [
                ("Env".to_owned(), String::new()),
                ("ok".to_owned(), "v".repeat(257)),
            ]
            .into(),
            settings: Some(
                [("k".to_owned(), Value::String("x".repeat(17_000)))]
                    .into_iter()
                    .collect(),
            ),
            quotas: Some(Quotas {
                memory_bytes: Some(-2),
                custom: [
                    (
                        "cache_entries".to_owned(),
                        CustomQuota {
                            limit: 1,
                            window_ms: Some(0),
                        },
                    ),
                    (
                        "mails".to_owned(),
                        CustomQuota {
                            limit: -5,
                            window_ms: None,
                        },
                    ),
                ]
                .into(),
                modes: [("No".to_owned(), Mode::Warn)].into(),
                ..Quotas::default()
            }),
            encryption_enabled: true,
            delete_protection: false,
        };
        assert_eq!(
            broken(&profile),
            [
                "plan",
                "display_name",
                "owner.email",
                "labels.Env",
                "labels.ok",
                "settings",
                "quotas.memory_bytes",
                "quotas.custom.cache_entries",
                "quotas.custom.cache_entries.window",
                "quotas.custom.mails.limit",
                "quotas.modes.No",
            ]
        );
    }

    #[test]
    fn what_is_just_allowed_passes() {
        let profile = Profile {
            display_name: "ä".repeat(128),
            plan: "free".into(),
            labels: (0..64)
                .map(|n| (format!("l{n}"), "v".repeat(256)))
                .collect(),
            quotas: Some(Quotas {
                memory_bytes: Some(-1),
                cache_entries: Some(0),
                ..Quotas::default()
            }),
            ..Profile::default()
        };
        assert_eq!(broken(&profile), Vec::<String>::new());
        assert_eq!(broken(&Profile::default()), Vec::<String>::new());
        let one_more = Profile {
            labels: (0..65).map(|n| (format!("l{n}"), String::new())).collect(),
            ..profile
        };
        assert_eq!(broken(&one_more), ["labels"]);
    }
}
