//! The frame of a cache entry: a head of fixed size, the attributes (content
//! type and tags), and the payload. It does not know the entry's version or
//! expiry, nor whose its place is.
//!
//! Format 1 is in the clear, format 2 is sealed; numbers in little endian:
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 1 | magic, 0xF5: never the first byte of UTF-8 |
//! | 1 | 1 | format, 1 or 2 |
//! | 2 | 1 | flags: 1 compressed |
//! | 3 | 6 | create time, ms since 1970 |
//! | 9 | 4 | bytes of the value |
//! | 13 | 2 | bytes of the attributes |
//! | 15 | 4 | format 1: CRC-32 of bytes 0 to 14 and of all from 21 on; format 2: number of the data key |
//! | 19 | 2 | low half of the CRC-32 of bytes 0 to 18 |
//! | 21 | | attributes: none, or content type, then the tags; each a length (1 byte) and its bytes |
//! | | | payload; in format 2 a nonce (24 bytes), the payload sealed, and its tag (16 bytes) |
//!
//! The head has a check of its own, since a listing reads nothing else. A frame
//! of another format is skipped as a miss, so that replicas of two versions can
//! share a store; a release that knows no sealed frames meets them so, too.
//!
//! What is sealed is the payload alone: head and attributes are told without a key,
//! so that entries can be listed, and found by their tags, by whoever may not read
//! them. Nothing of either can be changed, nor the frame moved to another place,
//! without the payload refusing to open. An older frame of the same place opens.

use bytes::{Buf, BufMut, Bytes};

use super::{
    compress,
    seal::{Keyring, NONCE_BYTES, OVERHEAD_BYTES, Place},
};
use crate::{
    config::Compression,
    error::{Error, Result},
};

/// Bytes of the head; all that [`Head::decode`] needs.
pub const HEAD_BYTES: usize = 21;

/// Bytes a content type or a tag can have in a frame.
pub const MAX_ATTRIBUTE_BYTES: usize = u8::MAX as usize;

/// Bytes that content type and tags can have together, each with its length.
pub const MAX_ATTRIBUTES_BYTES: usize = u16::MAX as usize;

const MAGIC: u8 = 0xf5;
const CLEAR: u8 = 1;
const SEALED: u8 = 2;
const COMPRESSED: u8 = 1;
/// What the check of the whole frame covers of the head.
const FIELDS_BYTES: usize = 15;
const MAX_CREATE_MS: u64 = (1 << 48) - 1;

/// What goes into a frame.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Its media type; empty means none.
    pub content_type: &'a str,
    /// Its tags, none of them empty.
    pub tags: &'a [String],
    /// When it was set, in milliseconds since 1970 by the store's clock.
    pub create_ms: u64,
}

/// A frame, and what its payload takes.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The whole frame.
    pub bytes: Bytes,
    /// Bytes of the payload, after compression.
    pub stored_bytes: u64,
}

/// What came out of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The value as it was set: a slice of the frame, unless it was compressed.
    pub value: Bytes,
    /// Bytes of the payload, after compression.
    pub stored_bytes: u64,
    /// The media type; empty means none.
    pub content_type: String,
    /// The tags.
    pub tags: Vec<String>,
    /// When it was set, in milliseconds since 1970 by the store's clock.
    pub create_ms: u64,
}

/// What the head of a frame tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the value as it was set.
    pub size_bytes: u64,
    /// When it was set, in milliseconds since 1970 by the store's clock.
    pub create_ms: u64,
    /// Whether the payload is compressed.
    pub compressed: bool,
    /// The number of the data key that sealed it; `None` where it is in the clear.
    pub data_key: Option<u32>,
    attributes_bytes: u16,
    /// Of a frame in the clear.
    check: u32,
}

