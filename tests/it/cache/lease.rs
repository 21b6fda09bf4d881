//! Who refills an entry, with which token it is set, and what the others see
//! meanwhile. It does not know gRPC.

mod together;

use std::time::Duration;

use riptide_persistence::{
    cache::{Condition, Leased, Refill, Set},
    error::{Error, Result},
    store::{Calls, Usage},
    tenant::Tenancy,
};

use super::{Rig, budget::NONE, fields, flush::reclaimed, keys, set, tenancy};

const READ: Calls = Calls { read: 1, ..NONE };
const COMMIT: Calls = Calls { commit: 1, ..NONE };

/// How long a lease is held where nothing else is said.
const HELD_MS: u64 = 10_000;

impl Rig {
    async fn lease(&self, tenancy: &Tenancy, key: &str) -> Leased {
        self.lease_of(tenancy, key, &Refill::default()).await
    }

    async fn lease_of(&self, tenancy: &Tenancy, key: &str, refill: &Refill) -> Leased {
        let leased = self.cache.get_or_lease(tenancy, "", key, refill).await;
        leased.unwrap()
    }

    /// The token of a lease that nobody else holds.
    async fn token(&self, tenancy: &Tenancy, key: &str) -> String {
        token(self.lease(tenancy, key).await)
    }

    /// What a call is shown that takes what was.
    async fn stale(&self, tenancy: &Tenancy, key: &str) -> Option<String> {
        let refill = Refill {
            stale_ok: true,
            ..Refill::default()
        };
        match self.lease_of(tenancy, key, &refill).await {
            Leased::Wait { stale, .. } => {
                stale.map(|stale| String::from_utf8(stale.value.to_vec()).unwrap())
            }
            other => panic!("nobody refills it: {other:?}"),
        }
    }

    /// Sets an entry with a lease of its own.
    async fn refill(&self, tenancy: &Tenancy, key: &str, value: &str, ttl_ms: Option<i64>) {
        let token = self.token(tenancy, key).await;
        let entry = Set {
            ttl_ms,
            ..leased(key, value, &token)
        };
        self.cache.set(tenancy, "", &entry).await.unwrap();
    }
}

fn token(leased: Leased) -> String {
    match leased {
        Leased::Refill(token) => token,
        other => panic!("no lease: {other:?}"),
    }
}

fn leased<'a>(key: &'a str, value: &'a str, token: &'a str) -> Set<'a> {
    Set {
        lease_token: token,
        ..set(key, value)
    }
}

fn again(leased: &Leased) -> Duration {
    match leased {
        Leased::Wait { again, .. } => *again,
        other => panic!("nobody refills it: {other:?}"),
    }
}

/// Why a lease was refused.
fn lapsed<T: std::fmt::Debug>(result: Result<T>) -> String {
    match result {
        Err(Error::ConditionNotMet {
            subject,
            description,
        }) => {
            assert_eq!(subject, "lease_token");
            description
        }
        other => panic!("not refused for its lease: {other:?}"),
    }
}

#[tokio::test]
async fn one_refills_and_the_others_wait_for_it() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.get(&tenant, "k").await;
    let (calls, first) = rig.calls(rig.lease(&tenant, "k")).await;
    assert_eq!(calls, Calls { read: 1, ..COMMIT }, "who takes it");
    let token = token(first);

    let (calls, second) = rig.calls(rig.lease(&tenant, "k")).await;
    assert_eq!(calls, READ, "who waits");
    assert_eq!(again(&second), Duration::from_millis(20));
    rig.pass(400);
    assert_eq!(
        again(&rig.lease(&tenant, "k").await),
        Duration::from_millis(200)
    );
    let other = rig.replica();
    let elsewhere = other
        .get_or_lease(&tenant, "", "k", &Refill::default())
        .await;
    assert_eq!(again(&elsewhere.unwrap()), Duration::from_millis(200));
    assert_eq!(rig.get(&tenant, "k").await, None);

    let entry = leased("k", "value", &token);
    let (calls, written) = rig.calls(rig.cache.set(&tenant, "", &entry)).await;
    let written = written.unwrap();
    assert_eq!(calls, COMMIT, "who sets it");
    let (calls, third) = rig.calls(rig.lease(&tenant, "k")).await;
    assert!(calls.commit == 0 && calls.read >= 1, "who finds it");
    let Leased::Entry(entry) = third else {
        panic!("{third:?}")
    };
    loop {
        // It is read once more to be kept near, and from then on not at all.
        let (calls, told) = rig.calls(rig.lease(&tenant, "k")).await;
        assert!(matches!(told, Leased::Entry(_)));
        if calls == NONE {
            break;
        }
    }
    assert_eq!(
        (&entry.value[..], entry.version),
        (&b"value"[..], written.version)
    );
    assert_eq!(rig.text(&tenant, "k").await.unwrap(), "value");
}

