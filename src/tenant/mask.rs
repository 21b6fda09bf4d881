//! Update masks: which fields of a tenant a change sets. It does not know
//! whether the values are allowed.

use serde_json::{Map, Value};

use super::{
    plan::{METRICS, Quotas},
    profile::Profile,
    record::Tenant,
};
use crate::error::{Error, Result, Violation};

/// The fields a change sets, in the order of the mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask(Vec<Path>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Path {
    DisplayName,
    Plan,
    Owner,
    OwnerId,
    OwnerName,
    OwnerEmail,
    OwnerOrganization,
    Labels,
    Label(String),
    Settings,
    /// A value inside the settings, by the names on the way to it.
    Setting(Vec<String>),
    Quotas,
    Limit(String),
    CustomQuotas,
    CustomQuota(String),
    Modes,
    Mode(String),
    DeleteProtection,
}

const ALLOWED: &str = "allowed are display_name, plan, owner, owner.<field>, labels, labels.<key>, settings, \
     settings.<key>, quotas, quotas.<metric>, quotas.custom.<metric>, quotas.modes.<metric>, delete_protection, and * alone";

/// The paths of a mask as `parse` knows them.
///
/// # Errors
/// [`Error::InvalidFieldMask`] naming every path that is not known, and what is
/// allowed.
pub fn known<P>(
    paths: &[String],
    parse: impl Fn(&str) -> Option<P>,
    allowed: &str,
) -> Result<Vec<P>> {
    let mut known = Vec::with_capacity(paths.len());
    let mut unknown = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let Some(path) = parse(path) else {
            let mut description = format!("{path:?} is no field that can be changed");
            // What is allowed is told once: a status has room for so much.
            if unknown.is_empty() {
                description.push_str("; ");
                description.push_str(allowed);
            }
            let field = format!("update_mask.paths[{at}]");
            unknown.push(Violation::new(field, description));
            continue;
        };
        known.push(path);
    }
    if unknown.is_empty() {
        Ok(known)
    } else {
        Err(Error::InvalidFieldMask(unknown))
    }
}

impl Mask {
    /// Reads a mask. `*` means every field; an empty mask the fields that
    /// `profile` sets.
    ///
    /// # Errors
    /// [`Error::InvalidFieldMask`] naming every path that is no field a caller
    /// can change.
    pub fn parse(paths: &[String], profile: &Profile) -> Result<Self> {
        match paths {
            [] => Ok(Self::of_set_fields(profile)),
            [star] if star == "*" => Ok(Self::all()),
            paths => Ok(Self(known(paths, Path::parse, ALLOWED)?)),
        }
    }

    fn all() -> Self {
        Self(vec![
            Path::DisplayName,
            Path::Plan,
            Path::Owner,
            Path::Labels,
            Path::Settings,
            Path::Quotas,
            Path::DeleteProtection,
        ])
    }

    fn of_set_fields(profile: &Profile) -> Self {
        let fields = [
            (!profile.display_name.is_empty(), Path::DisplayName),
            (!profile.plan.is_empty(), Path::Plan),
            (profile.owner.is_some(), Path::Owner),
            (!profile.labels.is_empty(), Path::Labels),
            (profile.settings.is_some(), Path::Settings),
            (profile.quotas.is_some(), Path::Quotas),
            (profile.delete_protection, Path::DeleteProtection),
        ];
        Self(
            fields
                .into_iter()
                .filter_map(|(set, path)| set.then_some(path))
                .collect(),
        )
    }

