//! Windows that permits are leased from. It does not know what is permitted.
//!
//! In a window of 1 s a slot is 1 ms, so a lease that is not held tells in
//! `until_ms` when it was decided: times are compared by what the store says.

use std::time::Duration;

use riptide_persistence::store::{Error, Lease, Leased, Settle, Step, slot_ms};
use tokio::task::JoinSet;

use super::*;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60_000;

/// Asks for all that is free, of so many.
fn of(limit: u64, span_ms: u64) -> Lease {
    Lease {
        window: Bytes::from_static(b"w"),
        limit,
        span_ms,
        want: 0,
        least: 0,
        share: 1,
        hold_ms: 0,
        forced: 0,
        settle: None,
    }
}

fn wanting(limit: u64, span_ms: u64, least: u64, want: u64) -> Lease {
    Lease {
        want,
        least,
        ..of(limit, span_ms)
    }
}

fn settling(lease: Lease, until_ms: u64, used: u64, unused: u64) -> Lease {
    Lease {
        settle: Some(Settle {
            until_ms,
            used,
            unused,
        }),
        ..lease
    }
}

async fn lease(store: &Handle, space: &Space, lease: Lease) -> Leased {
    let asked = lease.clone();
    let leased = store.lease(space, lease).await.unwrap();
    assert!(leased.granted == 0 || (asked.least..=asked.want).contains(&leased.granted));
    assert!(
        leased.granted == 0 || leased.retry_after_ms.is_none(),
        "{leased:?}"
    );
    assert_eq!(leased.until_ms % slot_ms(asked.span_ms), 0, "{leased:?}");
    leased
}

/// What was given, and what counts.
async fn given(store: &Handle, space: &Space, asked: Lease) -> (u64, u64) {
    let leased = lease(store, space, asked).await;
    (leased.granted, leased.counted)
}

/// When the permits that were refused are free, by what a refusal tells.
fn free_ms(refused: Leased) -> u64 {
    assert_eq!(refused.granted, 0, "{refused:?}");
    refused.until_ms + refused.retry_after_ms.unwrap()
}

async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

pub async fn what_is_free_is_given(store: &Handle) {
    let space = space();
    for (want, expected) in [(10, (10, 10)), (0, (0, 10)), (1000, (90, 100))] {
        let asked = wanting(100, MINUTE, want.min(1), want);
        assert_eq!(given(store, &space, asked).await, expected, "{want}");
    }
    let refused = lease(store, &space, wanting(100, MINUTE, 1, 5)).await;
    assert_eq!((refused.granted, refused.counted), (0, 100));
    let wait_ms = refused.retry_after_ms.unwrap();
    assert!((MINUTE / 2..=MINUTE + 100).contains(&wait_ms), "{wait_ms}");
    let other = Lease {
        window: Bytes::from_static(b"W"),
        ..wanting(100, MINUTE, 1, 5)
    };
    assert_eq!(given(store, &space, other.clone()).await, (5, 5));
    let elsewhere = super::space();
    assert_eq!(given(store, &elsewhere, other).await, (5, 5));
    assert_eq!(counted(store, &space).await, (0, 0));
    assert_eq!(view(store, &space).await, View::default());
    assert_agrees(store, &space).await;
}

pub async fn no_fewer_than_the_least_are_given(store: &Handle) {
    let space = space();
    for (least, want, expected) in [
        (101, 200, (0, 0)),
        (60, 60, (60, 60)),
        (41, 50, (0, 60)),
        (40, 50, (40, 100)),
        (0, 50, (0, 100)),
    ] {
        let asked = wanting(100, MINUTE, least, want);
        assert_eq!(given(store, &space, asked).await, expected, "{least}");
    }
    let never = lease(store, &space, wanting(100, MINUTE, 101, 200)).await;
    assert_eq!(never.retry_after_ms, None, "more than the limit");
    let now = lease(store, &space, wanting(100, MINUTE, 0, 1)).await;
    assert_eq!(now.retry_after_ms, Some(0), "none are free at once");
}

pub async fn a_share_of_the_free_is_given(store: &Handle) {
    let space = space();
    for (least, want, share, expected) in [
        (1, 100, 4, (26, 26)),  // 1 + 100 / 4
        (1, 10, 4, (10, 36)),   // as wanted
        (10, 99, 4, (26, 62)),  // 10 + 64 / 4
        (30, 99, 4, (38, 100)), // 30 + 38 / 4 are more than are free
    ] {
        let asked = Lease {
            share,
            ..wanting(100, MINUTE, least, want)
        };
        assert_eq!(given(store, &space, asked).await, expected, "{least}");
    }
    let asked = Lease {
        share: u64::from(u32::MAX),
        window: Bytes::from_static(b"small"),
        ..wanting(100, MINUTE, 2, 50)
    };
    assert_eq!(given(store, &space, asked).await, (2, 2));
}

