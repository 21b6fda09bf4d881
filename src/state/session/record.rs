//! How a session is stored. It does not know where.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 12 | how it is renewed, for the store to read ([`Renewal`]) |
//! | 12 | 1 | format, 1 |
//! | 13 | 4 | bytes of the card, big endian |
//! | 17 | | the card, a frame ([`frame`](crate::codec::frame)) of JSON: all but the data |
//! | | | the data, a frame of JSON |
//!
//! Both frames are sealed where the tenant's entries are, each for its place: the
//! session, and which of the two it is. The card repeats how the session is renewed, so
//! that nothing before it can be changed either. A listing reads no more than cards.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Session, SessionId};
use crate::{
    codec::{Entry, Frame, Head, Place},
    config::Compression,
    error::{Error, Result},
    store::{Expiry, Record, Renewal},
    tenant::Tenancy,
};

const FORMAT: u8 = 1;
const HEAD_BYTES: usize = Renewal::BYTES + 1 + 4;

/// Bytes that hold the card of any session: 32 attributes of 320 bytes and a user_id of
/// 256, of which JSON may escape each.
pub(super) const LISTED_BYTES: usize = 24 << 10;

/// What a frame may open to: the most data that a configuration may allow.
const OPENED_BYTES: usize = 4 << 20;

/// Names that no namespace of entries can have.
const CARD: &str = "session card";
const DATA: &str = "session data";

/// All of a session but its data.
#[derive(Serialize, Deserialize)]
struct Card {
    user_id: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attributes: BTreeMap<String, String>,
    create_ms: u64,
    update_ms: u64,
    idle_ms: u64,
    expire_ms: u64,
}

/// A session of a tenant, as it is stored.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    tenancy: &'a Tenancy,
    session_id: SessionId,
}

impl<'a> Stored<'a> {
    pub(super) fn of(tenancy: &'a Tenancy, session_id: SessionId) -> Self {
        Self {
            tenancy,
            session_id,
        }
    }

    /// The value of its record, and when that ends if it is written now.
    ///
    /// # Errors
    /// [`Error::ConditionNotMet`] where it is to be sealed and cannot be.
    pub(super) fn encode(
        self,
        session: &Session,
        compression: &Compression,
        now_ms: u64,
    ) -> Result<(Bytes, Expiry)> {
        let renewal = Renewal {
            idle_ms: session.idle_ms,
            until_ms: session.expire_ms,
        };
        let card = Card {
            user_id: session.user_id.clone(),
            attributes: session.attributes.clone(),
            create_ms: session.create_ms,
            update_ms: session.update_ms,
            idle_ms: session.idle_ms,
            expire_ms: session.expire_ms,
        };
        let frame = |part: &str, value: &[u8]| {
            let text = self.session_id.to_string();
            let entry = Entry {
                value,
                content_type: "",
                tags: &[],
                create_ms: session.create_ms,
            };
            entry.encode(compression, &self.place(part, &text))
        };
        let card = frame(CARD, &json(&card)?)?.bytes;
        let data = frame(DATA, &json(&session.data)?)?.bytes;
        let card_bytes = u32::try_from(card.len())
            .map_err(|_| Error::Internal("a card beyond all bounds".into()))?;
        let mut value = Vec::with_capacity(HEAD_BYTES + card.len() + data.len());
        value.extend_from_slice(&renewal.encode());
        value.push(FORMAT);
        value.extend_from_slice(&card_bytes.to_be_bytes());
        value.extend_from_slice(&card);
        value.extend_from_slice(&data);
        let after_ms = renewal.after_ms(now_ms).unwrap_or(1);
        Ok((value.into(), Expiry::AfterMs(after_ms)))
    }

    /// The session in its record. What does not open is told in the audit log.
    ///
    /// # Errors
    /// [`Error::EntryCorrupt`], also for what a newer version of this service wrote.
    pub(super) fn open(self, record: &Record) -> Result<Session> {
        let opened = self.parts(record).and_then(|(card, data)| {
            let data = self.frame(DATA, &data)?;
            let data: Map<String, Value> = parsed(&data)?;
            Ok(Session {
                data,
                ..self.session(card, record)
            })
        });
        self.told(opened)
    }