    /// Sets the masked fields of `tenant` to what `profile` has; a masked map key
    /// that it does not have is removed. An empty plan becomes the default one.
    pub fn apply(&self, profile: &Profile, default_plan: &str, tenant: &mut Tenant) {
        let owner = profile.owner.clone().unwrap_or_default();
        let none = (Quotas::default(), Map::new());
        let quotas = profile.quotas.as_ref().unwrap_or(&none.0);
        let settings = profile.settings.as_ref().unwrap_or(&none.1);
        for path in &self.0 {
            match path {
                Path::DisplayName => tenant.display_name.clone_from(&profile.display_name),
                Path::Plan if profile.plan.is_empty() => default_plan.clone_into(&mut tenant.plan),
                Path::Plan => tenant.plan.clone_from(&profile.plan),
                Path::Owner => tenant.owner.clone_from(&owner),
                Path::OwnerId => tenant.owner.id.clone_from(&owner.id),
                Path::OwnerName => tenant.owner.name.clone_from(&owner.name),
                Path::OwnerEmail => tenant.owner.email.clone_from(&owner.email),
                Path::OwnerOrganization => {
                    tenant.owner.organization.clone_from(&owner.organization)
                }
                Path::Labels => tenant.labels.clone_from(&profile.labels),
                Path::Label(key) => match profile.labels.get(key) {
                    Some(value) => drop(tenant.labels.insert(key.clone(), value.clone())),
                    None => drop(tenant.labels.remove(key)),
                },
                Path::Settings => tenant.settings.clone_from(settings),
                Path::Setting(names) => set(&mut tenant.settings, names, find(settings, names)),
                Path::Quotas => tenant.quotas.clone_from(quotas),
                Path::Limit(metric) => {
                    let limit = quotas.limits().into_iter().find(|(name, _)| name == metric);
                    if let (Some((_, limit)), Some(place)) =
                        (limit, tenant.quotas.limit_mut(metric))
                    {
                        *place = limit;
                    }
                }
                Path::CustomQuotas => tenant.quotas.custom.clone_from(&quotas.custom),
                Path::CustomQuota(metric) => match quotas.custom.get(metric) {
                    Some(quota) => drop(tenant.quotas.custom.insert(metric.clone(), *quota)),
                    None => drop(tenant.quotas.custom.remove(metric)),
                },
                Path::Modes => tenant.quotas.modes.clone_from(&quotas.modes),
                Path::Mode(metric) => match quotas.modes.get(metric) {
                    Some(mode) => drop(tenant.quotas.modes.insert(metric.clone(), *mode)),
                    None => drop(tenant.quotas.modes.remove(metric)),
                },
                Path::DeleteProtection => tenant.delete_protection = profile.delete_protection,
            }
        }
    }
}

