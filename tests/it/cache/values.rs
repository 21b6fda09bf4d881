//! What goes in comes out: values, keys of any kind, other tenants' left alone,
//! and what is damaged in the store. It does not know how limits are set.

use std::collections::HashSet;

use proptest::prelude::*;
use riptide_persistence::{
    cache::{Freshness, Range, Set},
    error::Error,
    store::{Batch, Commit, Key, Table, Write},
    tenant::Tenancy,
};

use super::{Rig, get, keys, set, tenancy};

#[tokio::test]
async fn an_entry_comes_back_as_it_was_set() {
    let rig = Rig::new();
    let tenant = tenancy();
    let tags = keys(&["red", "ü"]);
    let value = [0, 255, 1, 254];
    let asked = Set {
        value: &value,
        content_type: "application/x",
        tags: &tags,
        ..set("k", "")
    };
    let written = rig.cache.set(&tenant, "", &asked).await.unwrap();
    assert_eq!(written.stored_bytes, 4);
    let entry = rig.get(&tenant, "k").await.unwrap();
    assert_eq!(&entry.value[..], value);
    assert_eq!(
        (entry.content_type.as_str(), &entry.tags),
        ("application/x", &tags)
    );
    assert_eq!((entry.version, entry.expire_ms), (written.version, None));
    assert_eq!(
        (entry.create_ms, entry.stored_bytes),
        (rig.store.now_ms(), 4)
    );

    rig.set(&tenant, "k", "").await;
    let entry = rig.get(&tenant, "k").await.unwrap();
    assert!(entry.value.is_empty() && entry.tags.is_empty() && entry.content_type.is_empty());
    assert!(entry.version > written.version);
}

#[tokio::test]
async fn compression_really_shrinks_what_is_stored() {
    let rig = Rig::new();
    let tenant = tenancy();
    let value = "compressible ".repeat(10_000);
    let written = rig.set(&tenant, "k", &value).await;
    assert!(written.stored_bytes < value.len() as u64 / 50);
    let usage = rig.store.usage(&tenant.space).await.unwrap();
    assert!(
        usage.bytes < value.len() as u64 / 50,
        "{} bytes are counted",
        usage.bytes
    );
    let entry = rig.get(&tenant, "k").await.unwrap();
    assert_eq!(&entry.value[..], value.as_bytes());
    assert_eq!(entry.stored_bytes, written.stored_bytes);

    let plain = Rig::with(|settings| settings.compression.enabled = false);
    assert_eq!(
        plain.set(&tenant, "k", &value).await.stored_bytes,
        value.len() as u64
    );
}

#[tokio::test]
async fn the_greatest_value_fits() {
    let rig = Rig::new();
    let tenant = tenancy();
    let mut state = 1_u64;
    let value: Vec<u8> = (0..20 << 20)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let asked = Set {
        value: &value,
        ..set("k", "")
    };
    let written = rig.cache.set(&tenant, "", &asked).await.unwrap();
    assert_eq!(written.stored_bytes, 20 << 20);
    assert!(rig.get(&tenant, "k").await.unwrap().value == value);
}

#[tokio::test]
async fn keys_of_any_kind_are_kept_apart() {
    let rig = Rig::new();
    let tenant = tenancy();
    let long = "k".repeat(1024);
    let odd = [
        "a",
        "a:b",
        ":a",
        "a:",
        "{a}",
        "}{",
        "{",
        "a\0b",
        "\0",
        "a\r\nb",
        "*",
        "a?[b]",
        "\\*",
        "å",
        "a\u{30a}",
        " ",
        "default:a",
        "../a",
        &long,
    ];
    let sets: Vec<_> = odd.iter().map(|key| set(key, key)).collect();
    let written = rig.cache.batch_set(&tenant, "", &sets).await.unwrap();
    assert!(written.iter().all(Result::is_ok));
    rig.cache
        .set(&tenant, "a", &set("b", "another namespace's"))
        .await
        .unwrap();

    for key in odd {
        assert_eq!(rig.text(&tenant, key).await.unwrap(), key);
    }
    assert_eq!(
        listed(&rig, &tenant, "", 1000).await,
        HashSet::from(odd.map(str::to_owned))
    );
    for prefix in ["a", "a:", "*", "{", "a?", "\\", "å"] {
        let expected = odd.iter().filter(|key| key.starts_with(prefix));
        let expected: HashSet<_> = expected.map(|&key| key.to_owned()).collect();
        assert_eq!(listed(&rig, &tenant, prefix, 3).await, expected, "{prefix}");
    }
    for key in odd {
        assert!(rig.cache.delete(&tenant, "", key, 0).await.unwrap());
    }
    assert!(listed(&rig, &tenant, "", 5).await.is_empty());
    assert!(get(&rig.cache, &tenant, "a", "b").await.unwrap().is_some());
}

