//! Which changes a watcher is told of: those in the namespaces it names, as far as
//! its key reaches. It does not know how they came about.

use crate::{
    cache::{Change, rules},
    error::{Result, Violations},
    tenant::Tenancy,
};

/// Namespaces that a watcher can name.
const MAX_NAMESPACES: usize = 100;

/// What a watcher sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The namespaces, sorted; none means all.
    namespaces: Vec<String>,
    /// The beginnings of keys, none of which begins another; none means all keys.
    prefixes: Vec<String>,
}

impl Reach {
    /// What a call may see that names these namespaces; none means all that it may.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::error::Error::Invalid) with every violation;
    /// [`Error::ScopeMissing`](crate::error::Error::ScopeMissing) for a namespace
    /// that its key does not reach.
    pub fn new(tenancy: &Tenancy, namespaces: &[String]) -> Result<Self> {
        let mut violations = Violations::default();
        if namespaces.len() > MAX_NAMESPACES {
            let allowed = format!(
                "{} items, at most {MAX_NAMESPACES} are allowed",
                namespaces.len()
            );
            violations.add("namespaces", allowed);
        }
        for (index, namespace) in namespaces.iter().take(MAX_NAMESPACES).enumerate() {
            rules::watched_namespace(namespace, index, &mut violations);
        }
        violations.check()?;
        for namespace in namespaces {
            tenancy.reach_namespace(namespace)?;
        }
        let mut reach = Self {
            namespaces: namespaces.to_vec(),
            prefixes: Vec::new(),
        };
        if let Some(grant) = &tenancy.confined {
            if namespaces.is_empty() {
                reach.namespaces = grant.namespaces.clone();
            }
            let longer = |prefix: &&String| {
                let begins =
                    |other: &String| other != *prefix && prefix.starts_with(other.as_str());
                !grant.key_prefixes.iter().any(begins)
            };
            reach.prefixes = grant.key_prefixes.iter().filter(longer).cloned().collect();
        }
        for list in [&mut reach.namespaces, &mut reach.prefixes] {
            list.sort();
            list.dedup();
        }
        Ok(reach)
    }

    /// The namespaces, sorted; none means all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// A change as the watcher learns of it. What reaches beyond its keys is told as
    /// far as they go; of a tag, which may be others' alone, all that they reach.
    pub(super) fn visible(&self, change: &Change) -> impl Iterator<Item = Change> + use<> {
        self.shown(change).into_iter()
    }

    fn shown(&self, change: &Change) -> Vec<Change> {
        let of = match change {
            Change::Tenant => return vec![Change::Tenant],
            Change::Namespace(of)
            | Change::Prefix(of, _)
            | Change::Tags(of, _)
            | Change::Keys(of, _) => of,
        };
        if !self.namespaces.is_empty() && self.namespaces.binary_search(of).is_err() {
            return Vec::new();
        }
        if self.prefixes.is_empty() {
            return vec![change.clone()];
        }
        let own = |prefix: &String| Change::Prefix(of.clone(), prefix.clone());
        match change {
            Change::Keys(_, keys) => {
                let keys = keys.iter().filter(|key| self.holds(key));
                let keys: Vec<String> = keys.cloned().collect();
                let seen = (!keys.is_empty()).then(|| Change::Keys(of.clone(), keys));
                seen.into_iter().collect()
            }
            Change::Prefix(_, prefix) if self.holds(prefix) => vec![change.clone()],
            Change::Prefix(_, prefix) => {
                let within = self
                    .prefixes
                    .iter()
                    .filter(|own| own.starts_with(prefix.as_str()));
                within.map(own).collect()
            }
            Change::Tags(..) => self.prefixes.iter().map(own).collect(),
            Change::Namespace(_) | Change::Tenant => vec![change.clone()],
        }
    }

    fn holds(&self, key: &str) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| key.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn keys(items: &[&str]) -> Change {
        Change::Keys("n".into(), texts(items))
    }

    fn prefix(text: &str) -> Change {
        Change::Prefix("n".into(), text.into())
    }

    #[test]
    fn a_watcher_sees_what_its_key_reaches_and_no_more() {
        let confined = Reach {
            namespaces: texts(&["m", "n"]),
            prefixes: texts(&["a:", "b:"]),
        };
        let tags = || Change::Tags("n".into(), texts(&["t"]));
        let whole = || Change::Namespace("n".into());
        for (change, seen) in [
            (keys(&["a:1", "c:1", "b:2"]), vec![keys(&["a:1", "b:2"])]),
            (keys(&["c:1", "a"]), vec![]),
            (prefix("a:1"), vec![prefix("a:1")]),
            (prefix("a"), vec![prefix("a:")]),
            (prefix(""), vec![prefix("a:"), prefix("b:")]),
            (prefix("c"), vec![]),
            (tags(), vec![prefix("a:"), prefix("b:")]),
            (whole(), vec![whole()]),
            (Change::Tenant, vec![Change::Tenant]),
            (Change::Namespace("o".into()), vec![]),
            (Change::Keys("o".into(), texts(&["a:1"])), vec![]),
        ] {
            assert_eq!(confined.shown(&change), seen, "{change:?}");
        }
        let all = Reach::default();
        for change in [keys(&["k"]), prefix("p"), tags(), whole(), Change::Tenant] {
            assert_eq!(all.shown(&change), vec![change]);
        }
    }
}