impl Path {
    fn parse(path: &str) -> Option<Self> {
        let (field, rest) = path
            .split_once('.')
            .map_or((path, None), |(field, rest)| (field, Some(rest)));
        Some(match (field, rest) {
            ("display_name", None) => Self::DisplayName,
            ("plan", None) => Self::Plan,
            ("delete_protection", None) => Self::DeleteProtection,
            ("owner", None) => Self::Owner,
            ("owner", Some("id")) => Self::OwnerId,
            ("owner", Some("name")) => Self::OwnerName,
            ("owner", Some("email")) => Self::OwnerEmail,
            ("owner", Some("organization")) => Self::OwnerOrganization,
            ("labels", None) => Self::Labels,
            // A label's key may hold dots itself.
            ("labels", Some(key)) if !key.is_empty() => Self::Label(unquoted(key).to_owned()),
            ("settings", None) => Self::Settings,
            ("settings", Some(names)) => Self::Setting(names_of(names)?),
            ("quotas", None) => Self::Quotas,
            ("quotas", Some("custom")) => Self::CustomQuotas,
            ("quotas", Some("modes")) => Self::Modes,
            ("quotas", Some(metric)) if METRICS.contains(&metric) => Self::Limit(metric.to_owned()),
            ("quotas", Some(rest)) => match rest.split_once('.')? {
                ("custom", metric) if !metric.is_empty() => {
                    Self::CustomQuota(unquoted(metric).to_owned())
                }
                ("modes", metric) if !metric.is_empty() => Self::Mode(unquoted(metric).to_owned()),
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// A name that may stand in backticks, as AIP-161 writes map keys.
pub fn unquoted(name: &str) -> &str {
    name.strip_prefix('`')
        .and_then(|name| name.strip_suffix('`'))
        .unwrap_or(name)
}

/// The names of a path, parted by dots; one that holds dots stands in backticks.
pub fn names_of(path: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = path;
    loop {
        let (name, after) = match rest.strip_prefix('`') {
            Some(quoted) => {
                let (name, after) = quoted.split_once('`')?;
                match after.strip_prefix('.') {
                    Some(after) => (name, Some(after)),
                    None if after.is_empty() => (name, None),
                    None => return None,
                }
            }
            None => rest
                .split_once('.')
                .map_or((rest, None), |(name, after)| (name, Some(after))),
        };
        if name.is_empty() {
            return None;
        }
        names.push(name.to_owned());
        match after {
            Some(after) => rest = after,
            None => return Some(names),
        }
    }
}

/// What the names of a path lead to.
pub fn find<'a>(settings: &'a Map<String, Value>, names: &[String]) -> Option<&'a Value> {
    let (first, rest) = names.split_first()?;
    rest.iter()
        .try_fold(settings.get(first)?, |value, name| value.get(name))
}

/// Puts a value where the names lead, making objects on the way; removes what is
/// there where there is none.
pub fn set(settings: &mut Map<String, Value>, names: &[String], value: Option<&Value>) {
    let Some((first, rest)) = names.split_first() else {
        return;
    };
    if rest.is_empty() {
        match value {
            Some(value) => drop(settings.insert(first.clone(), value.clone())),
            None => drop(settings.remove(first)),
        }
        return;
    }
    if value.is_none() && !settings.get(first).is_some_and(Value::is_object) {
        return;
    }
    let inner = settings.entry(first.clone()).or_insert(Value::Null);
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{
        store::Incarnation,
        tenant::{
            plan::{CustomQuota, Mode},
            record::{FORMAT, Homes, Owner},
        },
    };
    use serde_json::json;

    fn tenant() -> Tenant {
        Tenant {
            format: FORMAT,
            tenant_id: "acme".into(),
            incarnation: Incarnation::random(),
            display_name: "Old".into(),
            plan: "basic".into(),
            segments: Vec::new(),
            owner: Owner {
                name: "Ann".into(),
                email: "ann@example.com".into(),
                ..Owner::default()
            },
            labels: [
                ("env".to_owned(), "test".to_owned()),
                ("a.b".to_owned(), "c".to_owned()),
            ]
            .into(),
            settings: serde_json::from_value(
                json!({"ui": {"theme": "dark", "size": 2.0}, "beta": true}),
            )
            .unwrap(),
            quotas: Quotas {
                memory_bytes: Some(1),
                cache_entries: Some(2),
                ..Quotas::default()
            },
            homes: Homes::default(),
            encryption: None,
            delete_protection: true,
            suspension: None,
            create_ms: 0,
            update_ms: 0,
            delete_ms: None,
            purge_ms: None,
            purging: false,
            etag: "e".into(),
        }
    }

    fn profile() -> Profile {
        Profile {
            display_name: "New".into(),
            owner: Some(Owner {
                name: "Bob".into(),
                ..Owner::default()
            }),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            settings: Some(serde_json::from_value(json!({"ui": {"theme": "light"}})).unwrap()),
            quotas: Some(Quotas {
                memory_bytes: Some(9),
                custom: [(
                    "mails".to_owned(),
                    CustomQuota {
                        limit: 3,
                        window_ms: None,
                    },
                )]
                .into(),
                modes: [("mails".to_owned(), Mode::Warn)].into(),
                ..Quotas::default()
            }),
            ..Profile::default()
        }
    }

    fn masked(paths: &[&str]) -> Tenant {
        let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
        let mut tenant = tenant();
        Mask::parse(&paths, &profile())
            .unwrap()
            .apply(&profile(), "free", &mut tenant);
        tenant
    }

    #[test]
    fn a_path_changes_its_field_and_nothing_else() {
        type Expect = fn(&mut Tenant);
        let cases: &[(&str, Expect)] = &[
            ("display_name", |t| t.display_name = "New".into()),
            ("plan", |t| t.plan = "free".into()),
            ("owner", |t| {
                t.owner = Owner {
                    name: "Bob".into(),
                    ..Owner::default()
                }
            }),
            ("owner.name", |t| t.owner.name = "Bob".into()),
            ("owner.email", |t| t.owner.email = String::new()),
            ("labels", |t| {
                t.labels = [("env".to_owned(), "prod".to_owned())].into()
            }),
            ("labels.env", |t| {
                drop(t.labels.insert("env".into(), "prod".into()))
            }),
            ("labels.a.b", |t| drop(t.labels.remove("a.b"))),
            ("labels.`a.b`", |t| drop(t.labels.remove("a.b"))),
            ("labels.none", |_| ()),
            ("settings", |t| {
                t.settings = serde_json::from_value(json!({"ui": {"theme": "light"}})).unwrap()
            }),
            ("settings.ui.theme", |t| {
                *t.settings.get_mut("ui").unwrap().get_mut("theme").unwrap() = json!("light")
            }),
            ("settings.ui.size", |t| {
                drop(
                    t.settings
                        .get_mut("ui")
                        .unwrap()
                        .as_object_mut()
                        .unwrap()
                        .remove("size"),
                );
            }),
            ("settings.beta", |t| drop(t.settings.remove("beta"))),
            ("settings.none.deep", |_| ()),
            ("quotas", |t| t.quotas = profile().quotas.unwrap()),
            ("quotas.memory_bytes", |t| t.quotas.memory_bytes = Some(9)),
            ("quotas.cache_entries", |t| t.quotas.cache_entries = None),
            ("quotas.custom.mails", |t| {
                t.quotas.custom = profile().quotas.unwrap().custom
            }),
            ("quotas.modes.mails", |t| {
                t.quotas.modes = profile().quotas.unwrap().modes
            }),
            ("delete_protection", |t| t.delete_protection = false),
        ];
        for (path, expect) in cases {
            let mut expected = tenant();
            expect(&mut expected);
            expected.incarnation = masked(&[path]).incarnation;
            let mut found = masked(&[path]);
            found.incarnation = expected.incarnation;
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_star_replaces_all_and_an_empty_mask_what_is_set() {
        let all = masked(&["*"]);
        assert_eq!(
            (all.display_name.as_str(), all.plan.as_str()),
            ("New", "free")
        );
        assert_eq!(all.labels.len(), 1);
        assert!(!all.delete_protection);
        let set = masked(&[]);
        assert_eq!(
            (set.display_name.as_str(), set.plan.as_str()),
            ("New", "basic")
        );
        assert!(set.delete_protection);
        assert_eq!(set.quotas.cache_entries, None);
    }

    #[test]
    fn every_unknown_path_is_named() {
        let unknown = [
            "",
            "tenant_id",
            "etag",
            "state",
            "owner.phone",
            "labels.",
            "settings.",
            "settings..a",
            "settings.`a",
            "settings.`a`b",
            "quotas.cpu",
            "quotas.custom.",
            "quotas.memory_bytes.x",
            "display_name.x",
            "*",
            "Plan",
        ];
        let mut paths: Vec<String> = unknown.iter().map(|p| (*p).to_owned()).collect();
        paths.push("plan".into());
        let Err(Error::InvalidFieldMask(found)) = Mask::parse(&paths, &profile()) else {
            unreachable!()
        };
        assert_eq!(found.len(), unknown.len());
        assert_eq!(
            found.last().unwrap().field,
            format!("update_mask.paths[{}]", unknown.len() - 1)
        );
    }

    #[test]
    fn names_in_backticks_may_hold_dots() {
        assert_eq!(names_of("a.`b.c`.d").unwrap(), ["a", "b.c", "d"]);
        assert_eq!(names_of("`a`").unwrap(), ["a"]);
    }
}
