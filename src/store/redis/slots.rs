//! The slots of a Cluster's node, by its own account. It does not know who else
//! there is.

use std::ops::RangeInclusive;

use crate::store::{Result, redis::fault};

/// Slots that a node has and does not give away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slots {
    /// In rising order.
    ranges: Vec<RangeInclusive<u16>>,
    /// Those of them that are on their way to another node.
    leaving: Vec<u16>,
    /// What it was read from: as long as the node says the same, it holds.
    account: String,
}

impl Slots {
    /// From an answer to CLUSTER NODES; an error where the node has none.
    pub(super) fn read(nodes: &str) -> Result<Self> {
        let account = account(nodes);
        let (mut ranges, mut leaving) = (Vec::new(), Vec::new());
        for word in account.split(' ').filter(|word| !word.is_empty()) {
            let parse = |text: &str| text.parse::<u16>().ok();
            // [slot->-node] is on its way there, [slot-<-node] comes from there and is
            // not yet had.
            if let Some(moving) = word.strip_prefix('[') {
                leaving.extend(moving.split_once("->-").and_then(|(slot, _)| parse(slot)));
                continue;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            match (parse(first), parse(last)) {
                (Some(first), Some(last)) => ranges.push(first..=last),
                _ => return Err(fault::corrupt("slots that cannot be read")),
            }
        }
        if ranges.is_empty() {
            return Err(fault::unavailable("the node has no slots"));
        }
        Ok(Self {
            ranges,
            leaving,
            account: account.to_owned(),
        })
    }

    /// Whether the node still says the same.
    pub(super) fn stand(&self, nodes: &str) -> bool {
        account(nodes) == self.account
    }

    /// Whether the node has this slot to itself.
    pub(super) fn contains(&self, slot: u16) -> bool {
        let after = self.ranges.partition_point(|range| *range.start() <= slot);
        let found = after.checked_sub(1).and_then(|at| self.ranges.get(at));
        found.is_some_and(|range| range.contains(&slot)) && !self.leaving.contains(&slot)
    }
}

/// What the asked node says of its own slots; nothing where it is no primary.
fn account(nodes: &str) -> &str {
    let own = nodes.lines().find_map(|line| {
        // id, address, flags, primary, ping, pong, epoch, link, and its slots.
        let mut words = line.splitn(9, ' ');
        let flags = words.nth(2)?;
        let has = |flag| flags.split(',').any(|found| found == flag);
        (has("myself") && has("master")).then(|| words.nth(5).unwrap_or_default())
    });
    own.unwrap_or_default().trim_end()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::Error;

    const NODES: &str = "\
07c3 127.0.0.1:30004@31004 slave e7d1 0 1426238317239 4 connected\n\
67ed 127.0.0.1:30002@31002,host-2 master - 0 1426238316232 2 connected 5461-10922\n\
e7d1 127.0.0.1:30001@31001,host-1 myself,master - 0 0 1 connected 0-5 7 93-5460 [93->-67ed] [77-<-67ed]\n";

    #[test]
    fn a_node_has_its_slots_but_for_those_that_move() {
        let slots = Slots::read(NODES).unwrap();
        for slot in [0, 5, 7, 94, 5460] {
            assert!(slots.contains(slot), "{slot}");
        }
        for slot in [6, 8, 77, 92, 93, 5461, 16383] {
            assert!(!slots.contains(slot), "{slot}");
        }
    }

    #[test]
    fn what_holds_is_what_the_node_says_of_itself() {
        let slots = Slots::read(NODES).unwrap();
        assert!(slots.stand(&NODES.replace("1426238316232", "1426238316239")));
        assert!(slots.stand(&NODES.replace("5461-10922", "5461-10900")));
        for other in [
            NODES.replace("0-5 ", "0-4 "),
            NODES.replace(" [93->-67ed]", ""),
            NODES.replace("connected 0-5", "connected 0-5 6 [6->-67ed]"),
            NODES.replace("myself,master", "myself,slave"),
            String::new(),
        ] {
            assert!(!slots.stand(&other), "{other}");
        }
    }

    #[test]
    fn a_node_without_slots_tells_nothing() {
        for nodes in [
            "",
            "e7d1 127.0.0.1:30001@31001 myself,master - 0 0 1 connected\n",
            "e7d1 127.0.0.1:30001@31001 myself,slave - 0 0 1 connected\n",
        ] {
            assert!(matches!(Slots::read(nodes), Err(Error::Unavailable(_))));
        }
        let odd = NODES.replace("93-5460", "93-many");
        assert!(matches!(Slots::read(&odd), Err(Error::Corrupt(_))));
    }
}
