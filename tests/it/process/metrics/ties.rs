//! How a replica is tied to its store: connections that are lost and made anew, and whether
//! it may answer from its memory. It does not know what is answered.

use rstest::rstest;

use super::{scrape, sum};
use crate::{
    redis::{Redis, eventually},
    server::{Kind, Server},
};

const ROLES: [&str; 3] = ["calls", "feed", "tracking"];

/// What is told of connections of each role.
fn told(server: &Server, name: &str) -> [f64; 3] {
    let samples = scrape(server).1;
    ROLES.map(|role| sum(&samples, name, &[&format!("\"{role}\"")]))
}

fn connections(server: &Server) -> [f64; 3] {
    told(server, "riptide_redis_connections")
}

fn reconnects(server: &Server) -> [f64; 3] {
    told(server, "riptide_redis_reconnects_total")
}

fn vouched(server: &Server) -> bool {
    sum(&scrape(server).1, "riptide_cache_near_vouched", &[]) == 1.0
}

/// The connections that Redis has, by id, and whether each is tracked; but for that of
/// whoever asks.
fn seen(redis: &Redis) -> Vec<(String, bool)> {
    let list = redis.cli(&["client", "list"]);
    let word = |line: &str, name: &str| {
        let mut words = line.split(' ').filter_map(|word| word.split_once('='));
        let (_, value) = words.find(|(found, _)| *found == name).unwrap();
        value.to_owned()
    };
    list.lines()
        .filter(|line| !word(line, "cmd").starts_with("client|list"))
        .map(|line| (word(line, "id"), word(line, "flags").contains('t')))
        .collect()
}

/// Waits until all connections are told of that Redis has, and all vouch.
fn settled(server: &Server, redis: &Redis) -> [f64; 3] {
    let mut last = [0.0; 3];
    eventually("what is told is what Redis has", || {
        last = connections(server);
        let seen = seen(redis);
        let tracked = seen.iter().filter(|(_, tracked)| *tracked).count();
        last.iter().sum::<f64>() == seen.len() as f64
            && last[2] == tracked as f64
            && last[1] == 1.0
            && vouched(server)
    });
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_once_it_is_made_anew() {
    let mut server = Kind::Redis.start().await;
    let redis = server.take_redis().unwrap();
    let before = settled(&server, &redis);
    // A core or more, the background and the thread of checkpoints, each tracked.
    assert!(before[2] >= 3.0 && before[0] >= before[2], "{before:?}");
    assert_eq!(reconnects(&server), [0.0; 3]);
    let kill = |tracked: bool| {
        let (id, _) = seen(&redis)
            .into_iter()
            .find(|(_, it)| *it == tracked)
            .unwrap();
        redis.cli(&["client", "kill", "id", &id]);
    };
    kill(true);
    eventually("it is told of", || reconnects(&server) == [0.0, 0.0, 1.0]);
    assert_eq!(settled(&server, &redis), before);
    kill(false);
    eventually("it is told of", || {
        let [calls, feed, tracking] = reconnects(&server);
        calls + feed == 1.0 && tracking == 1.0
    });
    assert_eq!(settled(&server, &redis), before);
    server.hold(Some(redis));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_has_no_connections_until_it_is_back() {
    let mut server = Kind::Redis.start().await;
    let mut redis = server.take_redis().unwrap();
    let before = settled(&server, &redis);
    redis.kill();
    eventually("all are lost", || connections(&server) == [0.0; 3]);
    assert!(!vouched(&server));
    redis.restart();
    server.serves(true).await;
    assert_eq!(settled(&server, &redis), before);
    // Each of them, at least once: one may be lost again while Redis loads.
    let after = reconnects(&server);
    for (role, (after, before)) in ROLES.iter().zip(after.iter().zip(before)) {
        assert!(*after >= before, "{role}: {after} of {before}");
    }
    server.hold(Some(redis));
}

#[tokio::test(flavor = "multi_thread")]
async fn near_reads_are_told_to_be_off_while_redis_stands_still() {
    let mut server = Kind::Redis.start().await;
    let redis = server.take_redis().unwrap();
    settled(&server, &redis);
    redis.freeze();
    eventually("nothing is vouched for", || !vouched(&server));
    redis.thaw();
    eventually("it is again", || vouched(&server));
    server.hold(Some(redis));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread")]
async fn near_reads_are_told_of_where_they_are_switched_on(#[case] kind: Kind) {
    let server = kind.start().await;
    eventually("it is vouched for", || vouched(&server));
    let off = |config: &mut riptide_persistence::config::Config| {
        config.cache.near.enabled = false;
        config.cache.warm_start.enabled = false;
    };
    let without = kind.start_with(off).await;
    let samples = scrape(&without).1;
    assert!(!samples.contains_key("riptide_cache_near_vouched"));
    if kind == Kind::Redis {
        eventually("there are others", || connections(&without)[0] > 0.0);
        assert_eq!(connections(&without)[2], 0.0);
    }
}
