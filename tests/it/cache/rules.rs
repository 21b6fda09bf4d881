//! What a request may ask for: conditions, times, sizes, limits, and how far a
//! confined key reaches. It does not know how entries are stored.

use riptide_persistence::{
    cache::{Condition, Consistency, Freshness, Range, Set},
    error::Error,
    store::{Batch, Limits, Step},
};

use super::{Rig, confined, fields, found, get, keys, set, tenancy};

#[tokio::test]
async fn conditions_are_decided_in_the_write() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let conditional = |condition, if_version| Set {
        condition: Some(condition),
        if_version,
        ..set("k", "new")
    };
    let absent = conditional(Condition::IfAbsent, 0);
    let present = conditional(Condition::IfPresent, 0);

    assert_eq!(found(cache.set(&tenant, "", &present).await), None);
    let at_nine = conditional(Condition::None, 9);
    assert_eq!(found(cache.set(&tenant, "", &at_nine).await), None);
    let first = cache.set(&tenant, "", &absent).await.unwrap().version;
    assert_eq!(found(cache.set(&tenant, "", &absent).await), Some(first));
    let second = cache.set(&tenant, "", &present).await.unwrap().version;
    assert!(second > first);

    for condition in [Condition::None, Condition::IfPresent] {
        let stale = conditional(condition, first as i64);
        assert_eq!(found(cache.set(&tenant, "", &stale).await), Some(second));
    }
    let exact = conditional(Condition::None, second as i64);
    let third = cache.set(&tenant, "", &exact).await.unwrap().version;
    assert!(third > second);

    let stale = cache.delete(&tenant, "", "k", second as i64).await;
    assert_eq!(found(stale), Some(third));
    assert!(cache.delete(&tenant, "", "k", third as i64).await.unwrap());
    // It is gone, as was asked, whatever its version was.
    assert!(!cache.delete(&tenant, "", "k", third as i64).await.unwrap());
    assert!(!cache.delete(&tenant, "", "k", 0).await.unwrap());
    let fourth = cache.set(&tenant, "", &absent).await.unwrap().version;
    assert!(fourth > third, "versions grow across deletes");
}

#[tokio::test]
async fn entries_live_as_long_as_asked_to_the_millisecond() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let short = Set {
        ttl_ms: Some(1500),
        ..set("k", "v")
    };
    let now = rig.store.now_ms();
    let written = cache.set(&tenant, "", &short).await.unwrap();
    assert_eq!(written.expire_ms, Some(now + 1500));
    assert_eq!(
        rig.get(&tenant, "k").await.unwrap().expire_ms,
        Some(now + 1500)
    );
    assert_eq!(rig.get(&tenant, "k").await.unwrap().create_ms, now);
    rig.pass(1499);
    assert!(rig.get(&tenant, "k").await.is_some());
    rig.pass(1);
    assert!(rig.get(&tenant, "k").await.is_none());
    assert!(
        !cache
            .touch(&tenant, "", "k", Some(1000))
            .await
            .unwrap()
            .found
    );

    let written = cache.set(&tenant, "", &short).await.unwrap();
    let touched = cache
        .touch(&tenant, "", "k", Some(86_400_000))
        .await
        .unwrap();
    assert!(touched.found);
    assert_eq!(touched.expire_ms, Some(rig.store.now_ms() + 86_400_000));
    rig.pass(2000);
    assert_eq!(
        rig.get(&tenant, "k").await.unwrap().version,
        written.version
    );
}

#[tokio::test]
async fn an_unset_time_to_live_is_the_tenants_default() {
    let rig = Rig::new();
    let mut tenant = tenancy();
    assert_eq!(rig.set(&tenant, "k", "v").await.expire_ms, None);
    tenant.default_ttl_ms = Some(5000);
    let expire = Some(rig.store.now_ms() + 5000);
    assert_eq!(rig.set(&tenant, "k", "v").await.expire_ms, expire);
    let touched = rig.cache.touch(&tenant, "", "k", None).await.unwrap();
    assert_eq!(touched.expire_ms, expire);
    // A plan cannot allow more than the service does.
    tenant.default_ttl_ms = Some(u64::MAX);
    let longest = 365 * 86_400_000;
    let expire = Some(rig.store.now_ms() + longest);
    assert_eq!(rig.set(&tenant, "k", "v").await.expire_ms, expire);
}

