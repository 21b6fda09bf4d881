//! Entries in a replica's own memory: what is answered from there, and that nothing
//! is which the caller could know to be over. It does not know gRPC, or how a store
//! learns of changes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use riptide_persistence::{
    cache::{Cache, Consistency, Freshness, Memory, Pulled},
    error::Error,
    store::{STALENESS, Watch},
    tenant::Tenancy,
};
use tokio::task::JoinSet;

use super::{Rig, get, keys, recorder::Recorder, set, settings, tenancy};

/// A cache of its own on a store that stops where the test says so. Nobody tells it
/// of changes; what vouches for its reads is the test's.
struct Deaf {
    cache: Cache,
    store: Arc<Recorder>,
    watch: Arc<Watch>,
}

impl Deaf {
    fn on(rig: &Rig) -> Self {
        let store = Arc::new(Recorder::new(rig.store.clone()));
        let watch = Arc::new(Watch::always());
        *store.watch.lock().unwrap() = Some(watch.clone());
        let memory = Arc::new(Memory::new(&settings().near));
        let cache = Cache::new(store.clone(), memory, Arc::new(settings()));
        Self {
            cache,
            store,
            watch,
        }
    }

    async fn text(&self, tenancy: &Tenancy, key: &str) -> Option<String> {
        text(&self.cache, tenancy, key).await
    }

    /// Reads until it is answered from memory.
    async fn warm(&self, tenancy: &Tenancy, key: &str) {
        for _ in 0..2 {
            self.text(tenancy, key).await;
        }
        let calls = self.store.reads.calls();
        self.text(tenancy, key).await;
        assert_eq!(self.store.reads.calls(), calls, "from memory");
    }
}

async fn text(cache: &Cache, tenancy: &Tenancy, key: &str) -> Option<String> {
    let entry = get(cache, tenancy, "", key).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// Whether a read asked the store.
async fn asks(rig: &Rig, tenancy: &Tenancy, freshness: Freshness) -> bool {
    let call = rig.cache.get(tenancy, "", "k", &freshness);
    let (calls, entry) = rig.calls(call).await;
    assert!(entry.unwrap().is_some());
    calls.read > 0
}

#[tokio::test]
async fn what_was_written_here_is_read_here() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let warm = async |value: &str| {
        rig.set(&tenant, "k", value).await;
        for _ in 0..2 {
            assert_eq!(rig.text(&tenant, "k").await.as_deref(), Some(value));
        }
        assert!(!asks(&rig, &tenant, Freshness::default()).await);
    };
    warm("a").await;
    warm("b").await;
    let touched = cache.touch(&tenant, "", "k", Some(1000)).await.unwrap();
    let read = rig.get(&tenant, "k").await.unwrap();
    assert_eq!(read.expire_ms, touched.expire_ms);
    warm("c").await;
    assert!(cache.delete(&tenant, "", "k", 0).await.unwrap());
    assert_eq!(rig.text(&tenant, "k").await, None);
    warm("d").await;
    let written = cache.batch_set(&tenant, "", &[set("k", "e")]).await;
    assert!(written.unwrap()[0].is_ok());
    assert_eq!(rig.text(&tenant, "k").await.as_deref(), Some("e"));
    warm("f").await;
    let all = keys(&["k"]);
    cache.batch_delete(&tenant, "", &all).await.unwrap();
    assert_eq!(rig.text(&tenant, "k").await, None);
    warm("g").await;
    cache.invalidate_keys(&tenant, "", &all).await.unwrap();
    assert_eq!(rig.text(&tenant, "k").await, None);
    for round in ["h", "i"] {
        warm(round).await;
        cache.flush_namespace(&tenant, "").await.unwrap();
        assert_eq!(rig.text(&tenant, "k").await, None);
        warm(round).await;
        cache.flush_tenant(&tenant).await.unwrap();
        assert_eq!(rig.text(&tenant, "k").await, None);
    }
}

