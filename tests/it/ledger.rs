//! What one writer was told of its own writes, and whether that still holds. It
//! does not know whom it writes to, nor what happened to them meanwhile.

use std::collections::BTreeMap;

/// Names of one writer; few, so that each is written, removed and written again.
const NAMES: u64 = 10;
/// Values that begin so may be gone at any time.
const BRIEF: &str = "brief";

/// One writer's writes, in order, and what is known of each of its names.
pub struct Ledger {
    writer: usize,
    written: u64,
    /// The highest version it was told.
    highest: u64,
    names: BTreeMap<String, Known>,
}

/// A write of a writer.
#[derive(Clone, Debug)]
pub struct Deed {
    pub name: String,
    /// What is put; `None` removes.
    pub value: Option<String>,
    /// How long it lives, in milliseconds; `None` is longer than any test.
    pub ttl_ms: Option<u64>,
}

/// What must be, or may be, under a name.
#[derive(Default)]
struct Known {
    /// What was acknowledged last: the version and the value, or nothing.
    told: Option<(u64, String)>,
    /// What may have come after it: puts, and removals as `None`.
    open: Vec<Option<String>>,
}

impl Ledger {
    pub fn new(writer: usize) -> Self {
        let names = (0..NAMES).map(|name| (format!("w{writer}-{name}"), Known::default()));
        Self {
            writer,
            written: 0,
            highest: 0,
            names: names.collect(),
        }
    }

    /// The names it writes.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// What to write next. No value is written twice.
    pub fn next(&mut self) -> Deed {
        let number = self.written;
        self.written += 1;
        let value = |life: &str| {
            let filling = "x".repeat(number as usize * 13 % 300);
            Some(format!("{life} {}:{number} {filling}", self.writer))
        };
        // Kinds and names take turns at different lengths, so that every name
        // meets every kind.
        let (value, ttl_ms) = match number % 7 {
            0 | 3 => (None, None),
            1 => (value(BRIEF), Some(1 + number % 90)),
            2 => (value("long"), Some(3_600_000)),
            _ => (value("plain"), None),
        };
        Deed {
            name: format!("w{}-{}", self.writer, number % NAMES),
            value,
            ttl_ms,
        }
    }

    /// It was acknowledged; a put with this version.
    pub fn acknowledged(&mut self, deed: Deed, version: u64) {
        let told = deed.value.map(|value| {
            assert!(
                version > self.highest,
                "{} of {deed:?}",
                version,
                deed = deed.name
            );
            self.highest = version;
            (version, value)
        });
        let open = Vec::new();
        self.names.insert(deed.name, Known { told, open });
    }

    /// It happened, or it did not.
    pub fn unknown(&mut self, deed: Deed) {
        self.names
            .get_mut(&deed.name)
            .unwrap()
            .open
            .push(deed.value);
    }

    /// Compares with what is there now, under [`Ledger::names`], and takes that
    /// as known from now on.
    pub fn settle(&mut self, found: Vec<Option<(u64, String)>>) {
        assert_eq!(found.len(), self.names.len());
        for ((name, known), found) in self.names.iter_mut().zip(found) {
            let holds = match &found {
                None => known.may_be_absent(),
                Some((version, value)) => {
                    known.told == found
                        || (known.open.iter().flatten().any(|open| open == value)
                            && known.told.as_ref().is_none_or(|told| *version > told.0))
                }
            };
            assert!(
                holds,
                "{name} is {found:?}; acknowledged was {:?}, and not known {:?}",
                known.told, known.open
            );
            self.highest = self.highest.max(found.as_ref().map_or(0, |found| found.0));
            *known = Known {
                told: found,
                open: Vec::new(),
            };
        }
    }
}

impl Known {
    fn may_be_absent(&self) -> bool {
        let gone = |value: &String| value.starts_with(BRIEF);
        self.told.as_ref().is_none_or(|(_, value)| gone(value))
            || self.open.iter().any(|open| open.as_ref().is_none_or(gone))
    }
}

#[test]
#[should_panic(expected = "acknowledged was")]
fn a_lost_write_is_noticed() {
    let mut ledger = Ledger::new(0);
    let plain = Deed {
        name: "w0-0".into(),
        value: Some("plain".into()),
        ttl_ms: None,
    };
    ledger.acknowledged(plain, 1);
    ledger.settle(vec![None; 10]);
}

#[test]
#[should_panic(expected = "acknowledged was")]
fn a_lost_removal_is_noticed() {
    let mut ledger = Ledger::new(0);
    let mut found = vec![None; 10];
    found[0] = Some((1, "plain".into()));
    ledger.settle(found);
}