/// All keys with a prefix, page by page.
async fn listed(rig: &Rig, tenancy: &Tenancy, prefix: &str, page_size: i32) -> HashSet<String> {
    let range = Range::new(tenancy, "", prefix, page_size).unwrap();
    let (mut keys, mut after) = (HashSet::new(), None);
    loop {
        let page = rig.cache.list_keys(tenancy, &range, after).await.unwrap();
        assert!(page.keys.len() <= page_size as usize);
        keys.extend(page.keys.into_iter().map(|info| info.key));
        after = page.next;
        if after.is_none() {
            return keys;
        }
    }
}

#[tokio::test]
async fn a_listing_tells_sizes_and_times() {
    let rig = Rig::new();
    let tenant = tenancy();
    let value = "x".repeat(5000);
    let short = Set {
        ttl_ms: Some(1000),
        ..set("long", &value)
    };
    let expire_ms = rig.cache.set(&tenant, "", &short).await.unwrap().expire_ms;
    rig.set(&tenant, "small", "12345").await;
    let range = Range::new(&tenant, "", "", 0).unwrap();
    let mut keys = rig
        .cache
        .list_keys(&tenant, &range, None)
        .await
        .unwrap()
        .keys;
    keys.sort_by(|a, b| a.key.cmp(&b.key));
    let told: Vec<_> = keys
        .iter()
        .map(|info| (&info.key[..], info.size_bytes, info.expire_ms))
        .collect();
    assert_eq!(told, [("long", 5000, expire_ms), ("small", 5, None)]);
    rig.pass(1000);
    assert_eq!(
        rig.cache
            .list_keys(&tenant, &range, None)
            .await
            .unwrap()
            .keys
            .len(),
        1
    );
}

#[tokio::test]
async fn tenants_see_their_own_entries_only() {
    let rig = Rig::new();
    let (mine, yours) = (tenancy(), tenancy());
    rig.set(&mine, "k", "mine").await;
    assert_eq!(rig.text(&yours, "k").await, None);
    rig.set(&yours, "k", "yours").await;
    rig.cache.flush_namespace(&yours, "").await.unwrap();
    rig.cache.flush_tenant(&yours).await.unwrap();
    assert_eq!(rig.text(&mine, "k").await.unwrap(), "mine");
    assert_eq!(rig.text(&yours, "k").await, None);
}

#[tokio::test]
async fn a_damaged_entry_is_told_and_hinders_no_other() {
    let rig = Rig::new();
    let tenant = tenancy();
    rig.set(&tenant, "good", "v").await;
    let put = |key: &str, bytes: &'static [u8]| Write::put(Key::entry("default", key), bytes);
    // The last is of a format that a later version of this service writes.
    let writes = [
        put("bad", b"no frame"),
        put("empty", b""),
        put("later", &[0xf5, 3, 7, 7]),
    ];
    let commit = rig
        .store
        .commit(&tenant.space, Batch::of(writes))
        .await
        .unwrap();
    assert!(matches!(commit, Commit::Applied(_)));

    let damaged = |result| matches!(result, Err(Error::EntryCorrupt(_)));
    assert!(damaged(get(&rig.cache, &tenant, "", "bad").await));
    let asked = keys(&["bad", "good", "empty", "later", "bad"]);
    let read = rig
        .cache
        .batch_get(&tenant, "", &asked, &Freshness::default())
        .await
        .unwrap();
    assert!(damaged(read[0].clone()) && damaged(read[2].clone()));
    assert!(read[1].as_ref().unwrap().is_some());
    assert_eq!(read[3], Ok(None));
    assert_eq!(read[4], read[0]);
    // It can be found, to be removed or written over.
    let found = listed(&rig, &tenant, "", 1000).await;
    assert_eq!(
        found,
        HashSet::from(["bad", "good", "empty"].map(str::to_owned))
    );
    rig.set(&tenant, "bad", "mended").await;
    assert_eq!(rig.text(&tenant, "bad").await.unwrap(), "mended");
}

#[tokio::test]
async fn a_damaged_record_of_floors_is_no_empty_one() {
    let rig = Rig::new();
    let tenant = tenancy();
    let write = Write::put(Key::new(Table::Control, &b"floors"[..]), &b"{"[..]);
    rig.store
        .commit(&tenant.space, Batch::of([write]))
        .await
        .unwrap();
    let refused = get(&rig.cache, &tenant, "", "k").await;
    assert!(matches!(refused, Err(Error::Internal(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..Default::default() })]

    #[test]
    fn any_text_is_a_key(all in proptest::collection::hash_set("\\PC{1,20}|[\\x00-\\x7f]{1,8}", 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            let tenant = tenancy();
            for key in &all {
                rig.set(&tenant, key, key).await;
            }
            for key in &all {
                assert_eq!(rig.text(&tenant, key).await.as_ref(), Some(key));
            }
            assert_eq!(listed(&rig, &tenant, "", 7).await, all);
        });
    }
}
