//! A record as a checkpoint holds it: what the store held, with its path, version
//! and expiry. It does not know how it is packed.
//!
//! In a block a record is, numbers in little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind, a letter |
//! | 1 | flags: 1 it expires |
//! | 8 | version |
//! | 8 | expire time, ms since 1970; only where it expires |
//! | 2 | bytes of the path |
//! | 4 | bytes of the value |
//! | | the path, the value |

use bytes::{Buf, BufMut, Bytes};

use super::Damage;
use crate::store::Table;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A record of a table, as the store held it.
    Table(Table),
    /// The meters of a space in one unit of time: the path is the space's name
    /// (`cache`, `sessions`), `:` and the unit; the value is JSON.
    Meters,
    /// A row of counters of a meter space: the path is its name; the value is JSON.
    Row,
    /// A setting: the path is its path; the value is JSON.
    Setting,
    /// An event of RecordUsage that is counted in rows: the path is its id; it expires
    /// when it is forgotten. Only in checkpoints of format 2.
    Event,
}

impl Kind {
    /// The letter of a kind that is no table's.
    const OTHERS: [(Self, u8); 4] = [
        (Self::Meters, b'M'),
        (Self::Row, b'R'),
        (Self::Setting, b'S'),
        (Self::Event, b'E'),
    ];

    fn letter(self) -> u8 {
        match self {
            // Marks are one letter, lower case.
            Self::Table(table) => table.mark().bytes().next().unwrap_or(0),
            Self::Meters => b'M',
            Self::Row => b'R',
            Self::Setting => b'S',
            Self::Event => b'E',
        }
    }

    fn of(letter: u8) -> Option<Self> {
        let others = Self::OTHERS.into_iter();
        let tables = Table::ALL.map(Self::Table).into_iter();
        others
            .map(|(kind, _)| kind)
            .chain(tables)
            .find(|kind| kind.letter() == letter)
    }
}

/// A record of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Its path in the table, at most 65,535 bytes.
    pub path: Bytes,
    /// The version it had.
    pub version: u64,
    /// When it ends, by the store's clock, in ms since 1970.
    pub expire_ms: Option<u64>,
    /// Its value as it was stored: a cache entry's is its frame, still sealed where the
    /// tenant is encrypted.
    pub value: Bytes,
}

const EXPIRES: u8 = 1;
const FIXED_BYTES: usize = 16;

impl Record {
    /// Its bytes as they are counted: those of path and value.
    pub fn bytes(&self) -> u64 {
        (self.path.len() + self.value.len()) as u64
    }

    /// Bytes that [`Record::encode`] appends.
    pub fn encoded_bytes(&self) -> usize {
        let expiry = self.expire_ms.map_or(0, |_| 8);
        FIXED_BYTES + expiry + self.path.len() + self.value.len()
    }

    /// Appends it to a block.
    ///
    /// # Errors
    /// [`Damage`] for a path or a value longer than the format can say.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Damage> {
        let path_bytes = u16::try_from(self.path.len());
        let value_bytes = u32::try_from(self.value.len());
        let (Ok(path_bytes), Ok(value_bytes)) = (path_bytes, value_bytes) else {
            return Err(Damage::new("a record is too long"));
        };
        out.reserve(self.encoded_bytes());
        out.put_u8(self.kind.letter());
        out.put_u8(self.expire_ms.map_or(0, |_| EXPIRES));
        out.put_u64_le(self.version);
        if let Some(expire_ms) = self.expire_ms {
            out.put_u64_le(expire_ms);
        }
        out.put_u16_le(path_bytes);
        out.put_u32_le(value_bytes);
        out.extend_from_slice(&self.path);
        out.extend_from_slice(&self.value);
        Ok(())
    }

    /// Takes one from the beginning of a block; what it holds is a slice of it.
    ///
    /// # Errors
    /// [`Damage`] where there is none.
    pub fn decode(block: &mut Bytes) -> Result<Self, Damage> {
        let cut_off = |_| Damage::new("a record is cut off");
        let letter = block.try_get_u8().map_err(cut_off)?;
        let kind = Kind::of(letter)
            .ok_or_else(|| Damage::new(format!("a record is of an unknown kind {letter:#04x}")))?;
        let flags = block.try_get_u8().map_err(cut_off)?;
        if flags & !EXPIRES != 0 {
            return Err(Damage::new(format!(
                "a record has unknown flags {flags:#04x}"
            )));
        }
        let version = block.try_get_u64_le().map_err(cut_off)?;
        let expire_ms = match flags & EXPIRES {
            0 => None,
            _ => Some(block.try_get_u64_le().map_err(cut_off)?),
        };
        let path_bytes = usize::from(block.try_get_u16_le().map_err(cut_off)?);
        let value_bytes = block.try_get_u32_le().map_err(cut_off)? as usize;
        let whole = path_bytes.saturating_add(value_bytes);
        if block.len() < whole {
            return Err(Damage::new("a record is cut off"));
        }
        let path = block.split_to(path_bytes);
        let value = block.split_to(value_bytes);
        Ok(Self {
            kind,
            path,
            version,
            expire_ms,
            value,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any record.
    pub(in crate::state::checkpoint) fn record() -> impl Strategy<Value = Record> {
        let kinds: Vec<Kind> = Table::ALL
            .map(Kind::Table)
            .into_iter()
            .chain(Kind::OTHERS.map(|(kind, _)| kind))
            .collect();
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        (
            prop::sample::select(kinds),
            bytes(40),
            any::<u64>(),
            any::<Option<u64>>(),
            bytes(300),
        )
            .prop_map(|(kind, path, version, expire_ms, value)| Record {
                kind,
                path: path.into(),
                version,
                expire_ms,
                value: value.into(),
            })
    }

    #[test]
    fn each_kind_has_a_letter_of_its_own() {
        let kinds = Table::ALL.map(Kind::Table).into_iter();
        for kind in kinds.chain(Kind::OTHERS.map(|(kind, _)| kind)) {
            assert_eq!(Kind::of(kind.letter()), Some(kind));
        }
        assert_eq!(Kind::of(b'?'), None);
    }

    proptest! {
        #[test]
        fn records_come_back_in_order(records in prop::collection::vec(record(), 0..20)) {
            let mut block = Vec::new();
            for record in &records {
                let before = block.len();
                record.encode(&mut block).unwrap();
                prop_assert_eq!(block.len() - before, record.encoded_bytes());
            }
            let mut block = Bytes::from(block);
            for record in records {
                prop_assert_eq!(Record::decode(&mut block).unwrap(), record);
            }
            prop_assert!(block.is_empty());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut block = Bytes::from(bytes);
            while !block.is_empty() && Record::decode(&mut block).is_ok() {}
        }
    }
}
