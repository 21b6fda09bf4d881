//! How often each call asks the store: the budget of design and contract. It
//! does not know how long a call takes.

use std::sync::Arc;

use riptide_persistence::{
    cache::{Cache, Condition, Freshness, Range, Set},
    store::{Calls, Key},
};

use super::{Rig, get, keys, recorder::Recorder, set, settings, tenancy};

pub const NONE: Calls = Calls {
    read: 0,
    commit: 0,
    list: 0,
    usage: 0,
    meters: 0,
    tally: 0,
    rows: 0,
    recall: 0,
    lease: 0,
    audit: 0,
    reclaim: 0,
    pin: 0,
    pinned: 0,
    unpin: 0,
    changes: 0,
    notes: 0,
    ping: 0,
    close: 0,
};
const READ: Calls = Calls { read: 1, ..NONE };
const COMMIT: Calls = Calls { commit: 1, ..NONE };
const LIST: Calls = Calls { list: 1, ..NONE };

#[tokio::test]
async fn each_call_asks_the_store_once() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);

    // A tenant nobody has asked about costs one read more, once.
    let (calls, _) = rig.calls(rig.set(&tenant, "k", "v")).await;
    assert_eq!(calls, Calls { read: 1, ..COMMIT });

    let fresh = Freshness::default();
    let all = keys(&["k", "absent", "k"]);
    for _ in 0..2 {
        assert_eq!(rig.calls(rig.set(&tenant, "k", "w")).await.0, COMMIT, "set");
        assert_eq!(rig.calls(rig.get(&tenant, "k")).await.0, READ, "hit");
        assert_eq!(rig.calls(rig.get(&tenant, "k")).await.0, NONE, "near hit");
        assert_eq!(rig.calls(rig.get(&tenant, "absent")).await.0, READ, "miss");
        let kept = keys(&["k", "k"]);
        let read = cache.batch_get(&tenant, "", &kept, &fresh);
        assert_eq!(rig.calls(read).await.0, NONE, "near batch");
        let touch = cache.touch(&tenant, "", "k", Some(1000));
        assert_eq!(rig.calls(touch).await.0, COMMIT, "touch");
        let read = cache.batch_get(&tenant, "", &all, &fresh);
        assert_eq!(rig.calls(read).await.0, READ, "batch get");
        let entries: Vec<_> = all.iter().map(|key| set(key, "v")).collect();
        let write = cache.batch_set(&tenant, "", &entries);
        assert_eq!(rig.calls(write).await.0, COMMIT, "batch set");
        let range = Range::new(&tenant, "", "", 10).unwrap();
        let list = cache.list_keys(&tenant, &range, None);
        assert_eq!(rig.calls(list).await.0, LIST, "list");
        let delete = cache.delete(&tenant, "", "k", 0);
        assert_eq!(rig.calls(delete).await.0, COMMIT, "delete");
        let delete = cache.batch_delete(&tenant, "", &all);
        assert_eq!(rig.calls(delete).await.0, COMMIT, "batch delete");
        let invalidate = cache.invalidate_keys(&tenant, "", &all);
        assert_eq!(rig.calls(invalidate).await.0, COMMIT, "invalidate keys");
    }
}

#[tokio::test]
async fn a_flushed_namespace_costs_no_more_to_use() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.cache.flush_namespace(&tenant, "").await.unwrap();
    assert_eq!(rig.calls(rig.set(&tenant, "k", "v")).await.0, COMMIT);
    assert_eq!(rig.calls(rig.get(&tenant, "k")).await.0, READ);
    assert_eq!(rig.calls(rig.get(&tenant, "k")).await.0, NONE);
    let delete = rig.cache.delete(&tenant, "", "k", 0);
    assert_eq!(rig.calls(delete).await.0, COMMIT);
}

#[tokio::test]
async fn a_batch_reads_each_key_once() {
    let rig = Rig::new();
    let tenant = tenancy();
    let compressed = "v".repeat(5000);
    rig.set(&tenant, "a", &compressed).await;
    rig.set(&tenant, "b", "w").await;
    let store = Arc::new(Recorder::new(rig.store.clone()));
    let cache = Cache::new(store.clone(), Arc::default(), Arc::new(settings()));

    let asked = keys(&["b", "a", "", "absent", "a", "b", "", "absent", "a"]);
    let fresh = Freshness::default();
    let read = cache.batch_get(&tenant, "", &asked, &fresh).await.unwrap();
    let wanted = ["b", "a", "absent"].map(|key| Key::entry("default", key));
    assert_eq!(store.last_read(), wanted);

    let values: Vec<_> = read
        .iter()
        .map(|result| Some(result.as_ref().ok()?.as_ref().map(|entry| &entry.value[..])))
        .collect();
    let (a, b) = (Some(Some(compressed.as_bytes())), Some(Some(&b"w"[..])));
    let absent = Some(None);
    assert_eq!(values, [b, a, None, absent, a, b, None, absent, a]);
    let opened = |index: usize| values[index].flatten().unwrap().as_ptr();
    assert_eq!([opened(4), opened(8)], [opened(1); 2], "one value, shared");
}