#[tokio::test]
async fn every_field_that_breaks_a_rule_is_named() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let long_key = "k".repeat(1025);
    let long_type = "c".repeat(129);
    let tags = |count: usize, bytes: usize| vec!["t".repeat(bytes); count];
    let (many, long, empty) = (tags(17, 1), tags(2, 129), tags(1, 0));

    let good = set("k", "v");
    let with_tags = |tags| Set { tags, ..good };
    let with_ttl = |ttl_ms| Set { ttl_ms, ..good };
    let if_absent = Some(Condition::IfAbsent);
    let cases: Vec<(&str, Set<'_>, &[&str])> = vec![
        ("", set("", "v"), &["key"]),
        ("", set(&long_key, "v"), &["key"]),
        ("", with_ttl(Some(0)), &["ttl"]),
        ("", with_ttl(Some(-1)), &["ttl"]),
        ("", with_ttl(Some(i64::MIN)), &["ttl"]),
        ("", with_ttl(Some(365 * 86_400_000 + 1)), &["ttl"]),
        ("", with_ttl(Some(i64::MAX)), &["ttl"]),
        ("", with_tags(&many), &["tags"]),
        ("", with_tags(&long), &["tags[0]", "tags[1]"]),
        ("", with_tags(&empty), &["tags[0]"]),
        (
            "",
            Set {
                content_type: &long_type,
                ..good
            },
            &["content_type"],
        ),
        (
            "",
            Set {
                condition: None,
                ..good
            },
            &["condition"],
        ),
        (
            "",
            Set {
                if_version: -1,
                ..good
            },
            &["if_version"],
        ),
        (
            "",
            Set {
                condition: if_absent,
                if_version: 1,
                ..good
            },
            &["if_version"],
        ),
        ("Upper", good, &["namespace"]),
        (".dot", good, &["namespace"]),
        ("a:b", good, &["namespace"]),
        ("ä", good, &["namespace"]),
        (
            "no",
            Set {
                condition: None,
                ttl_ms: Some(0),
                ..set("", "v")
            },
            &["key", "ttl", "condition"],
        ),
    ];
    for (namespace, asked, named) in cases {
        assert_eq!(fields(cache.set(&tenant, namespace, &asked).await), named);
    }
    let long_namespace = "n".repeat(65);
    assert_eq!(
        fields(cache.set(&tenant, &long_namespace, &good).await),
        ["namespace"]
    );
    assert_eq!(
        fields(get(cache, &tenant, "No", "").await),
        ["namespace", "key"]
    );
    assert_eq!(
        fields(cache.delete(&tenant, "", "", -1).await),
        ["if_version", "key"]
    );
    assert_eq!(
        fields(cache.touch(&tenant, "", "k", Some(0)).await),
        ["ttl"]
    );
    assert_eq!(
        fields(Range::new(&tenant, "", &long_key, -1)),
        ["prefix", "page_size"]
    );
    let absurd = Freshness {
        consistency: None,
        max_age_ms: Some(-1),
        min_version: -1,
    };
    let named = ["consistency", "max_age", "min_version"];
    assert_eq!(fields(cache.get(&tenant, "", "k", &absurd).await), named);

    // What is at the edge is allowed.
    let edge_key = "k".repeat(1024);
    let (edge_type, edge_tags) = ("c".repeat(128), tags(16, 128));
    let edge = Set {
        key: &edge_key,
        ttl_ms: Some(365 * 86_400_000),
        content_type: &edge_type,
        tags: &edge_tags,
        ..good
    };
    let namespace = format!("0{}", "a.b-c_9".repeat(9));
    assert_eq!(namespace.len(), 64);
    cache.set(&tenant, &namespace, &edge).await.unwrap();
    let strong = Freshness {
        consistency: Some(Consistency::Strong),
        max_age_ms: Some(0),
        min_version: i64::MAX,
    };
    let entry = cache.get(&tenant, &namespace, &edge_key, &strong).await;
    let entry = entry.unwrap().unwrap();
    assert_eq!((entry.content_type, entry.tags), (edge_type, edge_tags));
    cache.set(&tenant, "", &with_ttl(Some(1))).await.unwrap();
}