pub async fn a_lease_ends_with_a_slot(store: &Handle) {
    let space = space();
    for (span_ms, hold_ms) in [
        (SECOND, 0),
        (SECOND, 100),
        (1_999, 7),
        (MINUTE, 0),
        (MINUTE, 1_000),
        (31 * 86_400_000, 3 * 86_400_000),
    ] {
        let asked = Lease {
            hold_ms,
            window: Bytes::from(format!("{span_ms} {hold_ms}")),
            ..wanting(10, span_ms, 1, 1)
        };
        let before = store.now_ms();
        let leased = lease(store, &space, asked).await;
        let slack = 500;
        let slot = slot_ms(span_ms);
        assert!(leased.until_ms + slack >= before + hold_ms, "{leased:?}");
        assert!(
            leased.until_ms <= store.now_ms() + hold_ms + slot + slack,
            "{leased:?}"
        );
    }
}

pub async fn permits_are_free_when_it_was_told(store: &Handle) {
    let space = space();
    let held = Lease {
        hold_ms: 100,
        ..wanting(3, SECOND, 1, 3)
    };
    let first = lease(store, &space, held).await;
    assert_eq!(first.granted, 3);
    let free = first.until_ms + SECOND;
    let second = loop {
        let asked = lease(store, &space, wanting(3, SECOND, 3, 3)).await;
        if asked.granted > 0 {
            break asked;
        }
        assert!(asked.until_ms < free, "{asked:?} when free at {free}");
        assert_eq!(free_ms(asked), free);
        assert_eq!(asked.counted, 3);
        // To just before it, and then as often as can be.
        sleep(asked.retry_after_ms.unwrap().saturating_sub(15) / 2).await;
    };
    assert!(second.until_ms >= free, "{second:?} before {free}");
    assert_eq!((second.granted, second.counted), (3, 3));
    let refused = lease(store, &space, wanting(3, SECOND, 1, 3)).await;
    assert_eq!(free_ms(refused), second.until_ms + SECOND);
    sleep(refused.retry_after_ms.unwrap()).await;
    let third = lease(store, &space, wanting(3, SECOND, 1, 3)).await;
    assert_eq!(third.granted, 3, "at the told time");
}

pub async fn the_wait_is_for_as_many_as_are_needed(store: &Handle) {
    let space = space();
    let first = lease(store, &space, wanting(5, SECOND, 2, 2)).await;
    sleep(20).await;
    let second = lease(store, &space, wanting(5, SECOND, 3, 3)).await;
    assert_eq!((second.granted, second.counted), (3, 5));
    for (least, after) in [(1, first), (2, first), (3, second), (5, second)] {
        let refused = lease(store, &space, wanting(5, SECOND, least, 5)).await;
        assert_eq!(free_ms(refused), after.until_ms + SECOND, "{least}");
    }
    let never = lease(store, &space, wanting(5, SECOND, 6, 6)).await;
    assert_eq!((never.granted, never.retry_after_ms), (0, None));
    sleep((first.until_ms + SECOND).saturating_sub(second.until_ms)).await;
    let partly = lease(store, &space, wanting(5, SECOND, 1, 5)).await;
    assert_eq!((partly.granted, partly.counted), (2, 5));
}

pub async fn unused_permits_are_free_again(store: &Handle) {
    let space = space();
    let held = Lease {
        hold_ms: 1_000,
        ..wanting(10, MINUTE, 1, 10)
    };
    let first = lease(store, &space, held).await;
    assert_eq!(first.granted, 10);
    let settled = settling(of(10, MINUTE), first.until_ms, 0, 4);
    assert_eq!(given(store, &space, settled).await, (0, 6));
    // What is settled makes room in the same step.
    let settled = settling(wanting(10, MINUTE, 7, 9), first.until_ms, 0, 3);
    assert_eq!(given(store, &space, settled).await, (7, 10));
    let second = settling(of(10, MINUTE), first.until_ms, 3, 0);
    assert_eq!(given(store, &space, second).await, (0, 10));
    // Nothing is left of the first lease, and nothing ever was of others.
    for (until_ms, used, unused) in [
        (first.until_ms, 5, 5),
        (first.until_ms + 3_000, 0, 10),
        (0, 0, 10),
        (u64::from(u32::MAX), 10, 10),
    ] {
        let settled = settling(of(10, MINUTE), until_ms, used, unused);
        assert_eq!(given(store, &space, settled).await, (0, 10), "{until_ms}");
    }
}