#[tokio::test]
async fn what_another_replica_wrote_is_read_here() {
    let rig = Rig::new();
    let (tenant, other) = (tenancy(), rig.replica());
    let warm = async |value: &str| {
        let written = other.set(&tenant, "", &set("k", value)).await;
        written.unwrap();
        for _ in 0..2 {
            assert_eq!(rig.text(&tenant, "k").await.as_deref(), Some(value));
        }
        assert!(!asks(&rig, &tenant, Freshness::default()).await);
    };
    warm("a").await;
    warm("b").await;
    let touched = other.touch(&tenant, "", "k", Some(1000)).await.unwrap();
    let read = rig.get(&tenant, "k").await.unwrap();
    assert_eq!(read.expire_ms, touched.expire_ms);
    warm("c").await;
    other.delete(&tenant, "", "k", 0).await.unwrap();
    assert_eq!(rig.text(&tenant, "k").await, None);
    for round in ["d", "e"] {
        warm(round).await;
        other.flush_namespace(&tenant, "").await.unwrap();
        assert_eq!(rig.text(&tenant, "k").await, None);
        warm(round).await;
        other.flush_tenant(&tenant).await.unwrap();
        assert_eq!(rig.text(&tenant, "k").await, None);
    }
}

#[tokio::test]
async fn a_caller_who_wants_more_asks_the_store() {
    let rig = Rig::new();
    let tenant = tenancy();
    let written = rig.set(&tenant, "k", "v").await;
    rig.get(&tenant, "k").await;
    let version = i64::try_from(written.version).unwrap();
    let with = |set: &dyn Fn(&mut Freshness)| {
        let mut freshness = Freshness::default();
        set(&mut freshness);
        freshness
    };
    for (case, asked, freshness) in [
        ("by default", false, with(&|_| {})),
        (
            "strong",
            true,
            with(&|f| f.consistency = Some(Consistency::Strong)),
        ),
        ("no age", true, with(&|f| f.max_age_ms = Some(0))),
        ("an age", false, with(&|f| f.max_age_ms = Some(1))),
        ("any age", false, with(&|f| f.max_age_ms = Some(i64::MAX))),
        ("its version", false, with(&|f| f.min_version = version)),
        ("a later one", true, with(&|f| f.min_version = version + 1)),
        ("by default again", false, with(&|_| {})),
    ] {
        assert_eq!(asks(&rig, &tenant, freshness).await, asked, "{case}");
    }
    let strong = with(&|f| f.consistency = Some(Consistency::Strong));
    let all = keys(&["k"]);
    let call = rig.cache.batch_get(&tenant, "", &all, &strong);
    assert_eq!(rig.calls(call).await.0.read, 1, "a strong batch");
}

#[tokio::test]
async fn an_answer_is_no_older_than_its_caller_allows() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "v").await;
    let watch = Arc::new(Watch::default());
    let proven = Instant::now() + Duration::from_secs(60);
    watch.prove(proven);
    *deaf.store.watch.lock().unwrap() = Some(watch.clone());
    deaf.warm(&tenant, "k").await;
    // Proven long ago, and for a while yet.
    watch.prove(Instant::now() - Duration::from_millis(300));
    let asked = async |max_age_ms| {
        let freshness = Freshness {
            max_age_ms: Some(max_age_ms),
            ..Freshness::default()
        };
        let before = deaf.store.reads.calls();
        let read = deaf.cache.get(&tenant, "", "k", &freshness).await;
        assert!(read.unwrap().is_some());
        deaf.store.reads.calls() > before
    };
    assert!(asked(299).await);
    watch.prove(proven);
    assert!(!asked(299).await);
}

#[tokio::test]
async fn a_switch_turns_it_off() {
    let rig = Rig::with(|settings| settings.near.enabled = false);
    let tenant = tenancy();
    rig.set(&tenant, "k", "v").await;
    for _ in 0..3 {
        assert!(asks(&rig, &tenant, Freshness::default()).await);
    }
    assert!(rig.memory.near().is_none());
    let all = keys(&["k", "absent"]);
    let pulled = rig.cache.pull(&tenant, "", &all).await.unwrap();
    assert_eq!(pulled, [Ok(Pulled::Left), Ok(Pulled::Missing)]);
}

#[tokio::test]
async fn an_entry_ends_to_the_millisecond() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "k", "v").await;
    rig.cache.touch(&tenant, "", "k", Some(100)).await.unwrap();
    rig.get(&tenant, "k").await;
    rig.pass(99);
    assert!(!asks(&rig, &tenant, Freshness::default()).await);
    rig.pass(1);
    assert_eq!(rig.get(&tenant, "k").await, None);
    assert_eq!(rig.memory.near().unwrap().size().0, 0, "it has left");
}

