//! The canary of a tracked connection: a key that only this connection reads and
//! changes, so that whatever becomes of its changes becomes of all others'. It does
//! not know what is told of them.

use bytes::Bytes;
use fred::types::{Resp3Frame, cluster::ClusterRouting};

use super::{super::slots::Slots, line::Wire};
use crate::store::{
    Result,
    redis::{
        fault::{self, Fault},
        keys, reply,
    },
};

/// How long a canary is left behind by a connection that is gone, in milliseconds.
const LEFT_MS: &str = "60000";

/// Makes it, on a server that is full, too: near reads do not end with room to write.
const MAKE: &str =
    "#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])";

/// A key that nobody else knows, and its value.
pub(super) struct Canary {
    name: Bytes,
    value: Bytes,
}

impl Canary {
    /// Makes it, where the connection's own slots are.
    pub(super) async fn make(wire: &Wire, slots: Option<&Slots>) -> Result<Self> {
        let canary = Self {
            name: name(slots)?,
            value: random().into(),
        };
        let set = [
            Bytes::from_static(MAKE.as_bytes()),
            Bytes::from_static(b"1"),
            canary.name.clone(),
            canary.value.clone(),
            Bytes::from_static(LEFT_MS.as_bytes()),
        ];
        wire.send("EVAL", &set).await.map_err(Fault::of_read)?;
        Ok(canary)
    }

    /// Whether a push names it.
    pub(super) fn is(&self, name: &[u8]) -> bool {
        self.name == name
    }

    /// Changes it and reads it, before and after: read, it is tracked again, if it is
    /// not; changed, it is pushed; and the second read is answered behind the push.
    ///
    /// The change is one of its expiry, which a server that is full does not refuse,
    /// and which does not make anew what was flushed.
    ///
    /// # Errors
    /// Where it is not as it was, the connection's slots are not, or it is refused.
    pub(super) async fn sing(&self, wire: &Wire, slots: Option<&Slots>) -> Result<()> {
        let one = [self.name.clone()];
        let change = [self.name.clone(), Bytes::from_static(LEFT_MS.as_bytes())];
        // Sent in this order: a future of the driver's sends when it is first polled.
        let (before, changed, nodes, after) = futures::join!(
            wire.send("GET", &one),
            wire.send("PEXPIRE", &change),
            async {
                match slots {
                    Some(_) => Some(nodes(wire).await),
                    None => None,
                }
            },
            wire.send("GET", &one),
        );
        let is_it = |frame: Resp3Frame| reply::bulk(frame).is_some_and(|value| value == self.value);
        let whole = is_it(before.map_err(Fault::of_read)?)
            && reply::number(&changed.map_err(Fault::of_read)?) == Some(1)
            && is_it(after.map_err(Fault::of_read)?);
        if !whole {
            return Err(fault::unavailable("the database was flushed"));
        }
        match (slots, nodes.transpose()?) {
            (Some(slots), Some(nodes)) if !slots.stand(&nodes) => {
                Err(fault::unavailable("its slots have changed"))
            }
            _ => Ok(()),
        }
    }
}

/// What the node says of the Cluster.
pub(super) async fn nodes(wire: &Wire) -> Result<String> {
    let nodes = wire.send("CLUSTER", &[Bytes::from_static(b"NODES")]).await;
    Ok(reply::text(&nodes.map_err(Fault::of_read)?).unwrap_or_default())
}

/// How often a tag is drawn for a slot that the node has: it need have only one of
/// 16,384.
const DRAWS: usize = 1 << 18;

fn name(slots: Option<&Slots>) -> Result<Bytes> {
    let own =
        |name: &Bytes| slots.is_none_or(|slots| slots.contains(ClusterRouting::hash_key(name)));
    (0..DRAWS)
        .map(|_| keys::canary(&random()))
        .find(own)
        .ok_or_else(|| fault::unavailable("the node has no slot to itself"))
}

fn random() -> String {
    crate::random::BASE32.encode(&crate::random::bytes::<10>())
}