#[tokio::test]
async fn a_lease_is_of_its_key_alone_and_counts_nothing() {
    let rig = Rig::new();
    let tenant = tenancy();
    let one = rig.token(&tenant, "a").await;
    let two = rig.token(&tenant, "b").await;
    let other = rig
        .cache
        .get_or_lease(&tenant, "other", "a", &Refill::default())
        .await;
    assert!(matches!(other, Ok(Leased::Refill(_))));
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    assert_eq!(
        usage,
        Usage {
            exact: true,
            ..Usage::default()
        }
    );
    for (key, token) in [("a", &one), ("b", &two)] {
        let entry = leased(key, "v", token);
        rig.cache.set(&tenant, "", &entry).await.unwrap();
    }
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    assert_eq!(usage.entries, 2);
    assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
}

#[tokio::test]
async fn a_lease_that_nobody_uses_goes_to_the_next_when_it_ends() {
    let rig = Rig::new();
    let tenant = tenancy();
    for (duration_ms, held_ms) in [(None, HELD_MS), (Some(100), 100), (Some(60_000), 60_000)] {
        let refill = Refill {
            duration_ms,
            ..Refill::default()
        };
        let first = token(rig.lease_of(&tenant, "k", &refill).await);
        rig.pass(held_ms - 1);
        let late = again(&rig.lease(&tenant, "k").await);
        assert_eq!(late, Duration::from_millis(1), "{held_ms}");
        rig.pass(1);
        let second = rig.token(&tenant, "k").await;
        for _ in 0..2 {
            let late = leased("k", "late", &first);
            lapsed(rig.cache.set(&tenant, "", &late).await);
        }
        let entry = leased("k", "value", &second);
        rig.cache.set(&tenant, "", &entry).await.unwrap();
        assert!(rig.cache.delete(&tenant, "", "k", 0).await.unwrap());
    }
}

#[tokio::test]
async fn a_token_is_good_for_one_entry_of_one_tenant_once() {
    let rig = Rig::new();
    let (tenant, other) = (tenancy(), tenancy());
    // Both spaces are as young, so that the versions of their leases are the same.
    let token = rig.token(&tenant, "k").await;
    let elsewhere = rig.token(&other, "k").await;
    assert_ne!(token, elsewhere);
    rig.token(&tenant, "l").await;
    let entry = leased("k", "v", &token);
    lapsed(rig.cache.set(&other, "", &entry).await);
    lapsed(rig.cache.set(&tenant, "other", &entry).await);
    let misplaced = leased("l", "v", &token);
    lapsed(rig.cache.set(&tenant, "", &misplaced).await);
    assert_eq!(rig.get(&tenant, "l").await, None);

    rig.cache.set(&tenant, "", &entry).await.unwrap();
    let again = leased("k", "again", &token);
    lapsed(rig.cache.set(&tenant, "", &again).await);
    assert_eq!(rig.text(&tenant, "k").await.unwrap(), "v");
    let entry = leased("k", "v", &elsewhere);
    rig.cache.set(&other, "", &entry).await.unwrap();
}