#[tokio::test]
async fn what_changes_while_it_is_read_is_not_kept() {
    let rig = Rig::new();
    let tenant = tenancy();
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let memory = rig.told.memory(&settings());
    let cache = Cache::new(store.clone(), memory, Arc::new(settings()));
    rig.set(&tenant, "k", "before").await;
    rig.set(&tenant, "other", "v").await;
    text(&cache, &tenant, "other").await;
    store.reads.close();
    let calls = store.reads.calls();
    let reading = tokio::spawn({
        let (cache, tenant) = (cache.clone(), tenant.clone());
        async move { text(&cache, &tenant, "k").await }
    });
    store.reads.arrived(calls + 1).await;
    // Another replica writes, and all are told, before the read has come back.
    rig.set(&tenant, "k", "after").await;
    store.reads.open();
    assert_eq!(reading.await.unwrap().as_deref(), Some("before"));
    assert_eq!(text(&cache, &tenant, "k").await.as_deref(), Some("after"));
}

#[tokio::test]
async fn floors_that_change_while_they_are_read_vouch_for_nothing() {
    let rig = Rig::new();
    let tenant = tenancy();
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let memory = rig.told.memory(&settings());
    let cache = Cache::new(store.clone(), memory, Arc::new(settings()));
    rig.set(&tenant, "k", "v").await;
    store.reads.close();
    let reading = tokio::spawn({
        let (cache, tenant) = (cache.clone(), tenant.clone());
        async move { text(&cache, &tenant, "k").await }
    });
    // The snapshot has been read, and the namespace is flushed meanwhile.
    store.reads.arrived(1).await;
    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    store.reads.open();
    assert_eq!(reading.await.unwrap(), None);
    assert_eq!(text(&cache, &tenant, "k").await, None);
}

#[tokio::test]
async fn a_promise_that_ended_is_not_relied_on() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "a").await;
    deaf.warm(&tenant, "k").await;
    rig.set(&tenant, "k", "b").await;
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("a"), "deaf");
    deaf.watch.break_off();
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("b"));
    // While there is no promise, nothing is kept.
    rig.set(&tenant, "k", "c").await;
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("c"));
    // A new one does not bring back what the old one was for.
    deaf.watch.prove(Instant::now() + Duration::from_secs(60));
    deaf.warm(&tenant, "k").await;
    rig.set(&tenant, "k", "d").await;
    deaf.watch.break_off();
    deaf.watch.prove(Instant::now() + Duration::from_secs(60));
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("d"));
    deaf.warm(&tenant, "k").await;
    rig.set(&tenant, "k", "e").await;
    // Not proven for too long.
    deaf.watch.prove(Instant::now() - STALENESS);
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("e"));
}

#[tokio::test]
async fn a_write_whose_end_nobody_knows_leaves_nothing_kept() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "a").await;
    deaf.warm(&tenant, "k").await;
    // It was written, and the answer was lost.
    deaf.store.loses.store(true, Ordering::SeqCst);
    let lost = deaf.cache.set(&tenant, "", &set("k", "b")).await;
    assert!(matches!(lost, Err(Error::OutcomeUnknown)), "{lost:?}");
    deaf.store.loses.store(false, Ordering::SeqCst);
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("b"));
    deaf.warm(&tenant, "k").await;
    // It was written, and the caller went away before the answer.
    deaf.store.commits.close();
    let calls = deaf.store.commits.calls();
    let writing = tokio::spawn({
        let (cache, tenant) = (deaf.cache.clone(), tenant.clone());
        async move { cache.set(&tenant, "", &set("k", "c")).await }
    });
    deaf.store.commits.arrived(calls + 1).await;
    writing.abort();
    assert!(writing.await.is_err());
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("c"));
    // So with a flush.
    deaf.store.commits.open();
    deaf.warm(&tenant, "k").await;
    deaf.store.loses.store(true, Ordering::SeqCst);
    deaf.cache.flush_tenant(&tenant).await.unwrap_err();
    rig.cache.flush_tenant(&tenant).await.unwrap();
    assert_eq!(deaf.text(&tenant, "k").await, None);
}