impl Entry<'_> {
    /// The entry's frame for its place, built in one allocation. An error where a
    /// size does not fit the format: [`MAX_ATTRIBUTE_BYTES`],
    /// [`MAX_ATTRIBUTES_BYTES`], 4 GiB of value; [`Error::ConditionNotMet`] where it
    /// is to be sealed and cannot be.
    pub fn encode(&self, compression: &Compression, place: &Place<'_>) -> Result<Encoded> {
        let value_bytes = u32::try_from(self.value.len()).map_err(|_| Error::EntryTooLarge {
            bytes: self.value.len() as u64,
            limit: u64::from(u32::MAX),
        })?;
        let attributes_bytes = self.attributes_bytes()?;
        let sealing = place.keyring.map(Keyring::sealing).transpose()?;
        let start = HEAD_BYTES + usize::from(attributes_bytes);
        let overhead = sealing.map_or(0, |_| OVERHEAD_BYTES);

        let room = start + compress::room(self.value.len(), compression) + overhead;
        let mut out = Vec::with_capacity(room);
        out.resize(HEAD_BYTES, 0);
        if attributes_bytes > 0 {
            push_attribute(&mut out, self.content_type);
            self.tags
                .iter()
                .for_each(|tag| push_attribute(&mut out, tag));
        }
        let nonce_bytes = sealing.map_or(0, |_| NONCE_BYTES);
        out.resize(start + nonce_bytes, 0);
        let compressed = compress::append(self.value, &mut out, compression);
        let stored_bytes = (out.len() - start - nonce_bytes) as u64;

        let head = Head {
            size_bytes: u64::from(value_bytes),
            create_ms: self.create_ms.min(MAX_CREATE_MS),
            compressed,
            data_key: sealing.map(|(id, _)| id),
            attributes_bytes,
            check: 0,
        };
        if let Some((room, body)) = out.split_first_chunk_mut::<HEAD_BYTES>() {
            head.encode(room, body);
        }
        if let Some((_, key)) = sealing {
            let (head, rest) = out.split_at(HEAD_BYTES);
            let (attributes, _) = rest.split_at(attributes_bytes.into());
            let bound = place.bound(head, attributes);
            key.seal(&bound, &mut out, start)?;
        }
        Ok(Encoded {
            bytes: out.into(),
            stored_bytes,
        })
    }

    fn attributes_bytes(&self) -> Result<u16> {
        if self.content_type.is_empty() && self.tags.is_empty() {
            return Ok(0);
        }
        let too_long =
            |field, limit| Error::invalid(field, format!("at most {limit} bytes fit in an entry"));
        if self.content_type.len() > MAX_ATTRIBUTE_BYTES {
            return Err(too_long("content_type", MAX_ATTRIBUTE_BYTES));
        }
        if self
            .tags
            .iter()
            .any(|tag| tag.is_empty() || tag.len() > MAX_ATTRIBUTE_BYTES)
        {
            return Err(Error::invalid(
                "tags",
                format!("a tag has 1 to {MAX_ATTRIBUTE_BYTES} bytes"),
            ));
        }
        let bytes =
            self.tags.iter().map(|tag| 1 + tag.len()).sum::<usize>() + 1 + self.content_type.len();
        u16::try_from(bytes).map_err(|_| too_long("tags", MAX_ATTRIBUTES_BYTES))
    }
}

