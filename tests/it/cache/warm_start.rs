//! Warm starts by themselves: what a replica keeps of what it holds, and what the
//! next one has in memory before its first call. It does not know when that is.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use riptide_persistence::{
    cache::{Began, Cache, WarmStart},
    store::{Calls, Handle},
    tenant::{Access, Caller, Change, Directory, SuspensionMode, Tenancy, Tenants},
};
use secrecy::SecretString;

use super::{Rig, get, keys, recorder::Recorder, set, settings};
use crate::tenant::{ADMIN, DAY_MS, named, settings as plans};

/// A replica: a memory and a directory of its own.
struct Replica {
    tenants: Tenants,
    cache: Cache,
    start: WarmStart,
}

impl Replica {
    fn on(rig: &Rig, most: usize) -> Self {
        let directory = Arc::new(Directory::new(Duration::from_secs(60)));
        let admin = SecretString::from(ADMIN);
        let plans = Arc::new(ArcSwap::from_pointee(plans()));
        let tenants = Tenants::new(rig.store.clone(), directory, plans, admin);
        let cache = rig.replica();
        let start = WarmStart::new(cache.clone(), tenants.clone(), most);
        Self {
            tenants,
            cache,
            start,
        }
    }

    async fn create(&self, tenant_id: &str) -> Tenancy {
        let mut tenant = named(tenant_id);
        tenant.profile.plan = "basic".into();
        let created = self.tenants.create(tenant, Change::default());
        created.await.unwrap();
        self.admit(tenant_id).await
    }

    async fn admit(&self, tenant_id: &str) -> Tenancy {
        let admitted = self.tenants.admit(&Caller::Admin, tenant_id, Access::Read);
        admitted.await.unwrap()
    }

    /// Has so many entries, each asked for this often and one more; `k0` most.
    async fn use_some(&self, tenancy: &Tenancy, count: usize) {
        for n in 0..count {
            let key = format!("k{n}");
            let written = self.cache.set(tenancy, "", &set(&key, &key)).await;
            written.unwrap();
            for _ in 0..=(count - n).min(10) {
                assert!(get(&self.cache, tenancy, "", &key).await.unwrap().is_some());
            }
        }
    }

    /// How many of these keys are answered without the store.
    async fn near(&self, rig: &Rig, tenancy: &Tenancy, count: usize) -> usize {
        let mut near = 0;
        for n in 0..count {
            let key = format!("k{n}");
            let read = get(&self.cache, tenancy, "", &key);
            let (calls, entry) = rig.calls(read).await;
            assert_eq!(&entry.unwrap().unwrap().value[..], key.as_bytes());
            near += usize::from(calls == Calls::default());
        }
        near
    }
}

#[tokio::test]
async fn the_next_replica_has_in_memory_what_the_last_one_had() {
    let rig = Rig::new();
    let last = Replica::on(&rig, 1000);
    let (acme, umbrella) = (last.create("acme").await, last.create("umbrella").await);
    last.use_some(&acme, 150).await;
    last.use_some(&umbrella, 5).await;
    let elsewhere = last.cache.set(&acme, "other", &set("x", "y")).await;
    elsewhere.unwrap();
    for _ in 0..3 {
        get(&last.cache, &acme, "other", "x").await.unwrap();
    }
    last.start.keep().await.unwrap();

    // Another replica that holds little takes nothing away by keeping that.
    let poor = Replica::on(&rig, 1000);
    let read = get(&poor.cache, &poor.admit("acme").await, "", "k3").await;
    assert!(read.unwrap().is_some());
    poor.start.keep().await.unwrap();

    let next = Replica::on(&rig, 1000);
    let began = next.start.begin().await.unwrap();
    let expected = Began {
        tenants: 2,
        entries: 156,
    };
    assert_eq!(began, expected);
    let (acme, umbrella) = (next.admit("acme").await, next.admit("umbrella").await);
    // It is no call of theirs.
    let (calls, ()) = rig.calls(next.tenants.flush_last_meters()).await;
    assert_eq!(calls, Calls::default(), "nothing to be billed");
    assert_eq!(next.near(&rig, &acme, 150).await, 150);
    assert_eq!(next.near(&rig, &umbrella, 5).await, 5);
    let (calls, _) = rig.calls(get(&next.cache, &acme, "other", "x")).await;
    assert_eq!(calls, Calls::default());
    // And what is near is as coherent as anything near.
    rig.cache
        .set(&acme, "", &set("k1", "changed"))
        .await
        .unwrap();
    let changed = get(&next.cache, &acme, "", "k1").await.unwrap().unwrap();
    assert_eq!(&changed.value[..], b"changed");
}