#[tokio::test]
async fn tenants_do_not_mix() {
    let rig = Rig::new();
    let tenants = [tenancy(), tenancy(), tenancy()];
    for (tenant, value) in tenants.iter().zip(["a", "b", "c"]) {
        rig.set(tenant, "k", value).await;
        rig.get(tenant, "k").await;
    }
    for (tenant, value) in tenants.iter().zip(["a", "b", "c"]) {
        assert!(!asks(&rig, tenant, Freshness::default()).await);
        assert_eq!(rig.text(tenant, "k").await.as_deref(), Some(value));
        let entry = get(&rig.cache, tenant, "other", "k").await.unwrap();
        assert_eq!(entry, None);
    }
    rig.cache.flush_tenant(&tenants[1]).await.unwrap();
    assert_eq!(rig.text(&tenants[1], "k").await, None);
    assert!(!asks(&rig, &tenants[0], Freshness::default()).await);
}

#[tokio::test]
async fn many_who_miss_a_key_ask_once() {
    let rig = Rig::new();
    let tenant = tenancy();
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let memory = rig.told.memory(&settings());
    let cache = Cache::new(store.clone(), memory, Arc::new(settings()));
    rig.set(&tenant, "k", "v").await;
    text(&cache, &tenant, "other").await;
    for key in ["k", "absent"] {
        store.reads.close();
        let calls = store.reads.calls();
        let mut readers = JoinSet::new();
        for _ in 0..1_000 {
            let (cache, tenant) = (cache.clone(), tenant.clone());
            readers.spawn(async move { text(&cache, &tenant, key).await });
        }
        store.reads.arrived(calls + 1).await;
        // All others are waiting by now, or will be answered from memory.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        store.reads.open();
        let value = (key == "k").then(|| "v".to_owned());
        assert!(readers.join_all().await.iter().all(|read| *read == value));
        assert_eq!(store.reads.calls(), calls + 1, "{key}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_reader_that_goes_away_reads_itself() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "v").await;
    deaf.text(&tenant, "other").await;
    deaf.store.reads.close();
    let calls = deaf.store.reads.calls();
    let read = || {
        let (cache, tenant) = (deaf.cache.clone(), tenant.clone());
        tokio::spawn(async move { text(&cache, &tenant, "k").await })
    };
    let first = read();
    deaf.store.reads.arrived(calls + 1).await;
    let others = [read(), read(), read()];
    tokio::task::yield_now().await;
    first.abort();
    deaf.store.reads.arrived(calls + 2).await;
    deaf.store.reads.open();
    for other in others {
        assert_eq!(other.await.unwrap().as_deref(), Some("v"));
    }
    assert_eq!(deaf.store.reads.calls(), calls + 2);
}

#[tokio::test]
async fn whoever_wrote_does_not_wait_for_a_read_from_before() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "before").await;
    deaf.text(&tenant, "other").await;
    let read = || {
        let (cache, tenant) = (deaf.cache.clone(), tenant.clone());
        tokio::spawn(async move { text(&cache, &tenant, "k").await })
    };
    deaf.store.reads.close();
    let calls = deaf.store.reads.calls();
    let before = read();
    deaf.store.reads.arrived(calls + 1).await;
    let written = deaf.cache.set(&tenant, "", &set("k", "after")).await;
    written.unwrap();
    let after = read();
    deaf.store.reads.arrived(calls + 2).await;
    deaf.store.reads.open();
    assert_eq!(before.await.unwrap().as_deref(), Some("before"));
    assert_eq!(after.await.unwrap().as_deref(), Some("after"));
    assert_eq!(deaf.text(&tenant, "k").await.as_deref(), Some("after"));
}

#[tokio::test]
async fn a_failure_is_told_to_all_who_wait() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "v").await;
    deaf.text(&tenant, "k").await;
    deaf.watch.break_off();
    deaf.store.reads.close();
    let calls = deaf.store.reads.calls();
    rig.store.close().await.unwrap();
    let mut readers = JoinSet::new();
    for _ in 0..20 {
        let (cache, tenant) = (deaf.cache.clone(), tenant.clone());
        readers.spawn(async move { get(&cache, &tenant, "", "k").await });
    }
    deaf.store.reads.arrived(calls + 1).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    deaf.store.reads.open();
    let unavailable = |read: &_| matches!(read, Err(Error::StoreUnavailable));
    let reads = readers.join_all().await;
    assert!(reads.iter().all(unavailable), "{reads:?}");
    assert_eq!(deaf.store.reads.calls(), calls + 1);
}