    /// The session in the beginning of its record, without its data; as
    /// [`Stored::open`].
    pub(super) fn open_card(self, record: &Record) -> Result<Session> {
        let opened = self.parts(record);
        self.told(opened.map(|(card, _)| self.session(card, record)))
    }

    fn told(self, opened: Result<Session>) -> Result<Session> {
        opened.inspect_err(|error| {
            if let Error::EntryCorrupt(why) = error {
                self.tenancy.tell_unopened(why);
            }
        })
    }

    fn session(self, card: Card, record: &Record) -> Session {
        let idle_expire_ms = record.expire_ms.unwrap_or(card.expire_ms);
        Session {
            session_id: self.session_id,
            user_id: card.user_id,
            data: Map::new(),
            attributes: card.attributes,
            create_ms: card.create_ms,
            update_ms: card.update_ms,
            idle_ms: card.idle_ms,
            expire_ms: card.expire_ms,
            idle_expire_ms: idle_expire_ms.min(card.expire_ms),
            version: record.version,
        }
    }

    /// The card, and the frame of the data.
    fn parts(self, record: &Record) -> Result<(Card, Bytes)> {
        let value = &record.value;
        let cut_off = || corrupt("it ends before it should");
        let renewal = Renewal::decode(value).ok_or_else(cut_off)?;
        match value.get(Renewal::BYTES) {
            Some(&FORMAT) => {}
            Some(format) => return Err(corrupt(format!("it has the unknown format {format}"))),
            None => return Err(cut_off()),
        }
        let lengths = value.get(Renewal::BYTES + 1..HEAD_BYTES);
        let card_bytes = lengths.and_then(<[u8]>::first_chunk).ok_or_else(cut_off)?;
        let end = HEAD_BYTES.saturating_add(u32::from_be_bytes(*card_bytes) as usize);
        if end > value.len() {
            return Err(cut_off());
        }
        let card: Card = parsed(&self.frame(CARD, &value.slice(HEAD_BYTES..end))?)?;
        let said = Renewal {
            idle_ms: card.idle_ms,
            until_ms: card.expire_ms,
        };
        if said != renewal {
            return Err(corrupt("how it is renewed was changed"));
        }
        if !self
            .session_id
            .is_of(self.tenancy.incarnation, &card.user_id)
        {
            return Err(corrupt("it is of another user than its id"));
        }
        Ok((card, value.slice(end..)))
    }

    fn frame(self, part: &str, frame: &Bytes) -> Result<Bytes> {
        let text = self.session_id.to_string();
        let opened = Frame::decode(frame, OPENED_BYTES, &self.place(part, &text))?;
        let opened = opened.ok_or_else(|| corrupt("a newer version of this service wrote it"))?;
        Ok(opened.value)
    }

    fn place<'b>(self, part: &'b str, session_id: &'b str) -> Place<'b>
    where
        'a: 'b,
    {
        self.tenancy.place(part, session_id)
    }
}

/// The number of the newest data key that the session in a record, or in its beginning,
/// is sealed with; `None` where it is not.
pub(super) fn data_key(record: &Record) -> Option<u32> {
    let value = &record.value;
    let lengths = value.get(Renewal::BYTES + 1..HEAD_BYTES)?;
    let end = HEAD_BYTES.saturating_add(u32::from_be_bytes(*lengths.first_chunk()?) as usize);
    let frames = [
        value.get(HEAD_BYTES..)?,
        value.get(end..).unwrap_or_default(),
    ];
    // What is wrong with a frame, opening tells.
    let key = |frame: &[u8]| Head::decode(frame).ok().flatten()?.data_key;
    frames.into_iter().filter_map(key).max()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Internal(format!("cannot encode a session: {e}")))
}

fn parsed<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|e| corrupt(format!("it does not read: {e}")))
}

fn corrupt(why: impl AsRef<str>) -> Error {
    Error::EntryCorrupt(format!("a session: {}", why.as_ref()))
}
