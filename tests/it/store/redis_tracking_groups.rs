//! Telling of changes by several servers: a Cluster whose slots move and whose nodes
//! come and go, and a primary that Sentinels replace. It does not know a single
//! server's faults.

use std::time::Instant;

use riptide_persistence::store::{STALENESS, Space};

use super::redis_tracking::{Pair, entry, eventually, put, space, tracked};
use crate::{
    redis::Redis as Server,
    redis_groups::{Cluster, Sentinels, carry, mark},
};

/// The slot of a space, as a node works it out.
fn slot(node: &Server, space: &Space) -> String {
    node.cli(&["cluster", "keyslot", &format!("v1:{{{}}}:s", space.name())])
}

/// The number of the node that has this slot at the start.
fn place(slot: &str) -> usize {
    slot.parse::<usize>().unwrap() / 5461
}

#[tokio::test]
async fn every_primary_of_a_cluster_tells() {
    let cluster = Cluster::start();
    let pair = Pair::open(&cluster.url()).await;
    let mut places = [false; 3];
    while places.contains(&false) {
        let space = space();
        pair.tells(&space).await;
        places[place(&slot(&cluster.nodes[0], &space))] = true;
    }
    for node in &cluster.nodes {
        assert_eq!(tracked(node).len(), 1);
    }
    // Each by itself: what one suffers, the others do not.
    let spaces: Vec<Space> = (0..3)
        .map(|number| {
            let in_place = |space: &Space| place(&slot(&cluster.nodes[0], space)) == number;
            std::iter::repeat_with(space).find(in_place).unwrap()
        })
        .collect();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let vouch = pair.vouched(&spaces[number], &[entry("a")]).await;
        for id in tracked(node) {
            node.cli(&["client", "kill", "id", &id]);
        }
        eventually("it is taken back", async || {
            pair.vouched(&spaces[number], &[entry("a")]).await;
            !vouch.holds(Instant::now())
        })
        .await;
        pair.tells(&spaces[number]).await;
    }
}

#[tokio::test]
async fn a_slot_that_moves_is_not_vouched_for_and_then_told_by_its_new_owner() {
    let cluster = Cluster::start();
    let pair = Pair::open(&cluster.url()).await;
    let space = space();
    let moving = slot(&cluster.nodes[0], &space);
    let from = &cluster.nodes[place(&moving)];
    let to = &cluster.nodes[(place(&moving) + 1) % 3];

    let present = [entry("present")];
    put(&pair.other, &space, present.clone()).await;
    // Absent when it is read, it would be made on the other node without a word.
    let absent = pair.vouched(&space, &[entry("absent")]).await;
    mark(&moving, from, to);
    let marked = Instant::now();
    eventually("it runs out", async || {
        assert!(!absent.holds(marked + STALENESS), "proven after the mark");
        !absent.holds(Instant::now())
    })
    .await;
    // The node goes on telling of its other slots, and of this one no more.
    let same_node = std::iter::repeat_with(super::redis_tracking::space)
        .find(|space| {
            let other = slot(from, space);
            other != moving && place(&other) == place(&moving)
        })
        .unwrap();
    pair.tells(&same_node).await;
    let watched = pair.store.read_watched(&space, 0, &present).await.unwrap();
    assert!(watched.vouch.is_none() && watched.read.records[0].is_some());

    carry(&moving, from, to);
    put(&pair.other, &space, [entry("absent")]).await;
    let keys = [entry("absent")];
    if let Ok(watched) = pair.store.read_watched(&space, 0, &keys).await {
        assert!(watched.read.records[0].is_some());
    }
    pair.tells(&space).await;
    assert!(!absent.holds(Instant::now()));
}

#[tokio::test]
async fn a_node_that_gets_slots_is_armed_and_one_that_goes_is_let_go() {
    let mut cluster = Cluster::start();
    let pair = Pair::open(&cluster.url()).await;
    let space = space();
    pair.tells(&space).await;
    let moving = slot(&cluster.nodes[0], &space);
    let new = cluster.join();
    let to = &cluster.nodes[new];
    let from = &cluster.nodes[place(&moving)];
    mark(&moving, from, to);
    carry(&moving, from, to);
    // The driver learns of it by a command that meets the slot.
    pair.tells(&space).await;
    eventually("it is armed", async || tracked(to).len() == 1).await;
    let vouch = pair.vouched(&space, &[entry("a")]).await;
    cluster.nodes[new].kill();
    eventually("it is let go", async || !vouch.holds(Instant::now())).await;
}

#[tokio::test]
async fn the_next_primary_tells_after_a_failover() {
    let mut group = Sentinels::start();
    let pair = Pair::open(&group.url()).await;
    let (space, key) = (space(), entry("a"));
    pair.change(&space, &key).await;
    let vouch = pair.vouched(&space, std::slice::from_ref(&key)).await;
    assert_eq!(group.primary.cli(&["wait", "1", "5000"]), "1");
    group.primary.kill();
    pair.breaks_off(&vouch).await;
    pair.tells(&space).await;
    assert_eq!(tracked(&group.replica).len(), 1);
}

#[tokio::test]
async fn a_primary_that_was_replaced_while_it_was_frozen_promises_nothing_more() {
    let group = Sentinels::start();
    let pair = Pair::open(&group.url()).await;
    let (space, key) = (space(), entry("a"));
    pair.change(&space, &key).await;
    let vouch = pair.vouched(&space, std::slice::from_ref(&key)).await;
    assert_eq!(group.primary.cli(&["wait", "1", "5000"]), "1");
    group.primary.freeze();
    let frozen = Instant::now();
    eventually("the replica is the primary", async || {
        assert!(!vouch.holds(frozen + STALENESS));
        group
            .replica
            .cli(&["info", "replication"])
            .contains("role:master")
    })
    .await;
    // It goes on as the primary it was, until the Sentinels tell it.
    group.primary.thaw();
    eventually("the next one tells", async || {
        assert!(!vouch.holds(Instant::now()));
        tracked(&group.replica).len() == 1
    })
    .await;
    pair.tells(&space).await;
    assert!(!vouch.holds(Instant::now()));
}
