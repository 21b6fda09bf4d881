//! The feed of announced commits: a stream, read on a connection of its own, and
//! the identity of the store it belongs to. It does not know what the keys name.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use fred::types::{ClusterHash, Resp3Frame, Value};

use super::{
    Redis,
    connection::Link,
    fault::{self, Fault},
    keys, reply, wire,
};
use crate::store::{Changes, Key, Position, Result};

/// How long a call waits for a change.
const WAIT: Duration = Duration::from_millis(250);
/// Changes that one call returns, at most.
const COUNT: usize = 1000;
/// A stream shorter than this was never cut; the commit script cuts it to 10,000
/// or a little more.
const UNCUT: i64 = 10_000;
/// The place before the first change.
const BEGINNING: &str = "0-0";

/// The connection of the feed; opened by the first who asks.
#[derive(Default)]
pub(super) struct Feed {
    link: OnceLock<Link>,
}

impl Feed {
    /// How many connections can be used, and how often one was made anew.
    pub(super) fn connections(&self) -> [u64; 2] {
        self.link.get().map_or([0; 2], Link::connections)
    }

    pub(super) async fn close(&self, within: Duration) {
        if let Some(link) = self.link.get() {
            link.close(within).await;
        }
    }
}

impl Redis {
    /// See [`crate::store::Store::changes`].
    pub(super) async fn follow(&self, position: Option<Position>) -> Result<Changes> {
        if self.is_closed() {
            return Err(fault::unavailable("closed"));
        }
        let link = self
            .feed
            .link
            .get_or_init(|| Link::open(&self.config, &self.settings, &self.shared));
        link.ready(WAIT).await;
        if let Some(error) = link.down() {
            return Err(error);
        }
        let feed = Reader { link };
        let Some(position) = position else {
            return Ok(Changes {
                position: feed.now().await?,
                keys: Vec::new(),
                lost: false,
            });
        };
        let Some((identity, id)) = read(&position) else {
            return Ok(Changes {
                position: feed.now().await?,
                keys: Vec::new(),
                lost: true,
            });
        };
        let (changes, last) = feed.after(id).await?;
        // Asked after the changes: where the place is still kept, nothing behind
        // it had been cut when they were read.
        if feed.identity().await?.as_deref() != Some(identity.as_bytes()) || !feed.keeps(id).await?
        {
            return Ok(Changes {
                position: feed.now().await?,
                keys: Vec::new(),
                lost: true,
            });
        }
        let position = last.map_or(position.clone(), |last| {
            Position(format!("{identity}@{last}").into())
        });
        Ok(Changes {
            position,
            keys: changes,
            lost: false,
        })
    }
}

/// The identity and the stream id in a position; nothing where it is none of ours.
fn read(position: &Position) -> Option<(&str, &str)> {
    let (identity, id) = position.0.split_once('@')?;
    let (ms, number) = id.split_once('-')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (plain(ms) && plain(number)).then_some((identity, id))
}

/// The commands of the feed.
struct Reader<'a> {
    link: &'a Link,
}

impl Reader<'_> {
    async fn send(&self, name: &'static str, args: &[Bytes]) -> Result<Resp3Frame> {
        let args = args.iter().cloned().map(Value::Bytes).collect();
        self.link
            .send(name, ClusterHash::FirstKey, args)
            .await
            .map_err(Fault::of_read)
    }

    /// The store's identity, if it has one.
    async fn identity(&self) -> Result<Option<Bytes>> {
        Ok(reply::bulk(self.send("GET", &[keys::identity()]).await?))
    }

    /// The place behind all that has happened; gives the store an identity if it
    /// has none.
    async fn now(&self) -> Result<Position> {
        let identity = match self.identity().await? {
            Some(identity) => identity,
            None => {
                let fresh =
                    Bytes::from(crate::random::BASE32.encode(&crate::random::bytes::<10>()));
                self.send("SET", &[keys::identity(), fresh, Bytes::from_static(b"NX")])
                    .await?;
                self.identity()
                    .await?
                    .ok_or_else(|| fault::unavailable("it keeps no identity"))?
            }
        };
        let edge = |text: &'static str| Bytes::from_static(text.as_bytes());
        let newest = [
            keys::changes(),
            edge("+"),
            edge("-"),
            edge("COUNT"),
            edge("1"),
        ];
        let newest = reply::array(self.send("XREVRANGE", &newest).await?)?;
        let id = match newest.into_iter().next() {
            Some(entry) => reply::array(entry)?.first().and_then(reply::text),
            None => None,
        };
        let id = id.unwrap_or_else(|| BEGINNING.to_owned());
        Ok(Position(
            format!("{}@{id}", String::from_utf8_lossy(&identity)).into(),
        ))
    }

    /// The changes after a place, waited for, and the place of the last.
    async fn after(&self, id: &str) -> Result<(Vec<Key>, Option<String>)> {
        let hash = ClusterHash::from(&keys::changes()[..]);
        let wait = WAIT.as_millis().to_string();
        let count = COUNT.to_string();
        let args = ["COUNT", &count, "BLOCK", &wait, "STREAMS"];
        let mut all: Vec<Value> = args.iter().map(|arg| Value::from(*arg)).collect();
        all.push(Value::Bytes(keys::changes()));
        all.push(Value::from(id));
        let answer = self.link.send_blocking("XREAD", hash, all, WAIT).await;
        if matches!(answer, Err(Fault::Timeout)) {
            self.link.renew();
        }
        let answer = answer.map_err(Fault::of_read)?;
        // One stream was asked for: a map of it, or nothing.
        let entries = match answer {
            Resp3Frame::Map { data, .. } => data.into_values().next(),
            Resp3Frame::Array { data, .. } => match data.into_iter().next() {
                Some(stream) => reply::array(stream)?.into_iter().nth(1),
                None => None,
            },
            _ => None,
        };
        let entries = entries.map(reply::array).transpose()?.unwrap_or_default();
        let (mut found, mut last) = (Vec::new(), None);
        for entry in entries {
            let mut entry = reply::array(entry)?.into_iter();
            last = entry.next().and_then(|id| reply::text(&id)).or(last);
            let fields = entry
                .next()
                .map(reply::array)
                .transpose()?
                .unwrap_or_default();
            // Fields come in pairs of a name, which is always the same, and a key.
            let names = fields.into_iter().skip(1).step_by(2);
            let names = names
                .filter_map(reply::bulk)
                .filter_map(|field| wire::change(&field));
            found.extend(names.map(|(table, path)| Key { table, path }));
        }
        Ok((found, last))
    }

    /// Whether nothing after this place can have been cut.
    async fn keeps(&self, id: &str) -> Result<bool> {
        if id == BEGINNING {
            let length = self.send("XLEN", &[keys::changes()]).await?;
            return Ok(reply::number(&length).unwrap_or(UNCUT) < UNCUT);
        }
        let id = Bytes::copy_from_slice(id.as_bytes());
        let found = self
            .send("XRANGE", &[keys::changes(), id.clone(), id])
            .await?;
        Ok(!reply::array(found)?.is_empty())
    }
}
