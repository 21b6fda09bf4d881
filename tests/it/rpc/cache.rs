//! CacheService over a real socket, on both backends. It does not know how the
//! answers come about.

mod input;
mod invalidate;
mod isolation;
mod lease;
mod near;
mod stats;
mod warm;
mod watching;

use riptide_persistence::proto::v1::{
    BatchDeleteRequest, BatchGetRequest, BatchSetRequest, CacheEntry, DeleteRequest, GetRequest,
    InvalidateCacheRequest, Keys, ListKeysRequest, SetCondition, SetEntry, SetRequest,
    TouchRequest, invalidate_cache_request::Target,
};
use riptide_persistence::store::{Calls, MAX_WRITES};
use rstest::rstest;
use tonic::{Code, Status};
use tonic_types::{Status as ItemStatus, StatusExt};

use crate::server::{Clients, Kind, Server, reason};

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn set(key: &str, value: impl Into<bytes::Bytes>) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn item(key: &str, value: impl Into<bytes::Bytes>) -> SetEntry {
    SetEntry {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

fn keys(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|&key| key.to_owned()).collect()
}

fn flush(target: Target) -> InvalidateCacheRequest {
    InvalidateCacheRequest {
        target: Some(target),
        ..Default::default()
    }
}

async fn get(clients: &Clients, key: &str) -> Result<Option<CacheEntry>, Status> {
    let request = GetRequest {
        key: key.into(),
        ..Default::default()
    };
    let answer = clients.cache.clone().get(request).await?;
    Ok(answer.into_inner().entry)
}

/// Code and reason of one item of a batch.
fn item_reason(status: Option<&ItemStatus>) -> (Code, String) {
    let status = status.expect("this item failed");
    let details = prost::Message::encode_to_vec(status).into();
    let code = Code::from_i32(status.code);
    let whole = Status::with_details(code, status.message.clone(), details);
    (code, reason(&whole))
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn an_entry_is_set_read_touched_and_deleted(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    assert_eq!(get(&clients, "k").await.unwrap(), None);

    let request = SetRequest {
        content_type: "text/plain".into(),
        tags: keys(&["red", "green"]),
        ttl: seconds(3600),
        ..set("k", "value")
    };
    let written = clients.cache.set(request).await.unwrap().into_inner();
    assert!(written.version > 0);
    assert_eq!(written.stored_bytes, 5);
    let entry = get(&clients, "k").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), &entry.value[..]), ("k", &b"value"[..]));
    assert_eq!(entry.content_type, "text/plain");
    assert_eq!(entry.tags, ["red", "green"]);
    assert_eq!(entry.version, written.version);
    assert_eq!((entry.size_bytes, entry.stored_bytes), (5, 5));
    assert_eq!(entry.expire_time, written.expire_time);
    let lives = entry.expire_time.unwrap().seconds - entry.create_time.unwrap().seconds;
    assert!((3599..=3601).contains(&lives), "{lives} s");

    let touch = |key: &str, ttl| TouchRequest {
        key: key.into(),
        ttl,
        ..Default::default()
    };
    let touched = clients.cache.touch(touch("k", seconds(60))).await.unwrap();
    let touched = touched.into_inner();
    assert!(touched.found);
    let entry = get(&clients, "k").await.unwrap().unwrap();
    assert_eq!(entry.expire_time, touched.expire_time);
    assert_eq!(entry.version, written.version);
    let absent = clients
        .cache
        .touch(touch("absent", None))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((absent.found, absent.expire_time), (false, None));

    let delete = |if_version| DeleteRequest {
        key: "k".into(),
        if_version,
        ..Default::default()
    };
    let other = written.version + 1;
    let refused = clients.cache.delete(delete(other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(reason(&refused), "CONDITION_NOT_MET");
    let details = refused.get_error_details();
    let violation = &details.precondition_failure().unwrap().violations[0];
    assert_eq!(violation.subject, "key");
    assert!(violation.description.contains(&written.version.to_string()));
    for deleted in [true, false] {
        let answer = clients.cache.delete(delete(0)).await.unwrap().into_inner();
        assert_eq!(answer.deleted, deleted);
    }
    assert_eq!(get(&clients, "k").await.unwrap(), None);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn conditions_hold_or_say_what_was_found(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let conditional = |condition: SetCondition, if_version| SetRequest {
        condition: condition.into(),
        if_version,
        ..set("k", "v")
    };
    let refused = |status: Status| (status.code(), reason(&status));
    let not_met = (Code::FailedPrecondition, "CONDITION_NOT_MET".to_owned());

    let present = conditional(SetCondition::IfPresent, 0);
    let absent = conditional(SetCondition::IfAbsent, 0);
    assert_eq!(
        refused(clients.cache.set(present.clone()).await.unwrap_err()),
        not_met
    );
    let first = clients
        .cache
        .set(absent.clone())
        .await
        .unwrap()
        .into_inner()
        .version;
    assert_eq!(
        refused(clients.cache.set(absent).await.unwrap_err()),
        not_met
    );
    let second = clients
        .cache
        .set(present)
        .await
        .unwrap()
        .into_inner()
        .version;
    assert!(second > first);
    let stale = conditional(SetCondition::None, first);
    assert_eq!(
        refused(clients.cache.set(stale).await.unwrap_err()),
        not_met
    );
    let exact = conditional(SetCondition::None, second);
    assert!(clients.cache.set(exact).await.is_ok());
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn the_largest_batch_that_can_be_allowed_is_taken(#[case] kind: Kind) {
    // What ends soon ends a lease, too: then each item is two writes.
    let most = MAX_WRITES / 2;
    let server = kind
        .start_with(|config| config.cache.max_batch_items = most)
        .await;
    let mut clients = server.tenant("acme").await.clients;
    let names: Vec<String> = (0..most).map(|number| format!("k{number}")).collect();
    let soon = |key: &String| SetEntry {
        ttl: seconds(30),
        ..item(key, "v")
    };
    let request = BatchSetRequest {
        entries: names.iter().map(soon).collect(),
        ..Default::default()
    };
    let written = clients.cache.batch_set(request).await.unwrap();
    let written = written.into_inner().results;
    assert_eq!(written.len(), most);
    assert!(written.iter().all(|result| result.status.is_none()));
    let request = BatchGetRequest {
        keys: names.clone(),
        ..Default::default()
    };
    let read = clients.cache.batch_get(request).await.unwrap();
    let read = read.into_inner().results;
    assert!(read.len() == most && read.iter().all(|result| result.entry.is_some()));
    let request = BatchDeleteRequest {
        keys: names,
        ..Default::default()
    };
    let removed = clients.cache.batch_delete(request).await.unwrap();
    let removed = removed.into_inner().results;
    assert!(removed.len() == most && removed.iter().all(|result| result.deleted));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn batches_answer_for_each_item_in_order(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let once = SetEntry {
        condition: SetCondition::IfAbsent.into(),
        ..item("a", "1")
    };
    let request = BatchSetRequest {
        entries: vec![
            once.clone(),
            once,
            item("", "x"),
            item("b", "2"),
            item("b", "3"),
        ],
        ..Default::default()
    };
    let written = clients
        .cache
        .batch_set(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let named: Vec<_> = written.iter().map(|result| &result.key[..]).collect();
    assert_eq!(named, ["a", "a", "", "b", "b"]);
    let not_met = (Code::FailedPrecondition, "CONDITION_NOT_MET".into());
    assert_eq!(item_reason(written[1].status.as_ref()), not_met);
    let invalid = (Code::InvalidArgument, "VALIDATION_FAILED".into());
    assert_eq!(item_reason(written[2].status.as_ref()), invalid);
    assert!(written[0].status.is_none() && written[0].version > 0);
    assert!(written[4].version > written[3].version);
    assert_eq!(written[3].stored_bytes, 1);

    let request = BatchGetRequest {
        keys: keys(&["b", "absent", "", "a", "b"]),
        ..Default::default()
    };
    let read = clients
        .cache
        .batch_get(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let values: Vec<_> = read
        .iter()
        .map(|result| result.entry.as_ref().map(|entry| &entry.value[..]))
        .collect();
    let (one, three) = (Some(&b"1"[..]), Some(&b"3"[..]));
    assert_eq!(values, [three, None, None, one, three]);
    assert_eq!(item_reason(read[2].status.as_ref()), invalid);
    assert!(read[1].status.is_none());

    let request = BatchDeleteRequest {
        keys: keys(&["a", "absent", "", "a", "b"]),
        ..Default::default()
    };
    let removed = clients
        .cache
        .batch_delete(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    let deleted: Vec<_> = removed.iter().map(|result| result.deleted).collect();
    assert_eq!(deleted, [true, false, false, false, true]);
    assert_eq!(item_reason(removed[2].status.as_ref()), invalid);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn keys_are_listed_page_by_page(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let value = "x".repeat(2000);
    let mut expected: Vec<_> = (0..120).map(|n| format!("user:{n}")).collect();
    let mut entries: Vec<_> = expected
        .iter()
        .map(|key| SetEntry {
            ttl: seconds(3600),
            ..item(key, value.clone())
        })
        .collect();
    entries.push(item("other", "v"));
    let request = BatchSetRequest {
        entries,
        ..Default::default()
    };
    clients.cache.batch_set(request).await.unwrap();

    let request = ListKeysRequest {
        prefix: "user:".into(),
        page_size: 50,
        ..Default::default()
    };
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListKeysRequest {
            page_token: token,
            ..request.clone()
        };
        let page = clients.cache.list_keys(request).await.unwrap().into_inner();
        assert!(page.keys.len() <= 50);
        listed.extend(page.keys);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert!(listed.iter().all(|info| info.size_bytes == 2000));
    assert!(listed.iter().all(|info| info.expire_time.is_some()));
    let mut found: Vec<_> = listed.into_iter().map(|info| info.key).collect();
    found.sort();
    found.dedup();
    expected.sort();
    assert_eq!(found, expected);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn invalidation_takes_keys_a_namespace_or_all(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let fill = |namespace: &str| BatchSetRequest {
        namespace: namespace.into(),
        entries: vec![item("a", "1"), item("b", "2"), item("c", "3")],
        ..Default::default()
    };
    for namespace in ["", "other"] {
        clients.cache.batch_set(fill(namespace)).await.unwrap();
    }
    let some = Target::Keys(Keys {
        keys: keys(&["a", "a", "absent"]),
    });
    let answer = clients
        .cache
        .invalidate_cache(flush(some))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((answer.invalidated, answer.generation), (1, 0));
    assert_eq!(get(&clients, "a").await.unwrap(), None);
    assert!(get(&clients, "b").await.unwrap().is_some());

    let all = flush(Target::WholeNamespace(true));
    let answer = clients
        .cache
        .invalidate_cache(all)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.generation, 0);
    assert_eq!(get(&clients, "b").await.unwrap(), None);
    let other = GetRequest {
        namespace: "other".into(),
        key: "b".into(),
        ..Default::default()
    };
    let kept = clients.cache.get(other.clone()).await.unwrap().into_inner();
    assert!(kept.entry.is_some());

    let all = flush(Target::WholeTenant(true));
    let answer = clients
        .cache
        .invalidate_cache(all)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.generation, 1);
    assert!(answer.invalidated >= 3);
    assert_eq!(
        clients.cache.get(other).await.unwrap().into_inner().entry,
        None
    );
    clients.cache.set(set("a", "new")).await.unwrap();
    assert!(get(&clients, "a").await.unwrap().is_some());
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_rpc_asks_the_store_as_often_as_promised(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    for key in ["k", "warm"] {
        clients.cache.set(set(key, "v")).await.unwrap();
        get(&clients, key).await.unwrap();
    }
    // So that this replica's memory does not answer.
    clients.cache.set(set("k", "v")).await.unwrap();
    let before = server.calls();
    for key in ["k", "absent"] {
        get(&clients, key).await.unwrap();
    }
    let calls = server.calls().since(before);
    assert_eq!((calls.read, calls.commit), (2, 0), "two Gets");

    let before = server.calls();
    clients.cache.set(set("k", "w")).await.unwrap();
    let touch = TouchRequest {
        key: "k".into(),
        ttl: seconds(9),
        ..Default::default()
    };
    clients.cache.touch(touch).await.unwrap();
    let delete = DeleteRequest {
        key: "k".into(),
        ..Default::default()
    };
    clients.cache.delete(delete).await.unwrap();
    let calls = server.calls().since(before);
    assert_eq!((calls.read, calls.commit), (0, 3), "Set, Touch and Delete");

    let before = server.calls();
    let names: Vec<_> = (0..100).map(|n| format!("key {n}")).collect();
    let entries = names.iter().map(|key| item(key, "v")).collect();
    let request = BatchSetRequest {
        entries,
        ..Default::default()
    };
    clients.cache.batch_set(request).await.unwrap();
    let request = BatchGetRequest {
        keys: names.clone(),
        ..Default::default()
    };
    clients.cache.batch_get(request).await.unwrap();
    let request = BatchDeleteRequest {
        keys: names,
        ..Default::default()
    };
    clients.cache.batch_delete(request).await.unwrap();
    let calls = server.calls().since(before);
    assert_eq!((calls.read, calls.commit), (1, 2), "a batch of each kind");

    let before = server.calls();
    clients
        .cache
        .list_keys(ListKeysRequest::default())
        .await
        .unwrap();
    let calls = server.calls().since(before);
    assert_eq!(
        (calls.read, calls.commit, calls.list),
        (0, 0, 1),
        "ListKeys"
    );
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_flush_asks_the_store_as_often_however_much_there_is(#[case] kind: Kind) {
    let server = kind.start().await;
    // On a starved machine the change feed may be late, and admission then asks
    // the store too. What grew with the entries would differ in every round.
    let mut rounds = Vec::new();
    while rounds.len() < 5 {
        let few = flush_calls(&server, &format!("few-{}", rounds.len()), 10).await;
        let many = flush_calls(&server, &format!("many-{}", rounds.len()), 1000).await;
        if few == many {
            return;
        }
        rounds.push((few, many));
    }
    panic!("a flush of few and of many entries asks differently: {rounds:?}");
}

/// What a flush of a namespace, and then of all, asks the store in a new tenant
/// with so many entries in each of two namespaces.
async fn flush_calls(server: &Server, tenant_id: &str, entries: usize) -> [Calls; 2] {
    let mut clients = server.tenant(tenant_id).await.clients;
    for namespace in ["", "other"] {
        let request = BatchSetRequest {
            namespace: namespace.into(),
            entries: (0..entries).map(|n| item(&n.to_string(), "v")).collect(),
            ..Default::default()
        };
        clients.cache.batch_set(request).await.unwrap();
    }
    let mut asked = [Calls::default(); 2];
    let targets = [Target::WholeNamespace(true), Target::WholeTenant(true)];
    for (asked, target) in asked.iter_mut().zip(targets) {
        let before = server.calls();
        let request = flush(target);
        clients.cache.invalidate_cache(request).await.unwrap();
        *asked = server.calls().since(before);
    }
    assert_eq!(get(&clients, "1").await.unwrap(), None);
    asked
}
