//! Which settings a reload can put in force, and which need a restart. It does not
//! know how either is done.

/// When a setting that was changed is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// After a reload, while the server runs.
    Reload,
    /// After a restart.
    Restart,
}

impl Effect {
    /// Its name: `reload` or `restart`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

/// The one list: each setting goes by the longest of these paths that it is, or is
/// under. A new setting needs a place here, and where it is reloaded, whoever uses
/// it must look at it anew.
const EFFECTS: &[(&str, Effect)] = &[
    ("audit", Effect::Reload),
    ("auth", Effect::Reload),
    ("auth.admin_key", Effect::Restart),
    ("billing", Effect::Reload),
    // The months that are not closed yet would be billed in another one.
    ("billing.currency", Effect::Restart),
    ("cache", Effect::Reload),
    // The connections that are told of changes are opened with the store.
    ("cache.near.enabled", Effect::Restart),
    ("cache.warm_start", Effect::Restart),
    ("checkpoint", Effect::Reload),
    // The object store is opened with the server.
    ("checkpoint.url", Effect::Restart),
    ("drain", Effect::Reload),
    ("encryption", Effect::Reload),
    ("log", Effect::Reload),
    ("log.format", Effect::Restart),
    ("metrics", Effect::Reload),
    ("reload", Effect::Reload),
    // Listeners, threads and connections are as they were made.
    ("server", Effect::Restart),
    ("server.admin_tls", Effect::Reload),
    ("server.tls", Effect::Reload),
    ("session", Effect::Reload),
    ("store", Effect::Restart),
    ("redis", Effect::Restart),
    ("redis.tls", Effect::Reload),
    ("tenant", Effect::Reload),
    // The exporter is started with the server.
    ("trace", Effect::Restart),
    ("trace.sample_ratio", Effect::Reload),
];

/// A setting that can be reloaded, but never beyond one that cannot be: where the
/// second is changed too, the first may have to wait for it.
pub(super) const BOUND: [(&str, &str); 1] = [("cache.max_value_bytes", "server.max_message_bytes")];

/// When a setting that was changed is in force; `None` for a path of which that was
/// never said.
pub fn effect(path: &str) -> Option<Effect> {
    let under = |section: &str| {
        let rest = path.strip_prefix(section)?;
        (rest.is_empty() || rest.starts_with('.')).then_some(section.len())
    };
    let known = EFFECTS
        .iter()
        .filter_map(|(section, effect)| Some((under(section)?, *effect)));
    known.max_by_key(|(length, _)| *length).map(|known| known.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_tells() {
        assert_eq!(effect("auth.key_cache_ttl"), Some(Effect::Reload));
        assert_eq!(effect("auth.admin_key"), Some(Effect::Restart));
        assert_eq!(effect("tenant.plans.gold.quotas"), Some(Effect::Reload));
        assert_eq!(effect("authority"), None);
        assert_eq!(effect(""), None);
    }
}
