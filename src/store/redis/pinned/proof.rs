//! Proves what no script sees: that servers are the processes that they were, and
//! have their slots to themselves. It does not know what is read there.

use bytes::Bytes;
use fred::types::ClusterHash;

use super::{
    super::{
        Redis,
        fault::{self, Fault},
        pins::number,
        reply,
        slots::Slots,
    },
    slot,
    walk::Walk,
};
use crate::store::{Pin, Result};

/// Keys that one SCAN looks at: about a tenth of a millisecond.
const COUNT: u64 = 128;

impl Redis {
    /// Proves that the servers of the walk are the processes that they were; pins on
    /// others are lost.
    pub(super) async fn prove(&self, pins: &[Pin], walk: &mut Walk) -> Result<()> {
        self.leave(pins, walk)?;
        let mut lost = Vec::new();
        for (server, here) in walk.servers() {
            let Some(pin) = here.first().and_then(|at| pins.get(*at)) else {
                continue;
            };
            if self.process(&slot(pin)).await? != server.process {
                lost.extend(here);
            }
        }
        lost.into_iter().for_each(|at| walk.lose(at));
        Ok(())
    }

    /// Loses the pins that the driver finds on another server than before.
    pub(super) fn leave(&self, pins: &[Pin], walk: &mut Walk) -> Result<()> {
        let link = self.pool.link()?;
        let mut lost = Vec::new();
        for (server, here) in walk.servers() {
            lost.extend(here.into_iter().filter(|at| {
                let at = pins.get(*at);
                at.is_none_or(|pin| link.place(&slot(pin)) != server.address)
            }));
        }
        lost.into_iter().for_each(|at| walk.lose(at));
        Ok(())
    }

    /// The name of the process that has this slot.
    pub(in super::super) async fn process(&self, hash: &ClusterHash) -> Result<String> {
        let section = [Bytes::from_static(b"server")];
        let info = self.pool.command("INFO", hash.clone(), &section).await;
        let info = reply::text(&info.map_err(Fault::of_read)?).unwrap_or_default();
        info.lines()
            .find_map(|line| line.strip_prefix("run_id:"))
            .map(|name| name.trim().to_owned())
            .ok_or_else(|| fault::unavailable("it does not say which process it is"))
    }

    /// Those of some keys of a server that match, and where to go on: of the one at this
    /// address, which has this slot. Nothing where the driver finds the slot elsewhere
    /// before or after: then the answer may be another server's, and its place with it.
    pub(in super::super) async fn scan_at(
        &self,
        (hash, address): (&ClusterHash, &str),
        cursor: u64,
        pattern: Bytes,
    ) -> Result<Option<(u64, Vec<Bytes>)>> {
        let args = [
            number(cursor),
            Bytes::from_static(b"MATCH"),
            pattern,
            Bytes::from_static(b"COUNT"),
            number(COUNT),
        ];
        if self.pool.link()?.place(hash) != address {
            return Ok(None);
        }
        let answer = self.pool.command("SCAN", hash.clone(), &args).await;
        let mut parts = reply::array(answer.map_err(Fault::of_read)?)?.into_iter();
        if self.pool.link()?.place(hash) != address {
            return Ok(None);
        }
        let cursor = parts
            .next()
            .and_then(|cursor| reply::text(&cursor)?.parse().ok())
            .ok_or_else(|| fault::corrupt("SCAN answered no cursor"))?;
        let names = parts.next().map(reply::array).transpose()?;
        let names = names.unwrap_or_default().into_iter();
        Ok(Some((cursor, names.filter_map(reply::bulk).collect())))
    }

    /// Which of these slots the server has to itself that has this slot.
    pub(in super::super) async fn own(
        &self,
        of: &[ClusterHash],
        hash: &ClusterHash,
    ) -> Result<Vec<bool>> {
        if !self.pool.is_clustered() {
            return Ok(vec![true; of.len()]);
        }
        let nodes = [Bytes::from_static(b"NODES")];
        let nodes = self.pool.command("CLUSTER", hash.clone(), &nodes).await;
        let nodes = reply::text(&nodes.map_err(Fault::of_read)?).unwrap_or_default();
        let slots = Slots::read(&nodes)?;
        let own = of.iter().map(|slot| match slot {
            ClusterHash::Custom(slot) => slots.contains(*slot),
            _ => false,
        });
        Ok(own.collect())
    }
}