#[tokio::test]
async fn sizes_are_bounded() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let large = "x".repeat((20 << 20) + 1);
    let refused = cache.set(&tenant, "", &set("k", &large)).await;
    let too_large = Error::EntryTooLarge {
        bytes: (20 << 20) + 1,
        limit: 20 << 20,
    };
    assert_eq!(refused, Err(too_large.clone()));
    let entries = [set("a", &large), set("b", "v")];
    let written = cache.batch_set(&tenant, "", &entries).await.unwrap();
    assert_eq!(written[0], Err(too_large));
    assert!(written[1].is_ok());

    let many = vec!["k".to_owned(); 1001];
    let sets = vec![set("k", "v"); 1001];
    let too_many = |field| Error::BatchTooLarge {
        field,
        items: 1001,
        limit: 1000,
    };
    let fresh = Freshness::default();
    assert_eq!(
        cache.batch_get(&tenant, "", &many, &fresh).await,
        Err(too_many("keys"))
    );
    assert_eq!(
        cache.batch_set(&tenant, "", &sets).await,
        Err(too_many("entries"))
    );
    assert_eq!(
        cache.batch_delete(&tenant, "", &many).await,
        Err(too_many("keys"))
    );
    assert_eq!(
        cache.invalidate_keys(&tenant, "", &many).await,
        Err(too_many("keys.keys"))
    );
    assert_eq!(
        fields(cache.batch_get(&tenant, "", &[], &fresh).await),
        ["keys"]
    );
    assert_eq!(fields(cache.batch_set(&tenant, "", &[]).await), ["entries"]);
    assert_eq!(fields(cache.batch_delete(&tenant, "", &[]).await), ["keys"]);
    assert_eq!(
        fields(cache.invalidate_keys(&tenant, "", &[]).await),
        ["keys.keys"]
    );
    let some = keys(&["fine", "", "fine"]);
    assert_eq!(
        fields(cache.invalidate_keys(&tenant, "", &some).await),
        ["keys.keys[1]"]
    );
}

#[tokio::test]
async fn a_batch_opens_no_more_than_an_answer_holds() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let large = "x".repeat(20 << 20);
    let stored = rig.set(&tenant, "large", &large).await.stored_bytes;
    assert!(stored < 100_000);
    rig.set(&tenant, "small", "v").await;
    let mut asked = vec!["large".to_owned(); 999];
    asked.push("small".to_owned());
    let fresh = Freshness::default();
    let read = cache.batch_get(&tenant, "", &asked, &fresh).await.unwrap();
    let refused = Error::AnswerTooLarge { limit: 64 << 20 };
    assert!(read[..3].iter().all(|result| matches!(result, Ok(Some(_)))));
    assert!(
        read[3..999]
            .iter()
            .all(|result| *result == Err(refused.clone()))
    );
    assert!(
        read[999].as_ref().unwrap().is_some(),
        "what fits is answered"
    );
}

#[tokio::test]
async fn limits_refuse_with_their_figures() {
    let rig = Rig::new();
    let cache = &rig.cache;
    let mut tenant = tenancy();
    tenant.limits = Limits {
        entries: Some(2),
        bytes: None,
    };
    let entries = [set("a", "1"), set("b", "2"), set("c", "3"), set("a", "4")];
    let written = cache.batch_set(&tenant, "", &entries).await.unwrap();
    let refused = Error::QuotaExceeded {
        metric: "cache_entries".into(),
        limit: 2,
        used: 2,
        scope: "tenant:acme".to_owned(),
        retry_after: None,
    };
    assert!(written[0].is_ok() && written[1].is_ok() && written[3].is_ok());
    assert_eq!(written[2], Err(refused.clone()));
    assert_eq!(cache.set(&tenant, "", &set("c", "3")).await, Err(refused));
    assert_eq!(rig.text(&tenant, "a").await.unwrap(), "4");

    tenant.limits = Limits {
        entries: None,
        bytes: Some(200),
    };
    let large = "x".repeat(200);
    match cache.set(&tenant, "", &set("a", &large)).await {
        Err(Error::QuotaExceeded {
            metric,
            limit: 200,
            used,
            ..
        }) => {
            assert_eq!(metric, "memory_bytes");
            assert_eq!(
                used as u64,
                rig.store.usage(&tenant.space).await.unwrap().bytes
            );
        }
        other => panic!("{other:?}"),
    }
    // What does not grow is never refused.
    tenant.limits.bytes = Some(1);
    rig.set(&tenant, "a", "5").await;
    assert!(
        cache
            .touch(&tenant, "", "a", Some(1000))
            .await
            .unwrap()
            .found
    );
    assert!(cache.delete(&tenant, "", "a", 0).await.unwrap());
}