#[tokio::test]
async fn what_is_refused_asks_the_store_nothing() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let calls = async {
        assert!(get(cache, &tenant, "", "").await.is_err());
        let (empty, fresh) = (keys(&["", ""]), Freshness::default());
        let read = cache.batch_get(&tenant, "", &empty, &fresh).await;
        assert!(read.unwrap().iter().all(Result::is_err));
        let write = cache.batch_set(&tenant, "", &[set("", "")]).await;
        assert!(write.unwrap().iter().all(Result::is_err));
    };
    assert_eq!(rig.calls(calls).await.0, NONE);
}

#[tokio::test]
async fn a_flush_asks_as_often_however_much_there_is() {
    let mut asked = Vec::new();
    for entries in [10, 1000] {
        let rig = Rig::new();
        let tenant = tenancy();
        let names: Vec<_> = (0..entries).map(|n| format!("key {n}")).collect();
        let sets: Vec<_> = names.iter().map(|name| set(name, "v")).collect();
        for namespace in ["a", "b"] {
            let written = rig.cache.batch_set(&tenant, namespace, &sets).await;
            assert!(written.unwrap().iter().all(Result::is_ok));
        }
        // The first finds no job, and leaves one.
        let (first, flushed) = rig.calls(rig.cache.flush_namespace(&tenant, "a")).await;
        assert!(flushed.is_ok());
        let (one, flushed) = rig.calls(rig.cache.flush_namespace(&tenant, "b")).await;
        assert!(flushed.is_ok());
        let prefix = rig.cache.invalidate_prefix(&tenant, "", "key");
        let (prefix, flushed) = rig.calls(prefix).await;
        assert!(flushed.is_ok());
        let tags = keys(&["a", "b"]);
        let tags = rig.cache.invalidate_tags(&tenant, "", &tags);
        let (tags, flushed) = rig.calls(tags).await;
        assert!(flushed.is_ok());
        let (all, flushed) = rig.calls(rig.cache.flush_tenant(&tenant)).await;
        assert_eq!(flushed.unwrap().invalidated, 2 * entries);
        let (next, _) = rig.calls(rig.get(&tenant, "key 1")).await;
        asked.push((first, one, prefix, tags, all, next));
    }
    assert_eq!(asked[0], asked[1]);
    let (first, one, prefix, tags, all, next) = asked[0];
    assert_eq!(first, Calls { commit: 2, ..NONE }, "job, floor");
    assert_eq!([one, prefix, tags], [COMMIT; 3], "floor");
    assert_eq!(all, Calls { commit: 2, ..NONE }, "job, generation");
    assert_eq!(next, READ);
}

#[tokio::test]
async fn tags_that_are_gone_cost_a_read_where_it_matters_what_was_there() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    rig.set(&tenant, "k", "v").await;
    let gone = keys(&["gone"]);
    cache.invalidate_tags(&tenant, "", &gone).await.unwrap();

    let both = Calls { read: 1, ..COMMIT };
    assert_eq!(rig.calls(rig.set(&tenant, "k", "w")).await.0, COMMIT, "set");
    assert_eq!(rig.calls(rig.get(&tenant, "k")).await.0, READ, "get");
    let touch = cache.touch(&tenant, "", "k", Some(1000));
    assert_eq!(rig.calls(touch).await.0, both, "touch");
    let absent = Set {
        condition: Some(Condition::IfAbsent),
        ..set("other", "v")
    };
    let create = cache.set(&tenant, "", &absent);
    assert_eq!(rig.calls(create).await.0, both, "create");
    let delete = cache.delete(&tenant, "", "k", 0);
    assert_eq!(rig.calls(delete).await.0, both, "delete");
    let range = Range::new(&tenant, "", "", 10).unwrap();
    let list = cache.list_keys(&tenant, &range, None);
    assert_eq!(rig.calls(list).await.0, LIST, "list");
    // Another namespace has nothing to do with it.
    let delete = cache.delete(&tenant, "other", "k", 0);
    assert_eq!(rig.calls(delete).await.0, COMMIT, "delete elsewhere");
}
