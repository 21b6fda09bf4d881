//! A request that names itself is carried out once: its record is part of the
//! commit that does what it asks, and a replay gets the first answer. It does
//! not know what is asked.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Tenants, record};
use crate::{
    error::{Error, Result, Violations},
    store::{Check, Expiry, Key, Record, Space, Table, Write},
};

/// How long a replay is recognised.
const KEPT_MS: u64 = 24 * 60 * 60 * 1000;

/// How a change is asked for, whatever it changes.
#[derive(Debug, Default)]
pub struct Change {
    /// The etag the resource must have; empty for any.
    pub etag: String,
    /// The request's own id, a UUID; empty for none.
    pub request_id: String,
    /// Check everything and write nothing.
    pub validate_only: bool,
    /// What was found wrong with the request before it came here.
    pub violations: Violations,
}

/// A request with an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// The id in its canonical form.
    pub(super) request_id: String,
    /// What was asked, as a digest.
    fingerprint: String,
}

/// The stored form. It holds no secret: a replay derives it anew.
#[derive(Serialize, Deserialize)]
struct Answered {
    format: u32,
    fingerprint: String,
    answer: Value,
}

impl Once {
    /// The request of this id that asks an RPC for this content; `None` where it
    /// has no id. An id that is no UUID is a violation.
    pub fn of(
        rpc: &str,
        request_id: &str,
        content: &impl Serialize,
        violations: &mut Violations,
    ) -> Result<Option<Self>> {
        if request_id.is_empty() {
            return Ok(None);
        }
        let Ok(id) = Uuid::try_parse(request_id) else {
            violations.add(
                "request_id",
                "not a UUID such as 7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a",
            );
            return Ok(None);
        };
        let content = record::encode(&(rpc, content))?;
        let fingerprint = data_encoding::HEXLOWER.encode(&Sha256::digest(content));
        Ok(Some(Self {
            request_id: id.hyphenated().to_string(),
            fingerprint,
        }))
    }

    /// Where the record is.
    pub fn key(&self) -> Key {
        Key::new(Table::Request, self.request_id.clone().into_bytes())
    }

    /// The write that records the answer; refused where there is a record.
    pub fn write(&self, answer: &impl Serialize) -> Result<Write> {
        Ok(self.rewrite(answer)?.when(Check::Absent))
    }

    /// The write that records the answer over the one there is.
    pub fn rewrite(&self, answer: &impl Serialize) -> Result<Write> {
        let answer = serde_json::to_value(answer)
            .map_err(|e| Error::Internal(format!("cannot encode an answer: {e}")))?;
        let answered = Answered {
            format: record::FORMAT,
            fingerprint: self.fingerprint.clone(),
            answer,
        };
        Ok(Write::put(self.key(), record::encode(&answered)?).expiring(Expiry::AfterMs(KEPT_MS)))
    }

    /// The first answer.
    ///
    /// # Errors
    /// [`Error::RequestIdReused`] where other content was asked for.
    pub fn replay<A: DeserializeOwned>(&self, found: &Record) -> Result<A> {
        let answered: Answered = record::decode(&found.value)?;
        if answered.fingerprint != self.fingerprint {
            return Err(Error::RequestIdReused);
        }
        serde_json::from_value(answered.answer)
            .map_err(|e| Error::Internal(format!("a stored answer is damaged: {e}")))
    }
}

impl Tenants {
    /// The first answer to a request, where this is a replay.
    ///
    /// # Errors
    /// Those of [`Once::replay`]; the store's.
    pub async fn answered<A: DeserializeOwned>(&self, once: &Once) -> Result<Option<A>> {
        let read = self
            .store
            .read(&Space::registry(), 0, &[once.key()])
            .await?;
        let found = read.records.into_iter().next().flatten();
        found.map(|found| once.replay(&found)).transpose()
    }

    /// A record of the registry, and the first answer to this request where it
    /// is a replay, as of one moment.
    ///
    /// # Errors
    /// Those of [`Once::replay`]; the store's.
    pub(super) async fn find_or_replay<A: DeserializeOwned>(
        &self,
        key: Key,
        once: Option<&Once>,
    ) -> Result<(Option<Record>, Option<A>)> {
        let mut keys = vec![key];
        keys.extend(once.map(Once::key));
        let read = self.store.read(&Space::registry(), 0, &keys).await?;
        let mut found = read.records.into_iter();
        let record = found.next().flatten();
        let answer = match (once, found.next().flatten()) {
            (Some(once), Some(answered)) => Some(once.replay(&answered)?),
            _ => None,
        };
        Ok((record, answer))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Action;

    const ID: &str = "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a";

    fn once(rpc: &str, id: &str, content: &str) -> Once {
        Once::of(rpc, id, &content, &mut Violations::default())
            .unwrap()
            .unwrap()
    }

    #[test]
    fn the_first_answer_is_replayed_to_the_same_request_alone() {
        let first = once("CreateTenant", ID, "acme");
        let Action::Put { value, expiry } = first.write(&"answer").unwrap().action else {
            unreachable!()
        };
        assert_eq!(expiry, Expiry::AfterMs(86_400_000));
        let record = Record {
            version: 1,
            expire_ms: None,
            value,
        };
        assert_eq!(first.replay::<String>(&record).unwrap(), "answer");
        let shouted = once("CreateTenant", &ID.to_uppercase(), "acme");
        assert_eq!(shouted.key(), first.key());
        assert_eq!(shouted.replay::<String>(&record).unwrap(), "answer");
        for other in [
            once("CreateTenant", ID, "other"),
            once("DeleteTenant", ID, "acme"),
        ] {
            assert_eq!(other.replay::<String>(&record), Err(Error::RequestIdReused));
        }
    }

    #[test]
    fn an_id_is_a_uuid_or_empty() {
        let mut violations = Violations::default();
        assert!(Once::of("X", "", &1, &mut violations).unwrap().is_none());
        violations.check().unwrap();
        for wrong in ["1", "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5", "{}", "acme"] {
            let mut violations = Violations::default();
            assert!(Once::of("X", wrong, &1, &mut violations).unwrap().is_none());
            assert!(violations.check().is_err(), "{wrong}");
        }
    }
}