/// What happens to an entry while one refills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Delete,
    BatchDelete,
    InvalidateKeys,
    FlushNamespace,
    FlushTenant,
    Set,
    SetAndDelete,
    /// It was set, and is over before the lease is.
    SetShort,
    BatchSetShort,
    /// It was set for long, and then for short.
    TouchShort,
}

impl Meanwhile {
    async fn happens(self, rig: &Rig, tenancy: &Tenancy) {
        let cache = &rig.cache;
        let short = Set {
            ttl_ms: Some(50),
            ..set("k", "between")
        };
        let k = keys(&["k"]);
        match self {
            Self::Delete => assert!(!cache.delete(tenancy, "", "k", 0).await.unwrap()),
            Self::BatchDelete => {
                let deleted = cache.batch_delete(tenancy, "", &k).await.unwrap();
                assert_eq!(deleted, [Ok(false)]);
            }
            Self::InvalidateKeys => {
                let flushed = cache.invalidate_keys(tenancy, "", &k).await.unwrap();
                assert_eq!(flushed.invalidated, 0);
            }
            Self::FlushNamespace => drop(cache.flush_namespace(tenancy, "").await.unwrap()),
            Self::FlushTenant => drop(cache.flush_tenant(tenancy).await.unwrap()),
            Self::Set => drop(rig.set(tenancy, "k", "between").await),
            Self::SetAndDelete => {
                rig.set(tenancy, "k", "between").await;
                assert!(cache.delete(tenancy, "", "k", 0).await.unwrap());
            }
            Self::SetShort => {
                cache.set(tenancy, "", &short).await.unwrap();
                rig.pass(500);
            }
            Self::BatchSetShort => {
                let written = cache.batch_set(tenancy, "", &[short, short]).await.unwrap();
                assert!(written.len() == 2 && written.iter().all(Result::is_ok));
                rig.pass(500);
            }
            Self::TouchShort => {
                rig.set(tenancy, "k", "between").await;
                let touched = cache.touch(tenancy, "", "k", Some(50)).await.unwrap();
                assert!(touched.found);
                rig.pass(500);
            }
        }
    }
}

#[tokio::test]
async fn whatever_happens_to_the_entry_voids_the_lease() {
    use Meanwhile::*;
    for meanwhile in [
        Delete,
        BatchDelete,
        InvalidateKeys,
        FlushNamespace,
        FlushTenant,
        Set,
        SetAndDelete,
        SetShort,
        BatchSetShort,
        TouchShort,
    ] {
        let rig = Rig::new();
        let tenant = tenancy();
        let kept = rig.token(&tenant, "kept").await;
        let token = rig.token(&tenant, "k").await;
        meanwhile.happens(&rig, &tenant).await;
        let (calls, set) = rig
            .calls(rig.cache.set(&tenant, "", &leased("k", "late", &token)))
            .await;
        lapsed(set);
        assert!(calls.commit <= 2, "{meanwhile:?}: {calls:?}");
        let there = rig.text(&tenant, "k").await;
        assert_ne!(there.as_deref(), Some("late"), "{meanwhile:?}");

        if meanwhile == Set {
            assert_eq!(there.as_deref(), Some("between"));
            rig.cache.delete(&tenant, "", "k", 0).await.unwrap();
        } else {
            assert_eq!(there, None, "{meanwhile:?}");
        }
        // The next is not kept waiting for a lease that is none any more.
        let next = rig.token(&tenant, "k").await;
        let next = rig.cache.set(&tenant, "", &leased("k", "new", &next)).await;
        assert!(next.is_ok(), "{meanwhile:?}: {next:?}");
        let kept = rig
            .cache
            .set(&tenant, "", &leased("kept", "v", &kept))
            .await;
        let flushed = matches!(meanwhile, FlushNamespace | FlushTenant);
        assert_eq!(kept.is_err(), flushed, "{meanwhile:?}: of another key");
    }
}