#[tokio::test]
async fn what_is_pulled_is_kept_and_the_hottest_are_told() {
    let rig = Rig::new();
    let (tenant, other) = (tenancy(), rig.replica());
    for key in ["a", "b", "c"] {
        rig.set(&tenant, key, key).await;
    }
    let asked = keys(&["a", "absent", "", "b"]);
    let pulled = other.pull(&tenant, "", &asked).await.unwrap();
    assert_eq!(pulled[..2], [Ok(Pulled::Near), Ok(Pulled::Missing)]);
    assert!(matches!(pulled[2], Err(Error::Invalid(_))));
    assert_eq!(pulled[3], Ok(Pulled::Near));
    let (calls, _) = rig.calls(text(&other, &tenant, "a")).await;
    assert_eq!(calls.read, 0);

    for (key, times) in [("a", 3), ("c", 9), ("b", 6)] {
        for _ in 0..times {
            rig.get(&tenant, key).await;
        }
    }
    let near = rig.memory.near().unwrap();
    let hot = near.hottest(2);
    let names: Vec<_> = hot.iter().map(|hot| (&*hot.namespace, &*hot.key)).collect();
    assert_eq!(names, [("default", "c"), ("default", "b")]);
    assert!(hot.iter().all(|hot| hot.home == tenant.home));
    assert_eq!((hot[0].uses, near.hottest(9).len()), (9, 3));
    assert!(near.hottest(0).is_empty());
}

#[tokio::test]
async fn a_store_without_a_promise_is_asked_each_time() {
    let rig = Rig::new();
    let (tenant, deaf) = (tenancy(), Deaf::on(&rig));
    rig.set(&tenant, "k", "v").await;
    deaf.watch.break_off();
    assert!(deaf.watch.vouch().is_none());
    for _ in 0..3 {
        let calls = deaf.store.reads.calls();
        deaf.text(&tenant, "k").await;
        assert!(deaf.store.reads.calls() > calls);
    }
    let calls = deaf.store.reads.calls();
    deaf.text(&tenant, "k").await;
    assert_eq!(deaf.store.reads.calls(), calls + 1, "and no more than once");
}

#[tokio::test]
async fn what_it_may_take_can_shrink_and_grow() {
    let rig = Rig::with(|settings| settings.near.max_bytes = 16 << 20);
    let (tenant, near) = (tenancy(), rig.memory.near().unwrap());
    let value = "v".repeat(10_000);
    let fill = async |from: usize| {
        for n in from..from + 600 {
            rig.set(&tenant, &format!("k{n}"), &value).await;
            for _ in 0..2 {
                assert!(rig.text(&tenant, &format!("k{n}")).await.is_some());
            }
        }
    };
    fill(0).await;
    let (entries, bytes) = near.size();
    assert!(entries == 600 && bytes > 6_000_000, "{entries}, {bytes}");

    near.resize(2 << 20);
    let (entries, bytes) = near.size();
    assert!((100..210).contains(&entries), "{entries}");
    assert!(bytes <= 2 << 20, "{bytes}");
    // What is left is answered, and what is asked for has its place.
    fill(600).await;
    assert!(near.size().1 <= 2 << 20, "{:?}", near.size());

    near.resize(16 << 20);
    fill(1200).await;
    let (entries, bytes) = near.size();
    assert!(entries >= 700 && bytes > 7_000_000, "{entries}, {bytes}");
    assert!(bytes <= 16 << 20, "{bytes}");
    // An entry of more than a 64th of it is not kept.
    let large = "v".repeat((2 << 20) / 64 + 1);
    rig.set(&tenant, "large", &large).await;
    let kept = async || {
        for _ in 0..2 {
            rig.text(&tenant, "large").await;
        }
        !asks_for(&rig, &tenant, "large").await
    };
    assert!(kept().await, "16 MiB hold it");
    near.resize(2 << 20);
    rig.set(&tenant, "large", &large).await;
    assert!(!kept().await, "2 MiB do not");
}

/// Whether a read of a key asked the store.
async fn asks_for(rig: &Rig, tenancy: &Tenancy, key: &str) -> bool {
    let freshness = Freshness::default();
    let call = rig.cache.get(tenancy, "", key, &freshness);
    let (calls, entry) = rig.calls(call).await;
    assert!(entry.unwrap().is_some());
    calls.read > 0
}
