//! Update masks: which fields of a session a change sets. It does not know whether the
//! values are allowed.

use super::{Session, Update};
use crate::{
    error::Result,
    tenant::mask::{find, known, names_of, set, unquoted},
};

enum Path {
    Data,
    /// A value inside the data, by the names on the way to it.
    Datum(Vec<String>),
    Attributes,
    Attribute(String),
    IdleTimeout,
}

const ALLOWED: &str =
    "allowed are data, data.<name>, attributes, attributes.<name>, idle_timeout, and * alone";

/// The fields a change sets, in the order of the mask.
pub(super) struct Mask(Vec<Path>);

impl Mask {
    /// Reads a mask. `*` means every field; an empty mask those that `update` sets.
    ///
    /// # Errors
    /// [`Error::InvalidFieldMask`] naming every path that is no field a caller can
    /// change.
    pub(super) fn of(update: &Update) -> Result<Self> {
        let fields = [
            (update.data.is_some(), Path::Data),
            (!update.attributes.is_empty(), Path::Attributes),
            (update.idle_ms.is_some(), Path::IdleTimeout),
        ];
        let all = match &update.mask[..] {
            [] => false,
            [star] if star == "*" => true,
            paths => return Ok(Self(known(paths, Path::parse, ALLOWED)?)),
        };
        let set = fields.into_iter().filter(|(set, _)| all || *set);
        Ok(Self(set.map(|(_, path)| path).collect()))
    }

    /// Sets the masked fields of a session to what the update has; what it does not have
    /// is removed, and an idle_timeout becomes this one.
    pub(super) fn apply(&self, update: &Update, default_idle_ms: u64, session: &mut Session) {
        let none = serde_json::Map::new();
        let data = update.data.as_ref().unwrap_or(&none);
        for path in &self.0 {
            match path {
                Path::Data => session.data.clone_from(data),
                Path::Datum(names) => set(&mut session.data, names, find(data, names)),
                Path::Attributes => session.attributes.clone_from(&update.attributes),
                Path::Attribute(name) => match update.attributes.get(name) {
                    Some(value) => drop(session.attributes.insert(name.clone(), value.clone())),
                    None => drop(session.attributes.remove(name)),
                },
                Path::IdleTimeout => session.idle_ms = update.idle_ms.unwrap_or(default_idle_ms),
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
            ("data", None) => Self::Data,
            ("data", Some(names)) => Self::Datum(names_of(names)?),
            ("attributes", None) => Self::Attributes,
            // An attribute's name may hold dots itself.
            ("attributes", Some(name)) if !name.is_empty() => {
                Self::Attribute(unquoted(name).to_owned())
            }
            ("idle_timeout", None) => Self::IdleTimeout,
            _ => return None,
        })
    }
}