#[tokio::test]
async fn after_a_removal_or_a_flush_the_next_refills_at_once() {
    use Meanwhile::*;
    for meanwhile in [
        Delete,
        BatchDelete,
        InvalidateKeys,
        FlushNamespace,
        FlushTenant,
        SetAndDelete,
        SetShort,
        TouchShort,
    ] {
        let rig = Rig::new();
        let tenant = tenancy();
        let token = rig.token(&tenant, "k").await;
        meanwhile.happens(&rig, &tenant).await;
        let next = rig.token(&tenant, "k").await;
        lapsed(
            rig.cache
                .set(&tenant, "", &leased("k", "late", &token))
                .await,
        );
        let entry = leased("k", "new", &next);
        let set = rig.cache.set(&tenant, "", &entry).await;
        assert!(set.is_ok(), "{meanwhile:?}: {set:?}");
    }
}

#[tokio::test]
async fn a_lease_stays_void_when_nothing_is_left_of_what_was_invalidated() {
    let long = Refill {
        duration_ms: Some(60_000),
        ..Refill::default()
    };
    let red = keys(&["red"]);
    for target in ["namespace", "prefix", "tags"] {
        let rig = Rig::new();
        let (tenant, cache) = (tenancy(), &rig.cache);
        let tagged = Set {
            tags: &red,
            ..set("kept before", "v")
        };
        cache.set(&tenant, "", &tagged).await.unwrap();
        let held = token(rig.lease_of(&tenant, "k", &long).await);
        let other = token(rig.lease_of(&tenant, "other", &long).await);
        match target {
            "namespace" => cache.flush_namespace(&tenant, "").await.unwrap(),
            "prefix" => cache.invalidate_prefix(&tenant, "", "k").await.unwrap(),
            _ => cache.invalidate_tags(&tenant, "", &red).await.unwrap(),
        };
        reclaimed(&rig, &tenant).await;
        assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 0);
        for cache in [cache, &rig.replica()] {
            let late = Set {
                tags: &red,
                ..leased("k", "late", &held)
            };
            lapsed(cache.set(&tenant, "", &late).await);
        }
        // It has no such prefix, and is set with no such tag.
        let other = cache.set(&tenant, "", &leased("other", "v", &other)).await;
        assert_eq!(other.is_err(), target == "namespace", "{target}");
    }
}

#[tokio::test]
async fn what_changes_nothing_leaves_the_lease() {
    let rig = Rig::new();
    let tenant = tenancy();
    let token = rig.token(&tenant, "k").await;
    rig.set(&tenant, "another", "v").await;
    let present = Set {
        condition: Some(Condition::IfPresent),
        ttl_ms: Some(50),
        ..set("k", "refused")
    };
    assert!(rig.cache.set(&tenant, "", &present).await.is_err());
    let deleted = rig.cache.delete(&tenant, "", "k", 7).await;
    assert!(!deleted.unwrap(), "there is no such version");
    rig.cache.flush_namespace(&tenant, "other").await.unwrap();
    let entry = leased("k", "v", &token);
    rig.cache.set(&tenant, "", &entry).await.unwrap();
}

#[tokio::test]
async fn stale_entries_are_shown_to_who_asks_while_one_refills() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.refill(&tenant, "k", "old", Some(60_000)).await;
    rig.pass(60_000);
    assert_eq!(rig.get(&tenant, "k").await, None);
    let token = rig.token(&tenant, "k").await;
    assert_eq!(rig.stale(&tenant, "k").await.as_deref(), Some("old"));
    let plain = rig.lease(&tenant, "k").await;
    assert!(matches!(plain, Leased::Wait { stale: None, .. }));
    assert_eq!(rig.get(&tenant, "k").await, None, "only where it will do");

    let entry = leased("k", "new", &token);
    rig.cache.set(&tenant, "", &entry).await.unwrap();
    assert_eq!(rig.text(&tenant, "k").await.unwrap(), "new");

    // As it was before it was invalidated, too, as long as it is not reclaimed.
    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    let token = rig.token(&tenant, "k").await;
    assert_eq!(rig.stale(&tenant, "k").await.as_deref(), Some("new"));
    let entry = leased("k", "newer", &token);
    rig.cache.set(&tenant, "", &entry).await.unwrap();
    assert_eq!(rig.text(&tenant, "k").await.unwrap(), "newer");

    // What was removed is gone.
    rig.cache.delete(&tenant, "", "k", 0).await.unwrap();
    rig.token(&tenant, "k").await;
    assert_eq!(rig.stale(&tenant, "k").await, None);
}