fn push_attribute(out: &mut Vec<u8>, text: &str) {
    // `attributes_bytes` has refused what is longer than a byte can say.
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

impl Head {
    /// Reads the head from the beginning of a frame; `None` where it is of
    /// another format. [`Error::EntryCorrupt`] where it is damaged.
    pub fn decode(frame: &[u8]) -> Result<Option<Self>> {
        match frame {
            [] => return Err(corrupt("it is empty")),
            [MAGIC, CLEAR | SEALED, ..] => {}
            [MAGIC, _, ..] => return Ok(None),
            [MAGIC] => return Err(truncated(frame.len())),
            _ => return Err(corrupt("it does not begin as an entry does")),
        }
        let Some(head) = frame.first_chunk::<HEAD_BYTES>() else {
            return Err(truncated(frame.len()));
        };
        let (checked, mut head_check) = head.split_at(HEAD_BYTES - 2);
        if crc32fast::hash(checked) as u16 != head_check.get_u16_le() {
            return Err(corrupt("the checksum of its head does not match"));
        }
        let (format, mut fields) = checked.split_at(2);
        let flags = fields.get_u8();
        if flags & !COMPRESSED != 0 {
            return Err(corrupt(format!("it has unknown flags {flags:#04x}")));
        }
        let (create_ms, size_bytes) = (fields.get_uint_le(6), fields.get_u32_le());
        let (attributes_bytes, last) = (fields.get_u16_le(), fields.get_u32_le());
        let sealed = format.ends_with(&[SEALED]);
        Ok(Some(Self {
            create_ms,
            size_bytes: size_bytes.into(),
            attributes_bytes,
            compressed: flags & COMPRESSED != 0,
            data_key: sealed.then_some(last),
            check: if sealed { 0 } else { last },
        }))
    }

    /// Writes the head into its room before `body`.
    fn encode(&self, room: &mut [u8; HEAD_BYTES], body: &[u8]) {
        let mut fields = room.as_mut_slice();
        fields.put_u8(MAGIC);
        fields.put_u8(self.data_key.map_or(CLEAR, |_| SEALED));
        fields.put_u8(if self.compressed { COMPRESSED } else { 0 });
        fields.put_uint_le(self.create_ms, 6);
        // `Entry::encode` has refused a value whose size does not fit.
        fields.put_u32_le(self.size_bytes as u32);
        fields.put_u16_le(self.attributes_bytes);

        let (fields, mut checks) = room.split_at_mut(FIELDS_BYTES);
        checks.put_u32_le(self.data_key.unwrap_or_else(|| check(fields, body)));
        let (checked, mut checks) = room.split_at_mut(HEAD_BYTES - 2);
        checks.put_u16_le(crc32fast::hash(checked) as u16);
    }
}

impl Frame {
    /// Opens the frame that was found at a place; `None` where it is of another
    /// format. `limit` bounds what a compressed payload may open to, in bytes,
    /// before anything is allocated for it. [`Error::EntryCorrupt`] says what is
    /// wrong with one that cannot be opened: a sealed one whose key cannot be had,
    /// or that was not sealed for this place, is one of them, and so is one that is
    /// not sealed where its tenant's are.
    pub fn decode(frame: &Bytes, limit: usize, place: &Place<'_>) -> Result<Option<Self>> {
        let Some(head) = Head::decode(frame)? else {
            return Ok(None);
        };
        // Head::decode has seen that it is not shorter.
        let (fields, rest) = frame.split_at(HEAD_BYTES);
        let cut_off = || truncated(frame.len());
        let (attributes, payload) = rest
            .split_at_checked(head.attributes_bytes.into())
            .ok_or_else(cut_off)?;
        let opened = match (head.data_key, place.keyring) {
            (None, None) => {
                let (fields, _) = fields.split_at(FIELDS_BYTES);
                if check(fields, rest) != head.check {
                    return Err(corrupt("its checksum does not match"));
                }
                None
            }
            (Some(id), Some(keyring)) => {
                let key = keyring.opening(id)?;
                let opened = key.open(&place.bound(fields, attributes), payload);
                let opened = opened.ok_or_else(|| {
                    corrupt("it was changed, or sealed for another place or by another key")
                })?;
                Some(opened)
            }
            (Some(_), None) => return Err(corrupt("it is sealed, and its tenant has no key")),
            (None, Some(_)) => return Err(corrupt("it is not sealed, as all of its tenant are")),
        };
        let payload = opened.as_deref().unwrap_or(payload);
        let (size, stored_bytes) = (head.size_bytes as usize, payload.len() as u64);
        let value = if head.compressed {
            if size > limit {
                return Err(corrupt(format!(
                    "it declares {size} bytes, at most {limit} are opened"
                )));
            }
            compress::expand(payload, size).map_err(corrupt)?.into()
        } else if payload.len() == size {
            match opened {
                Some(opened) => opened.into(),
                None => frame.slice(HEAD_BYTES + usize::from(head.attributes_bytes)..),
            }
        } else {
            return Err(corrupt(format!(
                "it declares {size} bytes and holds {}",
                payload.len()
            )));
        };
        let (content_type, tags) = read_attributes(attributes)?;
        Ok(Some(Self {
            value,
            stored_bytes,
            content_type,
            tags,
            create_ms: head.create_ms,
        }))
    }
}

/// The tags in a frame, of which the beginning will do; `None` where it is cut off
/// before they end, or of another format. They are not checked against the frame's
/// checksum.
///
/// # Errors
/// [`Error::EntryCorrupt`] where they cannot be read.
pub fn tags(frame: &[u8]) -> Result<Option<Vec<String>>> {
    let Some(head) = Head::decode(frame)? else {
        return Ok(None);
    };
    let end = HEAD_BYTES + usize::from(head.attributes_bytes);
    let Some(attributes) = frame.get(HEAD_BYTES..end) else {
        return Ok(None);
    };
    let (_, tags) = read_attributes(attributes)?;
    Ok(Some(tags))
}

fn read_attributes(mut bytes: &[u8]) -> Result<(String, Vec<String>)> {
    let mut next = || -> Result<Option<String>> {
        let Some((&length, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let (text, rest) = rest
            .split_at_checked(length.into())
            .ok_or_else(|| corrupt("its attributes are cut off"))?;
        bytes = rest;
        let text = str::from_utf8(text).map_err(|_| corrupt("its attributes are not UTF-8"))?;
        Ok(Some(text.to_owned()))
    };
    let content_type = next()?.unwrap_or_default();
    let mut tags = Vec::new();
    while let Some(tag) = next()? {
        tags.push(tag);
    }
    Ok((content_type, tags))
}

fn check(fields: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(fields);
    hasher.update(rest);
    hasher.finalize()
}

fn truncated(bytes: usize) -> Error {
    corrupt(format!("it is cut off at {bytes} bytes"))
}

fn corrupt(what: impl Into<String>) -> Error {
    Error::EntryCorrupt(what.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        codec::seal::{DataKey, Key},
        store::Incarnation,
    };

    const RULE: Compression = Compression {
        enabled: true,
        min_bytes: 64,
        min_saving_percent: 10,
    };
    const LIMIT: usize = 1 << 20;

    fn entry(value: &[u8]) -> Entry<'_> {
        Entry {
            value,
            content_type: "",
            tags: &[],
            create_ms: 1_790_000_000_123,
        }
    }

    /// A place of a tenant that seals nothing.
    fn here() -> Place<'static> {
        Place {
            incarnation: Incarnation::parse("0123456789abcdef").unwrap(),
            namespace: "default",
            key: "k",
            keyring: None,
        }
    }

    /// The data keys of this number and those before it, each of its own.
    fn ring(newest: u32) -> Keyring {
        let key = |id: u32| DataKey {
            id,
            key: Ok(Key::new(&[id as u8; 32])),
        };
        Keyring::new((1..=newest).map(key).collect())
    }

    /// The same place of a tenant that seals.
    fn vault(keyring: &Keyring) -> Place<'_> {
        Place {
            keyring: Some(keyring),
            ..here()
        }
    }

    fn seal(value: &[u8], place: &Place<'_>) -> Bytes {
        let tags = ["t".to_owned(), "u".repeat(9)];
        let entry = Entry {
            content_type: "text/plain",
            tags: &tags,
            ..entry(value)
        };
        entry.encode(&RULE, place).unwrap().bytes
    }

    fn encode(value: &[u8]) -> Bytes {
        entry(value).encode(&RULE, &here()).unwrap().bytes
    }

    /// The frame with its checks made right again, as a liar would write it.
    fn forged(mut frame: Vec<u8>) -> Bytes {
        let (fields, rest) = (frame[..FIELDS_BYTES].to_vec(), frame[HEAD_BYTES..].to_vec());
        frame[FIELDS_BYTES..FIELDS_BYTES + 4].copy_from_slice(&check(&fields, &rest).to_le_bytes());
        let head = crc32fast::hash(&frame[..HEAD_BYTES - 2]) as u16;
        frame[HEAD_BYTES - 2..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
        frame.into()
    }

    fn refusal(frame: &Bytes) -> String {
        match Frame::decode(frame, LIMIT, &here()) {
            Err(Error::EntryCorrupt(what)) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_plain_value_costs_a_head_and_is_not_copied_on_the_way_out() {
        let value: Vec<u8> = (0..60).collect();
        let frame = encode(&value);
        assert_eq!(frame.len(), value.len() + 21);
        let opened = Frame::decode(&frame, LIMIT, &here()).unwrap().unwrap();
        assert_eq!(opened.value, value);
        assert_eq!(opened.value.as_ptr(), frame[21..].as_ptr());
        assert_eq!(opened.create_ms, 1_790_000_000_123);
        assert_eq!((opened.content_type.as_str(), opened.tags.len()), ("", 0));
    }

    #[test]
    fn the_head_alone_tells_the_size() {
        let frame = encode(&[b'x'; 5000]);
        let head = Head::decode(&frame[..HEAD_BYTES]).unwrap().unwrap();
        assert_eq!((head.size_bytes, head.compressed), (5000, true));
        assert!(frame.len() < 100);
        assert!(matches!(
            Head::decode(&frame[..HEAD_BYTES - 1]),
            Err(Error::EntryCorrupt(_))
        ));
    }

    #[test]
    fn an_unknown_format_is_a_miss() {
        let mut frame = encode(b"value").to_vec();
        frame[1] = 3;
        assert_eq!(
            Frame::decode(&frame.clone().into(), LIMIT, &here()),
            Ok(None)
        );
        assert_eq!(
            Frame::decode(&Bytes::from_static(&[MAGIC, 9]), LIMIT, &here()),
            Ok(None)
        );
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let plain = encode(b"value").to_vec();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = plain.clone();
            change(&mut frame);
            forged(frame)
        };
        let cases = [
            (Bytes::new(), "empty"),
            (Bytes::from_static(&[MAGIC]), "cut off at 1 "),
            (Bytes::from_static(b"text"), "does not begin"),
            (Bytes::from(plain[..10].to_vec()), "cut off at 10 "),
            (Bytes::from(plain[..23].to_vec()), "checksum"),
            (with(&|f| f[2] = 2), "flags 0x02"),
            (with(&|f| f[2] = 0x40), "flags 0x40"),
            (with(&|f| f[9] = 6), "declares 6 bytes and holds 5"),
            (with(&|f| f[13] = 200), "cut off"),
            (with(&|f| (f[13], f[9]) = (1, 4)), "attributes are cut off"),
            (
                with(&|f| (f[13], f[21], f[22], f[9]) = (2, 1, 0xff, 3)),
                "not UTF-8",
            ),
        ];
        for (frame, why) in cases {
            let what = refusal(&frame);
            assert!(what.contains(why), "{what} should say {why}");
        }
    }

    #[test]
    fn a_declared_size_is_checked_before_it_is_allocated() {
        let mut frame = encode(&[b'x'; 5000]).to_vec();
        frame[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refusal(&forged(frame.clone())).contains("at most 1048576"));
        frame[9..13].copy_from_slice(&(LIMIT as u32).to_le_bytes());
        assert!(refusal(&forged(frame.clone())).contains("cannot hold"));
        frame[9..13].copy_from_slice(&4999_u32.to_le_bytes());
        assert!(refusal(&forged(frame)).contains("4999"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let tags = vec!["t".repeat(256)];
        assert!(
            Entry {
                tags: &tags,
                ..entry(b"")
            }
            .encode(&RULE, &here())
            .is_err()
        );
        let tags = vec!["t".repeat(255); 256];
        assert!(
            Entry {
                tags: &tags,
                ..entry(b"")
            }
            .encode(&RULE, &here())
            .is_err()
        );
        assert!(
            Entry {
                tags: &[String::new()],
                ..entry(b"")
            }
            .encode(&RULE, &here())
            .is_err()
        );
        let content_type = "c".repeat(256);
        assert!(
            Entry {
                content_type: &content_type,
                ..entry(b"")
            }
            .encode(&RULE, &here())
            .is_err()
        );
    }

    /// Format 1 as the first release wrote it, and format 2 with a known key.
    #[test]
    fn stored_frames_stay_readable() {
        let hex =
            |text: &str| Bytes::from(data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap());
        let clear = hex("f501007b6c50c4a001050000000400ac02c9ec4bb80163017476616c7565");
        let frame = Frame::decode(&clear, LIMIT, &here()).unwrap().unwrap();
        assert_eq!(&frame.value[..], b"value");
        assert_eq!(
            (&*frame.content_type, &*frame.tags),
            ("c", &["t".to_owned()][..])
        );
        assert_eq!(frame.create_ms, 1_790_000_000_123);

        let ring = ring(1);
        let sealed = hex(
            "f502007b6c50c4a00105000000040001000000cbb201630174000102030405060708090a0b0c0d0e0f1011121314151617dcc8fe488c9253f3faa47ce0bba91b3ebf69b227f6",
        );
        let frame = Frame::decode(&sealed, LIMIT, &vault(&ring))
            .unwrap()
            .unwrap();
        assert_eq!(&frame.value[..], b"value");
        assert_eq!(
            (&*frame.content_type, &*frame.tags),
            ("c", &["t".to_owned()][..])
        );
    }

    #[test]
    fn a_sealed_value_shows_its_head_and_attributes_alone() {
        let (ring, value) = (ring(1), b"a canary in the store".repeat(3));
        let frame = seal(&value, &vault(&ring));
        assert_eq!(frame.len(), 21 + 11 + 2 + 10 + value.len() + 40);
        assert!(!frame.windows(8).any(|part| part == b"a canary"));
        assert!(frame.windows(10).any(|part| part == b"text/plain"));
        let head = Head::decode(&frame[..HEAD_BYTES]).unwrap().unwrap();
        assert_eq!(
            (head.size_bytes, head.data_key),
            (value.len() as u64, Some(1))
        );
        let opened = Frame::decode(&frame, LIMIT, &vault(&ring))
            .unwrap()
            .unwrap();
        assert_eq!(&opened.value[..], &value[..]);
        assert_eq!(opened.stored_bytes, value.len() as u64);
        assert_eq!(opened.tags, ["t", "uuuuuuuuu"]);

        let long = b"compress me ".repeat(500);
        let frame = seal(&long, &vault(&ring));
        assert!(frame.len() < 300);
        let opened = Frame::decode(&frame, LIMIT, &vault(&ring))
            .unwrap()
            .unwrap();
        assert_eq!(&opened.value[..], &long[..]);
        let tight = Frame::decode(&frame, 5999, &vault(&ring));
        assert!(matches!(tight, Err(Error::EntryCorrupt(what)) if what.contains("at most 5999")));
    }

    #[test]
    fn a_moved_entry_does_not_open() {
        let (ring, frame) = (ring(1), seal(b"value", &vault(&ring(1))));
        let place = vault(&ring);
        assert!(Frame::decode(&frame, LIMIT, &place).is_ok());
        for elsewhere in [
            Place { key: "l", ..place },
            Place { key: "", ..place },
            Place {
                namespace: "other",
                ..place
            },
            Place {
                namespace: "defaultk",
                key: "",
                ..place
            },
            Place {
                incarnation: Incarnation::random(),
                ..place
            },
        ] {
            match Frame::decode(&frame, LIMIT, &elsewhere) {
                Err(Error::EntryCorrupt(what)) => assert!(what.contains("another place"), "{what}"),
                other => panic!("{other:?} at {elsewhere:?}"),
            }
        }
    }

    #[test]
    fn the_key_that_sealed_opens_and_no_other() {
        let (one, two) = (ring(1), ring(2));
        let (old, new) = (seal(b"old", &vault(&one)), seal(b"new", &vault(&two)));
        let open = |frame: &Bytes, ring| Frame::decode(frame, LIMIT, &vault(ring));
        assert_eq!(&open(&old, &two).unwrap().unwrap().value[..], b"old");
        assert_eq!(&open(&new, &two).unwrap().unwrap().value[..], b"new");
        let mut renamed = old.to_vec();
        renamed[15] = 2;
        let head = crc32fast::hash(&renamed[..HEAD_BYTES - 2]) as u16;
        renamed[HEAD_BYTES - 2..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
        let lost = Keyring::new(vec![DataKey {
            id: 1,
            key: Err("its master key is lost".into()),
        }]);
        for (frame, place, why) in [
            (&new, vault(&one), "data key 2, which"),
            (
                &renamed.into(),
                vault(&two),
                "changed, or sealed for another place",
            ),
            (&old, vault(&lost), "master key is lost"),
            (&old, here(), "its tenant has no key"),
            (&encode(b"planted"), vault(&two), "not sealed"),
        ] {
            match Frame::decode(frame, LIMIT, &place) {
                Err(Error::EntryCorrupt(what)) => assert!(what.contains(why), "{what}"),
                other => panic!("{other:?}, not {why}"),
            }
        }
        let refused = entry(b"value").encode(&RULE, &vault(&lost));
        assert!(matches!(refused, Err(Error::ConditionNotMet { .. })));
    }

    /// What the checksums alone would let through: all of it is made right again.
    #[test]
    fn no_byte_of_a_sealed_frame_can_be_changed() {
        let ring = ring(2);
        let frame = seal(&b"value ".repeat(4), &vault(&ring));
        for at in 2..frame.len() {
            for change in [1, 0x80] {
                let mut frame = frame.to_vec();
                frame[at] ^= change;
                let head = crc32fast::hash(&frame[..HEAD_BYTES - 2]) as u16;
                frame[HEAD_BYTES - 2..HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
                // The check of the head cannot be made wrong by making it right.
                if !(HEAD_BYTES - 2..HEAD_BYTES).contains(&at) {
                    let opened = Frame::decode(&frame.into(), LIMIT, &vault(&ring));
                    assert!(
                        matches!(opened, Err(Error::EntryCorrupt(_))),
                        "byte {at}: {opened:?}"
                    );
                }
            }
        }
        for bytes in 0..frame.len() {
            let opened = Frame::decode(&frame.slice(..bytes), LIMIT, &vault(&ring));
            assert!(
                matches!(opened, Err(Error::EntryCorrupt(_))),
                "{bytes} bytes: {opened:?}"
            );
        }
    }

    fn values() -> impl Strategy<Value = Vec<u8>> {
        let noise = proptest::collection::vec(any::<u8>(), 0..600);
        (noise, 0_usize..40)
            .prop_map(|(part, times)| if times < 4 { part } else { part.repeat(times) })
    }

    proptest! {
        #[test]
        fn opens_to_what_went_in(
            value in values(),
            content_type in "\\PC{0,30}",
            tags in proptest::collection::vec("\\PC{1,30}", 0..17),
            create_ms in 0..=MAX_CREATE_MS,
        ) {
            let entry = Entry { value: &value, content_type: &content_type, tags: &tags, create_ms };
            let encoded = entry.encode(&RULE, &here()).unwrap();
            let frame = Frame::decode(&encoded.bytes, LIMIT, &here()).unwrap().unwrap();
            prop_assert_eq!(&frame.value[..], &value[..]);
            prop_assert_eq!(frame.content_type, content_type);
            prop_assert_eq!(frame.tags, tags);
            prop_assert_eq!(frame.create_ms, create_ms);
            prop_assert_eq!(frame.stored_bytes, encoded.stored_bytes);
            let head = Head::decode(&encoded.bytes).unwrap().unwrap();
            prop_assert_eq!(head.size_bytes, value.len() as u64);
        }

        #[test]
        fn opens_to_what_was_sealed(
            value in values(),
            content_type in "\\PC{0,30}",
            tags in proptest::collection::vec("\\PC{1,30}", 0..17),
            create_ms in 0..=MAX_CREATE_MS,
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
        ) {
            let ring = ring(3);
            let entry = Entry { value: &value, content_type: &content_type, tags: &tags, create_ms };
            let encoded = entry.encode(&RULE, &vault(&ring)).unwrap();
            let frame = Frame::decode(&encoded.bytes, LIMIT, &vault(&ring)).unwrap().unwrap();
            prop_assert_eq!(&frame.value[..], &value[..]);
            prop_assert_eq!(frame.content_type, content_type);
            prop_assert_eq!(frame.tags, tags);
            prop_assert_eq!(frame.create_ms, create_ms);
            prop_assert_eq!(frame.stored_bytes, encoded.stored_bytes);
            let mut flipped = encoded.bytes.to_vec();
            let at = at.index(flipped.len());
            flipped[at] ^= 1_u8 << bit;
            let opened = Frame::decode(&flipped.into(), LIMIT, &vault(&ring));
            prop_assert!(!matches!(opened, Ok(Some(_))));
        }

        #[test]
        fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..200), like in any::<bool>()) {
            let mut bytes = bytes;
            if like && bytes.len() >= HEAD_BYTES {
                (bytes[0], bytes[1], bytes[2]) = (MAGIC, 1 + (bytes[1] & 1), bytes[2] & 1);
                bytes = forged(bytes).to_vec();
            }
            let _ = Head::decode(&bytes);
            let bytes = Bytes::from(bytes);
            if let Ok(Some(frame)) = Frame::decode(&bytes, LIMIT, &here()) {
                prop_assert!(frame.value.len() <= LIMIT);
            }
            let ring = ring(2);
            let opened = Frame::decode(&bytes, LIMIT, &vault(&ring));
            prop_assert!(!matches!(opened, Ok(Some(_))));
        }

        #[test]
        fn a_flipped_bit_never_passes_for_a_value(value in values(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut frame = encode(&value).to_vec();
            let at = at.index(frame.len());
            frame[at] ^= 1_u8 << bit;
            let opened = Frame::decode(&frame.into(), LIMIT, &here());
            prop_assert!(!matches!(opened, Ok(Some(_))));
        }
    }
}