pub async fn used_permits_count_from_when_it_was_told(store: &Handle) {
    let space = space();
    let held = || Lease {
        hold_ms: 100,
        ..wanting(10, SECOND, 1, 10)
    };
    let first = lease(store, &space, held()).await;
    let settled = settling(of(10, SECOND), first.until_ms, 4, 3);
    let settled = lease(store, &space, settled).await;
    assert_eq!(settled.counted, 7);
    let told_ms = settled.until_ms.min(first.until_ms);
    for (least, free) in [(4, told_ms), (7, told_ms), (8, first.until_ms)] {
        let refused = lease(store, &space, wanting(10, SECOND, least, 10)).await;
        assert_eq!(free_ms(refused), free + SECOND, "{least}");
    }
    // Told after the lease has ended, they count from its end.
    let space = super::space();
    let first = lease(store, &space, held()).await;
    sleep(130).await;
    let late = settling(wanting(10, SECOND, 10, 10), first.until_ms, 9, 0);
    let late = lease(store, &space, late).await;
    assert_eq!(late.counted, 10);
    assert_eq!(free_ms(late), first.until_ms + SECOND);
}

pub async fn leases_of_one_slot_are_settled_apart(store: &Handle) {
    let space = space();
    let day = 86_400_000;
    let first = lease(store, &space, wanting(10, day, 4, 4)).await;
    let second = lease(store, &space, wanting(10, day, 5, 5)).await;
    assert_eq!(second.counted, 9);
    let settled = settling(of(10, day), first.until_ms, 1, 3);
    assert_eq!(given(store, &space, settled).await, (0, 6));
    let settled = settling(of(10, day), second.until_ms, 0, 5);
    assert_eq!(given(store, &space, settled).await, (0, 1));
}

pub async fn forced_permits_count_beyond_the_limit(store: &Handle) {
    let space = space();
    let forced = |forced, lease| Lease { forced, ..lease };
    let asked = forced(2, wanting(5, SECOND, 1, 5));
    assert_eq!(given(store, &space, asked).await, (3, 5));
    let beyond = forced(8, wanting(5, SECOND, 1, 5));
    let beyond = lease(store, &space, beyond).await;
    assert_eq!((beyond.granted, beyond.counted), (0, 13));
    assert_eq!(free_ms(beyond), beyond.until_ms + SECOND);
    let refused = lease(store, &space, wanting(5, SECOND, 1, 5)).await;
    assert_eq!((refused.granted, refused.counted), (0, 13));
    assert_eq!(free_ms(refused), beyond.until_ms + SECOND);
    sleep(refused.retry_after_ms.unwrap()).await;
    let again = wanting(5, SECOND, 5, 5);
    assert_eq!(given(store, &space, again).await, (5, 5));
}

pub async fn the_limit_is_the_one_asked_with(store: &Handle) {
    let space = space();
    for (limit, want, expected) in [
        (10, 10, (10, 10)),
        (20, 20, (10, 20)),
        (5, 1, (0, 20)),
        (0, 1, (0, 20)),
        (21, 9, (1, 21)),
    ] {
        let asked = wanting(limit, SECOND, 1, want);
        assert_eq!(given(store, &space, asked).await, expected, "{limit}");
    }
    let lowered = lease(store, &space, wanting(5, SECOND, 1, 1)).await;
    assert!(lowered.retry_after_ms.unwrap() <= SECOND);
    let none = lease(store, &space, wanting(0, SECOND, 1, 1)).await;
    assert_eq!((none.granted, none.retry_after_ms), (0, None));
    let space = super::space();
    assert_eq!(given(store, &space, wanting(0, SECOND, 1, 9)).await, (0, 0));
    assert_eq!(given(store, &space, wanting(0, SECOND, 0, 9)).await, (0, 0));
}

pub async fn asking_takes_nothing(store: &Handle) {
    let space = space();
    for _ in 0..3 {
        let asked = lease(store, &space, of(10, MINUTE)).await;
        assert_eq!((asked.granted, asked.counted), (0, 0));
        assert_eq!(asked.retry_after_ms, Some(0));
    }
    assert_eq!(
        given(store, &space, wanting(10, MINUTE, 4, 4)).await,
        (4, 4)
    );
    for _ in 0..3 {
        assert_eq!(given(store, &space, of(10, MINUTE)).await, (0, 4));
    }
}