#[tokio::test]
async fn an_entry_lingers_as_long_as_the_setting_says_and_as_it_lived() {
    // Its life, what the setting says (of replicas that have one), how long it is
    // shown beyond its end.
    for (ttl_ms, stale_for_ms, shown_ms) in [
        (1_000, 30_000, 1_000),
        (59_000, 3_000, 3_000),
        (59_000, 0, 0),
    ] {
        let rig = Rig::with(|cache| cache.lease.stale_for = Duration::from_millis(stale_for_ms));
        let tenant = tenancy();
        rig.refill(&tenant, "k", "old", Some(ttl_ms)).await;
        let counted = async || rig.store.usage(&tenant.space).await.unwrap().entries;
        rig.pass(ttl_ms as u64);
        if shown_ms > 100 {
            rig.pass(shown_ms - 100);
            rig.token(&tenant, "k").await;
            let stale = rig.stale(&tenant, "k").await;
            assert_eq!(stale.as_deref(), Some("old"), "{ttl_ms} {stale_for_ms}");
            assert_eq!(counted().await, 1);
        }
        // To the end of its bucket, and no further.
        rig.pass(200);
        rig.lease(&tenant, "k").await;
        assert_eq!(
            rig.stale(&tenant, "k").await,
            None,
            "{ttl_ms} {stale_for_ms}"
        );
        assert_eq!(counted().await, 0);
        assert!(rig.store.audit(&tenant.space).await.unwrap().agrees());
    }
}

#[tokio::test]
async fn an_entry_that_was_not_refilled_does_not_linger() {
    let rig = Rig::new();
    let tenant = tenancy();
    let short = Set {
        ttl_ms: Some(1000),
        ..set("k", "old")
    };
    rig.cache.set(&tenant, "", &short).await.unwrap();
    rig.pass(1100);
    rig.token(&tenant, "k").await;
    assert_eq!(rig.stale(&tenant, "k").await, None);
    assert_eq!(rig.store.usage(&tenant.space).await.unwrap().entries, 0);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_by_its_field() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    for ms in [i64::MIN, -1, 0, 99, 60_001, i64::MAX] {
        let refill = Refill {
            duration_ms: Some(ms),
            stale_ok: true,
        };
        let asked = cache.get_or_lease(&tenant, "X", "", &refill).await;
        assert_eq!(
            fields(asked),
            ["lease_duration", "namespace", "key"],
            "{ms}"
        );
    }
    let token = rig.token(&tenant, "k").await;
    let long = "A".repeat(5000);
    for bad in ["x", " ", "=", &token[1..], &long, "\u{1F511}"] {
        let (calls, set) = rig
            .calls(cache.set(&tenant, "", &leased("k", "v", bad)))
            .await;
        assert_eq!(fields(set), ["lease_token"], "{bad:?}");
        assert_eq!(calls, NONE);
    }
    let both = Set {
        condition: Some(Condition::IfAbsent),
        if_version: 3,
        ..leased("k", "v", &token)
    };
    let refused = fields(cache.set(&tenant, "", &both).await);
    for field in ["condition", "if_version"] {
        assert!(
            refused.iter().any(|refused| refused == field),
            "{refused:?}"
        );
    }
    let unknown = Set {
        condition: None,
        ..leased("k", "v", "?")
    };
    let refused = fields(cache.set(&tenant, "", &unknown).await);
    assert_eq!(refused, ["condition", "lease_token"]);
    cache
        .set(&tenant, "", &leased("k", "v", &token))
        .await
        .unwrap();
}
