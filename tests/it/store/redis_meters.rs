//! The meters of a space on a real Redis, over years that no test can wait for: the
//! state is written by hand. It does not repeat the promises of the port, which
//! conformance.rs holds every backend to.

use riptide_persistence::store::{Batch, Key, Metered, Reclaim, Space, Step, Store, Unit, Write};

use super::redis_faults::{connected, space};
use crate::redis::Redis as Server;

/// Writes a state: the format 2 where a moment is given, the format 1 else.
const STATE: &str = "
local at = tonumber(ARGV[3])
local state = struct.pack('>I6I6I7I7I6I7I6I6', 1, 0, 1, ARGV[1], 1, 0, 0, ARGV[2])
if at == 0 then state = '\\1\\0' .. state
else state = '\\2\\0' .. state .. struct.pack('>I6I6I6I7I2I6', at, 0, 0, 0, 0, 0) end
redis.call('SET', KEYS[1], state)
return 'done'";

/// Gives a space so many bytes in one record, and its meters a last move.
fn stated(server: &Server, space: &Space, bytes: u64, at_ms: u64) {
    let key = format!("v1:{{{}}}:s", space.name());
    let (bytes, at_ms) = (bytes.to_string(), at_ms.to_string());
    let done = server.cli(&["eval", STATE, "1", &key, &bytes, "0", &at_ms]);
    assert_eq!(done, "done");
}

fn metered(bytes: u64) -> Batch {
    Batch {
        metered: Metered {
            operations: 1,
            bytes,
        },
        ..Batch::default()
    }
}

#[tokio::test]
async fn the_integral_of_many_bytes_over_years_is_exact() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    for bytes in [1, (1 << 40) + 1, (1 << 50) + 12_345_678_901] {
        for days in [0, 1, 100, 365 * 12 + 7] {
            let space = space();
            let at_ms = store.now_ms() - days * 86_400_000 - 1;
            stated(&server, &space, bytes, at_ms);
            let before = store.meters(&space, Unit::Day).await.unwrap();
            assert_eq!((before.last.at_ms, before.held_bytes), (at_ms, bytes));
            store.commit(&space, metered(0)).await.unwrap();
            let after = store.meters(&space, Unit::Day).await.unwrap();
            assert_eq!(
                after.last.byte_ms,
                u128::from(bytes) * u128::from(after.last.at_ms - at_ms)
            );
            assert!(after.last.at_ms - at_ms > days * 86_400_000);
        }
    }
}

#[tokio::test]
async fn a_space_of_the_former_format_is_metered_from_its_first_move() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    stated(&server, &space, 1_000, 0);
    assert_eq!(store.usage(&space).await.unwrap().bytes, 1_000);
    let meters = store.meters(&space, Unit::Minute).await.unwrap();
    assert_eq!((meters.now().byte_ms, meters.held_bytes), (0, 0));
    let begun = store.now_ms();
    store.commit(&space, metered(7)).await.unwrap();
    store.commit(&space, metered(7)).await.unwrap();
    let meters = store.meters(&space, Unit::Minute).await.unwrap();
    assert_eq!((meters.held_bytes, meters.last.bytes), (1_000, 14));
    let most = 1_000 * u128::from(meters.now_ms - begun + 100);
    assert!(meters.now().byte_ms <= most, "{meters:?}");
    // All that was before is nothing.
    assert_eq!(meters.at(begun - 60_000).byte_ms, 0);
}