#[tokio::test]
async fn no_more_than_so_many_and_those_the_hottest() {
    let rig = Rig::new();
    let last = Replica::on(&rig, 1000);
    let acme = last.create("acme").await;
    last.use_some(&acme, 30).await;
    for _ in 0..50 {
        for key in ["k7", "k21"] {
            get(&last.cache, &acme, "", key).await.unwrap();
        }
    }
    last.start.keep().await.unwrap();
    let next = Replica::on(&rig, 2);
    assert_eq!(next.start.begin().await.unwrap().entries, 2);
    for (key, near) in [("k7", true), ("k21", true), ("k0", false)] {
        let (calls, _) = rig.calls(get(&next.cache, &acme, "", key)).await;
        assert_eq!(calls == Calls::default(), near, "{key}");
    }

    let few = Replica::on(&rig, 3);
    few.start.begin().await.unwrap();
    few.start.keep().await.unwrap();
    let after = Replica::on(&rig, 1000);
    let began = after.start.begin().await.unwrap();
    assert_eq!(began.entries, 3, "what is kept is bounded, too");
}

#[tokio::test]
async fn who_may_not_read_is_passed_over() {
    let rig = Rig::new();
    let last = Replica::on(&rig, 1000);
    for tenant_id in ["acme", "blocked", "frozen", "deleted", "purged"] {
        let tenancy = last.create(tenant_id).await;
        last.use_some(&tenancy, 3).await;
    }
    last.start.keep().await.unwrap();
    let suspend = |tenant_id: &'static str, mode| {
        last.tenants
            .suspend(tenant_id, mode, "unpaid", Change::default())
    };
    suspend("blocked", SuspensionMode::Blocked).await.unwrap();
    suspend("frozen", SuspensionMode::ReadOnly).await.unwrap();
    for tenant_id in ["deleted", "purged"] {
        let deleted = last.tenants.delete(tenant_id, false, Change::default());
        deleted.await.unwrap();
    }
    last.tenants
        .purge("purged", Change::default())
        .await
        .unwrap();

    let next = Replica::on(&rig, 1000);
    let began = next.start.begin().await.unwrap();
    let expected = Began {
        tenants: 2,
        entries: 6,
    };
    assert_eq!(began, expected, "those that may read");
    let acme = next.admit("acme").await;
    assert_eq!(next.near(&rig, &acme, 3).await, 3);

    // A tenant of the same name is another, whose keys nobody asked for.
    last.create("purged").await;
    let third = Replica::on(&rig, 1000);
    assert_eq!(third.start.begin().await.unwrap(), expected);
}

#[tokio::test]
async fn what_was_flushed_or_has_expired_is_not_pulled() {
    let rig = Rig::new();
    let last = Replica::on(&rig, 1000);
    let acme = last.create("acme").await;
    last.use_some(&acme, 10).await;
    last.start.keep().await.unwrap();
    last.cache
        .batch_delete(&acme, "", &keys(&["k0", "k1"]))
        .await
        .unwrap();
    let next = Replica::on(&rig, 1000);
    assert_eq!(next.start.begin().await.unwrap().entries, 8);

    last.cache.flush_tenant(&acme).await.unwrap();
    let next = Replica::on(&rig, 1000);
    assert_eq!(next.start.begin().await.unwrap(), Began::default());

    // What nobody renews is not kept for ever.
    rig.pass(8 * DAY_MS);
    let next = Replica::on(&rig, 1000);
    let (calls, began) = rig.calls(next.start.begin()).await;
    assert_eq!(began.unwrap(), Began::default());
    assert_eq!(calls.read, 1);
}

#[tokio::test]
async fn a_replica_that_keeps_nothing_near_asks_for_nothing() {
    let rig = Rig::new();
    let last = Replica::on(&rig, 1000);
    let acme = last.create("acme").await;
    last.use_some(&acme, 3).await;
    last.start.keep().await.unwrap();
    let mut without = settings();
    without.near.enabled = false;
    let store: Handle = Arc::new(Recorder::new(rig.store.clone()));
    let cache = Cache::new(store, rig.told.memory(&without), Arc::new(without));
    let start = WarmStart::new(cache, last.tenants.clone(), 1000);
    let (calls, began) = rig.calls(start.begin()).await;
    assert_eq!(
        (calls, began.unwrap()),
        (Calls::default(), Began::default())
    );
    let (calls, kept) = rig.calls(start.keep()).await;
    assert_eq!((calls, kept), (Calls::default(), Ok(())));
}
