//! Calls of one entry at the same time: how few of them ask the store, and what
//! becomes of a lease whose caller has gone away. It does not know what is set.

use std::{pin::pin, sync::Arc};

use futures::future::join_all;
use riptide_persistence::{
    cache::{Cache, Leased, Refill},
    store::Calls,
    tenant::Tenancy,
};

use super::{COMMIT, Rig, again, leased, tenancy, token};
use crate::cache::{recorder::Recorder, settings};

/// A cache whose commits can be held back.
fn held_back(rig: &Rig) -> (Arc<Recorder>, Cache) {
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let cache = Cache::new(store.clone(), Arc::default(), Arc::new(settings()));
    (store, cache)
}

async fn lease(cache: &Cache, tenancy: &Tenancy) -> Leased {
    let refill = Refill::default();
    cache.get_or_lease(tenancy, "", "k", &refill).await.unwrap()
}

/// Lets everything go on that can, until nothing can.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_at_the_same_time_go_to_the_store_together() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.get(&tenant, "k").await;
    let crowd = || join_all((0..1000).map(|_| rig.lease(&tenant, "k")));
    let (calls, told) = rig.calls(crowd()).await;
    let tokens = told
        .iter()
        .filter_map(|told| match told {
            Leased::Refill(token) => Some(token),
            Leased::Wait { stale: None, .. } => None,
            other => panic!("{other:?}"),
        })
        .collect::<Vec<_>>();
    assert_eq!(tokens.len(), 1, "of a thousand one refills");
    assert_eq!(
        calls,
        Calls { read: 2, ..COMMIT },
        "the first, then the rest"
    );

    let entry = leased("k", "value", tokens[0]);
    rig.cache.set(&tenant, "", &entry).await.unwrap();
    let (calls, told) = rig.calls(crowd()).await;
    assert_eq!(
        (calls.read, calls.commit),
        (3, 0),
        "once more to keep it near"
    );
    assert!(told.iter().all(|told| matches!(told, Leased::Entry(_))));
}

#[tokio::test]
async fn whoever_comes_later_sees_what_was_done_before() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "k", "first").await;
    let mut early = pin!(rig.lease(&tenant, "k"));
    assert!(futures::poll!(early.as_mut()).is_pending());
    // The first is on its way; whoever begins after this write must see it.
    rig.set(&tenant, "k", "second").await;
    let late = rig.lease(&tenant, "k").await;
    let Leased::Entry(entry) = late else {
        panic!("{late:?}")
    };
    assert_eq!(&entry.value[..], b"second");
    assert!(matches!(early.await, Leased::Entry(_)));
}

#[tokio::test]
async fn a_lease_whose_caller_has_gone_goes_to_one_who_waits() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "another", "v").await;
    let (store, cache) = held_back(&rig);
    store.hold();
    {
        let mut gone = pin!(lease(&cache, &tenant));
        assert!(futures::poll!(gone.as_mut()).is_pending());
        settle().await;
    }
    // The first has gone while his commit was on its way; this one is the next.
    let mut waits = pin!(lease(&cache, &tenant));
    assert!(futures::poll!(waits.as_mut()).is_pending());
    store.let_go();
    let (calls, told) = rig.calls(waits).await;
    token(told);
    assert_eq!(calls.commit, 3, "taken, given up, taken");
    again(&rig.lease(&tenant, "k").await);
}

#[tokio::test]
async fn a_lease_that_nobody_waits_for_is_given_up() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "another", "v").await;
    let (store, cache) = held_back(&rig);
    store.hold();
    {
        let mut gone = pin!(lease(&cache, &tenant));
        assert!(futures::poll!(gone.as_mut()).is_pending());
        settle().await;
    }
    store.let_go();
    // No time passes here, so the lease does not end by itself.
    while !matches!(rig.lease(&tenant, "k").await, Leased::Refill(_)) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_the_store_cannot_do_is_told_to_all_and_tried_anew() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "another", "v").await;
    let (store, cache) = held_back(&rig);
    store.fail_after(0);
    let refill = Refill::default();
    let crowd = (0..10).map(|_| cache.get_or_lease(&tenant, "", "k", &refill));
    assert!(join_all(crowd).await.iter().all(|told| told.is_err()));
    store.fail_after(usize::MAX);
    token(lease(&cache, &tenant).await);
}