#[tokio::test]
async fn a_batch_answers_for_each_item_in_order() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    let once = Set {
        condition: Some(Condition::IfAbsent),
        ..set("a", "first")
    };
    let late = Set {
        ttl_ms: Some(-5),
        ..set("b", "")
    };
    let entries = [once, once, late, set("", ""), set("c", "1"), set("c", "2")];
    let written = cache.batch_set(&tenant, "", &entries).await.unwrap();
    let version = written[0].as_ref().unwrap().version;
    assert_eq!(found(written[1].clone()), Some(version));
    assert_eq!(fields(written[2].clone()), ["entries[2].ttl"]);
    assert_eq!(fields(written[3].clone()), ["entries[3].key"]);
    assert!(written[5].as_ref().unwrap().version > written[4].as_ref().unwrap().version);

    let asked = keys(&["c", "", "absent", "a", "c"]);
    let fresh = Freshness::default();
    let read = cache.batch_get(&tenant, "", &asked, &fresh).await.unwrap();
    let texts: Vec<_> = read
        .iter()
        .map(|result| {
            result
                .as_ref()
                .ok()
                .map(|entry| entry.as_ref().map(|e| &e.value[..]))
        })
        .collect();
    let (two, first) = (Some(&b"2"[..]), Some(&b"first"[..]));
    assert_eq!(texts, [Some(two), None, Some(None), Some(first), Some(two)]);
    assert_eq!(fields(read[1].clone()), ["keys[1]"]);

    let removed = cache.batch_delete(&tenant, "", &asked).await.unwrap();
    assert_eq!(fields(removed[1].clone()), ["keys[1]"]);
    let removed: Vec<_> = removed.into_iter().map(Result::ok).collect();
    // The second of two equal keys finds nothing any more.
    assert_eq!(
        removed,
        [Some(true), None, Some(false), Some(true), Some(false)]
    );
}

#[tokio::test]
async fn a_confined_key_reaches_no_further() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    rig.set(&tenant, "user:1", "v").await;
    rig.set(&tenant, "other", "v").await;
    cache
        .set(&tenant, "else", &set("user:1", "v"))
        .await
        .unwrap();

    let narrow = confined(&tenant, &["default"], &["user:"]);
    assert!(rig.get(&narrow, "user:1").await.is_some());
    let missing = |error| matches!(error, Error::ScopeMissing { .. });
    assert!(missing(get(cache, &narrow, "", "other").await.unwrap_err()));
    assert!(missing(
        get(cache, &narrow, "else", "user:1").await.unwrap_err()
    ));
    assert!(missing(
        cache
            .set(&narrow, "", &set("other", "x"))
            .await
            .unwrap_err()
    ));
    assert!(missing(
        cache.delete(&narrow, "", "other", 0).await.unwrap_err()
    ));
    assert!(missing(
        cache.touch(&narrow, "", "other", None).await.unwrap_err()
    ));
    assert!(missing(
        cache.flush_namespace(&narrow, "").await.unwrap_err()
    ));
    assert!(missing(cache.flush_tenant(&narrow).await.unwrap_err()));
    let both = keys(&["user:1", "other"]);
    assert!(missing(
        cache.invalidate_keys(&narrow, "", &both).await.unwrap_err()
    ));
    assert!(missing(Range::new(&narrow, "", "use", 0).unwrap_err()));
    assert!(missing(
        Range::new(&narrow, "else", "user:", 0).unwrap_err()
    ));

    let fresh = Freshness::default();
    let read = cache.batch_get(&narrow, "", &both, &fresh).await.unwrap();
    assert!(read[0].as_ref().unwrap().is_some());
    assert!(missing(read[1].clone().unwrap_err()));
    let sets = [set("other", "x"), set("user:2", "v")];
    let written = cache.batch_set(&narrow, "", &sets).await.unwrap();
    assert!(missing(written[0].clone().unwrap_err()));
    assert!(written[1].is_ok());
    let removed = cache.batch_delete(&narrow, "", &both).await.unwrap();
    assert_eq!(removed[0], Ok(true));
    assert!(missing(removed[1].clone().unwrap_err()));
    assert_eq!(rig.text(&tenant, "other").await.unwrap(), "v");

    let range = Range::new(&narrow, "", "user:", 0).unwrap();
    let listing = cache.list_keys(&narrow, &range, None).await.unwrap();
    let listed: Vec<_> = listing.keys.iter().map(|info| &info.key[..]).collect();
    assert_eq!(listed, ["user:2"]);

    let whole = confined(&tenant, &["default"], &[]);
    assert!(cache.flush_namespace(&whole, "").await.is_ok());
    assert!(missing(cache.flush_tenant(&whole).await.unwrap_err()));
}

#[tokio::test]
async fn a_removed_tenant_takes_no_writes_and_shows_no_entries() {
    let rig = Rig::new();
    let (tenant, cache) = (tenancy(), &rig.cache);
    rig.set(&tenant, "k", "v").await;
    let removal = Batch {
        step: Some(Step::Remove),
        ..Default::default()
    };
    rig.store.commit(&tenant.space, removal).await.unwrap();
    let gone = Error::no_tenant("acme");
    assert_eq!(
        cache.set(&tenant, "", &set("k", "v")).await,
        Err(gone.clone())
    );
    assert_eq!(cache.flush_namespace(&tenant, "").await, Err(gone.clone()));
    assert_eq!(cache.flush_tenant(&tenant).await, Err(gone.clone()));
    let fresh = Freshness::default();
    assert_eq!(cache.get(&tenant, "", "k", &fresh).await, Err(gone));
}