#[tokio::test]
async fn pages_of_openings_go_when_they_are_too_old() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let key = format!("v1:{{{}}}:o", space.name());
    let pages = |unit: Unit, back: u64| store.now_ms() / unit.ms() / 60 - back;
    let old = [
        format!("m{}", pages(Unit::Minute, 60)),
        format!("h{}", pages(Unit::Hour, 30)),
        format!("d{}", pages(Unit::Day, 20)),
    ];
    let kept = [
        format!("m{}", pages(Unit::Minute, 40)),
        format!("h{}", pages(Unit::Hour, 20)),
        format!("d{}", pages(Unit::Day, 10)),
    ];
    for page in old.iter().chain(&kept) {
        server.cli(&["hset", &key, page, ""]);
    }
    store.commit(&space, metered(1)).await.unwrap();
    let left = server.cli(&["hkeys", &key]);
    let left: Vec<&str> = left.lines().collect();
    assert!(old.iter().all(|page| !left.contains(&&**page)), "{left:?}");
    assert!(kept.iter().all(|page| left.contains(&&**page)), "{left:?}");
    assert_eq!(left.len(), 6);
    for unit in Unit::ALL {
        let meters = store.meters(&space, unit).await.unwrap();
        let starts: Vec<u64> = meters.openings.iter().map(|o| o.start_ms).collect();
        assert_eq!(starts, [unit.start_ms(meters.last.at_ms)]);
    }
    // Openings go with their space.
    let remove = Batch {
        step: Some(Step::Remove),
        ..Batch::default()
    };
    store.commit(&space, remove).await.unwrap();
    assert_eq!(server.cli(&["exists", &key]), "0");
}

#[tokio::test]
async fn what_is_due_is_reaped_before_anything_moves() {
    let server = Server::start();
    let store = connected(&server.url()).await;
    let space = space();
    let key = |name: &str| format!("v1:{{{}}}:{name}", space.name());
    // 300 records of 10 bytes, each of which ended in a minute of its own.
    let first = store.now_ms() - 400 * 60_000;
    stated(&server, &space, 3_000, first);
    let fill = "
for i = 1, 300 do
  local stop = string.format('%d', ARGV[1] + i * 60000)
  redis.call('ZADD', KEYS[1], stop, stop)
  redis.call('HSET', KEYS[2], stop, struct.pack('>I6I7', 1, 10))
end
local state = redis.call('GET', KEYS[3])
redis.call('SET', KEYS[3], string.sub(state, 1, 28) .. struct.pack('>I6', 300)
  .. string.sub(state, 35, 47) .. struct.pack('>I6', ARGV[1] + 60000) .. string.sub(state, 54))
return 'done'";
    let filled = ["eval", fill, "3", &key("b"), &key("h"), &key("s")];
    let first_text = first.to_string();
    let done = server.cli(&[&filled[..], &[&first_text]].concat());
    assert_eq!(done, "done");
    store.commit(&space, metered(1)).await.unwrap();
    let meters = store.meters(&space, Unit::Minute).await.unwrap();
    assert_eq!((meters.held_bytes, meters.last.bytes), (0, 1));
    // Each of them was held until its own end, and the borders say so.
    let held = |end_ms: u64| -> u128 {
        (1..=300u64)
            .map(|number| 10 * u128::from((number * 60_000).min(end_ms - first)))
            .sum()
    };
    assert_eq!(meters.last.byte_ms, held(meters.last.at_ms));
    for minutes in [1, 2, 100, 128, 129, 299, 300, 301] {
        let border = Unit::Minute.start_ms(first + minutes * 60_000);
        assert_eq!(meters.at(border).byte_ms, held(border), "{minutes}");
    }
    let usage = store.usage(&space).await.unwrap();
    assert_eq!((usage.entries, usage.bytes), (0, 0));
    // What is reclaimed by hand moves the meters too.
    let entry = Key::entry("default", "k");
    store
        .commit(&space, Batch::of([Write::put(entry, "v")]))
        .await
        .unwrap();
    let below = Reclaim::Below {
        prefix: "default:".into(),
        version: u64::MAX,
    };
    store.reclaim(&space, below, None, 100).await.unwrap();
    let after = store.meters(&space, Unit::Minute).await.unwrap();
    assert_eq!(after.held_bytes, 0);
    assert!(after.last.byte_ms >= meters.last.byte_ms);
}
