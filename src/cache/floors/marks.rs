//! The floors of one namespace. It does not know which namespace, nor how many
//! floors there may be.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::NEXT;

/// The floors of a namespace; 0 is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marks {
    /// Of every entry.
    pub(super) all: u64,
    /// Of every entry that has a tag.
    pub(super) tagged: u64,
    pub(super) prefixes: BTreeMap<Box<str>, u64>,
    pub(super) tags: BTreeMap<Box<str>, u64>,
    /// The lengths of the prefixes: all that a key has to be tried with.
    #[serde(skip)]
    pub(super) lengths: BTreeSet<usize>,
    /// The highest floor of a tag.
    #[serde(skip)]
    pub(super) highest_tag: u64,
}

impl Marks {
    pub(super) fn above(&self, key: &[u8]) -> u64 {
        let begins = self.lengths.iter().filter_map(|&length| {
            let prefix = str::from_utf8(key.get(..length)?).ok()?;
            self.prefixes.get(prefix).copied()
        });
        begins.fold(self.all, u64::max)
    }

    pub(super) fn cover(&self, others: &Self) -> bool {
        let mut prefixes = others.prefixes.iter();
        let mut tags = others.tags.iter();
        let tagged = self.all.max(self.tagged);
        let of_tag = |tag| {
            self.tags
                .get(tag)
                .map_or(tagged, |floor| tagged.max(*floor))
        };
        self.all >= others.all
            && tagged >= others.tagged
            && prefixes.all(|(prefix, floor)| self.above(prefix.as_bytes()) >= *floor)
            && tags.all(|(tag, floor)| of_tag(tag) >= *floor)
    }

    pub(super) fn tags_above(&self, tags: &[impl AsRef<str>]) -> u64 {
        if tags.is_empty() {
            return 0;
        }
        let floors = tags.iter().filter_map(|tag| self.tags.get(tag.as_ref()));
        floors.copied().fold(self.tagged, u64::max)
    }

    /// Takes away the floors up to this version.
    pub(super) fn split_off(&mut self, version: u64) -> Self {
        let low = |floor: &mut u64| {
            if *floor <= version {
                std::mem::take(floor)
            } else {
                0
            }
        };
        let mut lower = Self {
            all: low(&mut self.all),
            tagged: low(&mut self.tagged),
            ..Self::default()
        };
        for (from, to) in [
            (&mut self.prefixes, &mut lower.prefixes),
            (&mut self.tags, &mut lower.tags),
        ] {
            from.retain(|text, floor| {
                let stays = *floor > version;
                if !stays {
                    to.insert(text.clone(), *floor);
                }
                stays
            });
        }
        self.measure();
        lower.measure();
        lower
    }

    /// Takes others in.
    pub(super) fn join(&mut self, others: Self) {
        self.all = self.all.max(others.all);
        self.tagged = self.tagged.max(others.tagged);
        for (to, from) in [
            (&mut self.prefixes, others.prefixes),
            (&mut self.tags, others.tags),
        ] {
            for (text, floor) in from {
                let held = to.entry(text).or_default();
                *held = floor.max(*held);
            }
        }
        self.measure();
    }

    /// Everything goes, so that no other floor hides more.
    pub(super) fn raise_all(&mut self) {
        *self = Self {
            all: NEXT,
            ..Self::default()
        };
    }

    pub(super) fn floors_mut(&mut self) -> impl Iterator<Item = &mut u64> {
        [&mut self.all, &mut self.tagged]
            .into_iter()
            .chain(self.prefixes.values_mut())
            .chain(self.tags.values_mut())
    }

    pub(super) fn measure(&mut self) {
        self.lengths = self.prefixes.keys().map(|prefix| prefix.len()).collect();
        self.highest_tag = self.tags.values().copied().fold(self.tagged, u64::max);
    }
}