pub async fn many_leasers_share_a_limit(store: &Handle) {
    let space = space();
    let mut tasks = JoinSet::new();
    for task in 0..32u64 {
        let (store, space) = (store.clone(), space.clone());
        tasks.spawn(async move {
            let (mut kept, mut open) = (0, None::<Leased>);
            loop {
                let asked = Lease {
                    share: 4,
                    hold_ms: 1_000,
                    ..wanting(500, 10 * MINUTE, 1, 40)
                };
                // A third of each lease is used, a third given back.
                let asked = match open.take() {
                    Some(leased) if task % 2 == 0 => {
                        let part = leased.granted / 3;
                        kept += leased.granted - part;
                        settling(asked, leased.until_ms, part, part)
                    }
                    Some(leased) => {
                        kept += leased.granted;
                        asked
                    }
                    None => asked,
                };
                let leased = store.lease(&space, asked).await.unwrap();
                assert!(leased.counted <= 500, "{leased:?}");
                if leased.granted == 0 {
                    return kept;
                }
                open = Some(leased);
            }
        });
    }
    let kept: u64 = tasks.join_all().await.into_iter().sum();
    let asked = lease(store, &space, of(500, 10 * MINUTE)).await;
    assert_eq!(asked.counted, kept);
    let rest = wanting(500, 10 * MINUTE, 0, 500);
    assert_eq!(given(store, &space, rest).await, (500 - kept, 500));
}

pub async fn a_sliding_second_never_holds_more(store: &Handle) {
    let space = space();
    let mut tasks = JoinSet::new();
    let limit = 40;
    for _ in 0..4 {
        let (store, space) = (store.clone(), space.clone());
        tasks.spawn(async move {
            let mut used = Vec::new();
            let end = store.now_ms() + 2_500;
            while store.now_ms() < end {
                let leased = lease(&store, &space, wanting(limit, SECOND, 1, 3)).await;
                used.extend(vec![
                    leased.until_ms;
                    usize::try_from(leased.granted).unwrap()
                ]);
                sleep(leased.retry_after_ms.unwrap_or(3).min(50)).await;
            }
            used
        });
    }
    let mut used = tasks.join_all().await.concat();
    used.sort_unstable();
    assert!(used.len() > 80, "{} in 2 s", used.len());
    for (place, at_ms) in used.iter().enumerate() {
        let within = used[place..].partition_point(|used_ms| *used_ms < at_ms + SECOND);
        assert!(within <= 40, "{within} in the second from {at_ms}");
    }
}

pub async fn misuse_of_leases_takes_nothing(store: &Handle) {
    let space = space();
    let good = wanting(10, MINUTE, 1, 5);
    for misused in [
        Lease {
            window: Bytes::new(),
            ..good.clone()
        },
        Lease {
            span_ms: 999,
            ..good.clone()
        },
        Lease {
            span_ms: 31 * 86_400_000 + 1,
            ..good.clone()
        },
        Lease {
            least: 6,
            ..good.clone()
        },
        Lease {
            share: 0,
            ..good.clone()
        },
        Lease {
            hold_ms: 6_001,
            ..good.clone()
        },
    ] {
        let result = store.lease(&space, misused.clone()).await;
        assert!(
            matches!(result, Err(Error::Misuse(_))),
            "{misused:?}: {result:?}"
        );
    }
    assert_eq!(given(store, &space, good).await, (5, 5));
}

pub async fn a_removed_space_leases_and_adds_nothing(store: &Handle) {
    use riptide_persistence::store::{Add, Count, Row, Tally};
    let space = space();
    let tally = Tally {
        adds: vec![Add {
            row: Bytes::from_static(b"r"),
            keep_ms: None,
            counts: vec![Count {
                name: Bytes::from_static(b"n"),
                amount: 1,
                limit: None,
            }],
        }],
        ..Tally::default()
    };
    store.tally(&space, tally.clone()).await.unwrap();
    lease(store, &space, wanting(10, MINUTE, 1, 5)).await;
    let remove = Batch {
        step: Some(Step::Remove),
        ..Batch::default()
    };
    applied(store, &space, remove).await;
    let rows = store.rows(&space, &[Bytes::from_static(b"r")]).await;
    assert_eq!(rows.unwrap(), [Row::new()]);
    let tallied = store.tally(&space, tally).await;
    assert!(matches!(tallied, Err(Error::Misuse(_))), "{tallied:?}");
    let leased = store.lease(&space, wanting(10, MINUTE, 1, 5)).await;
    assert!(matches!(leased, Err(Error::Misuse(_))), "{leased:?}");
}
