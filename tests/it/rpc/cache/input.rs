//! What CacheService refuses, by code, reason and field; and the largest that it
//! takes. It does not know who calls.

use std::time::Duration;

use riptide_persistence::{
    config::Config,
    proto::v1::{
        BatchDeleteRequest, BatchGetRequest, BatchSetRequest, DeleteRequest, GetRequest,
        InvalidateCacheRequest, Keys, ListKeysRequest, SetRequest, TouchRequest,
        invalidate_cache_request::Target,
    },
};
use rstest::rstest;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{flush, get, item, keys, seconds, set};
use crate::server::{Clients, Kind, fields, raw_call, reason};

/// Asserts that a request was refused for these fields.
fn refused_for<T: std::fmt::Debug>(answer: Result<T, Status>, named: &[&str]) {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(reason(&status), "VALIDATION_FAILED");
    assert_eq!(fields(&status), named);
    let details = status.get_error_details();
    for violation in &details.bad_request().unwrap().field_violations {
        assert!(!violation.description.is_empty());
    }
}

async fn refused_set(clients: &mut Clients, request: SetRequest, named: &[&str]) {
    refused_for(clients.cache.set(request).await, named);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn every_field_that_breaks_a_rule_is_named(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let long = "k".repeat(1025);
    let spans = [
        seconds(0),
        seconds(-1),
        seconds(i64::MIN),
        seconds(i64::MAX),
        seconds(366 * 86_400),
        Some(prost_types::Duration {
            seconds: 0,
            nanos: -1,
        }),
    ];
    for ttl in spans {
        let request = SetRequest {
            ttl,
            ..set("k", "v")
        };
        refused_set(&mut clients, request, &["ttl"]).await;
        let request = TouchRequest {
            key: "k".into(),
            ttl,
            ..Default::default()
        };
        refused_for(clients.cache.touch(request).await, &["ttl"]);
    }
    let good = set("k", "v");
    refused_set(&mut clients, set("", "v"), &["key"]).await;
    refused_set(&mut clients, set(&long, "v"), &["key"]).await;
    let request = SetRequest {
        namespace: "No:".into(),
        condition: 99,
        if_version: -1,
        tags: vec![String::new()],
        ..set("", "")
    };
    let named = ["namespace", "key", "tags[0]", "if_version", "condition"];
    refused_set(&mut clients, request, &named).await;
    let request = SetRequest {
        tags: vec!["t".into(); 17],
        ..good.clone()
    };
    refused_set(&mut clients, request, &["tags"]).await;
    let request = SetRequest {
        content_type: "c".repeat(129),
        ..good.clone()
    };
    refused_set(&mut clients, request, &["content_type"]).await;
    let request = SetRequest {
        condition: 2,
        if_version: 1,
        ..good
    };
    refused_set(&mut clients, request, &["if_version"]).await;

    refused_for(get(&clients, "").await, &["key"]);
    refused_for(get(&clients, &long).await, &["key"]);
    let request = GetRequest {
        key: "k".into(),
        consistency: 7,
        min_version: -1,
        max_age: seconds(-1),
        ..Default::default()
    };
    refused_for(
        clients.cache.get(request).await,
        &["consistency", "max_age", "min_version"],
    );
    let request = DeleteRequest {
        if_version: -1,
        ..Default::default()
    };
    refused_for(clients.cache.delete(request).await, &["if_version", "key"]);
    refused_for(
        clients.cache.batch_get(BatchGetRequest::default()).await,
        &["keys"],
    );
    refused_for(
        clients.cache.batch_set(BatchSetRequest::default()).await,
        &["entries"],
    );
    refused_for(
        clients
            .cache
            .batch_delete(BatchDeleteRequest::default())
            .await,
        &["keys"],
    );
    let request = ListKeysRequest {
        page_size: -1,
        prefix: long,
        ..Default::default()
    };
    refused_for(
        clients.cache.list_keys(request).await,
        &["prefix", "page_size"],
    );

    let none = InvalidateCacheRequest::default();
    refused_for(clients.cache.invalidate_cache(none).await, &["target"]);
    let untrue = flush(Target::WholeNamespace(false));
    refused_for(
        clients.cache.invalidate_cache(untrue).await,
        &["whole_namespace"],
    );
    let untrue = flush(Target::WholeTenant(false));
    refused_for(
        clients.cache.invalidate_cache(untrue).await,
        &["whole_tenant"],
    );
    let empty = flush(Target::Keys(Keys::default()));
    refused_for(clients.cache.invalidate_cache(empty).await, &["keys.keys"]);
    let some = flush(Target::Keys(Keys {
        keys: keys(&["fine", ""]),
    }));
    refused_for(
        clients.cache.invalidate_cache(some).await,
        &["keys.keys[1]"],
    );

    let mut admin = server.admin();
    let request = GetRequest {
        key: "k".into(),
        ..Default::default()
    };
    refused_for(admin.cache.get(request).await, &["tenant_id"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_key_that_is_not_utf8_is_refused(#[case] kind: Kind) {
    /// GetRequest as somebody would write it who does not check text.
    #[derive(Clone, PartialEq, prost::Message)]
    struct AnyBytes {
        #[prost(bytes = "vec", tag = "3")]
        key: Vec<u8>,
    }
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let message = AnyBytes {
        key: vec![0xff, 0xfe],
    };
    let path = "/riptide.persistence.v1.CacheService/Get";
    let refused = raw_call(clients.keyed, path, message).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(reason(&refused), "VALIDATION_FAILED");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn odd_keys_are_separate_entries(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let long = "k".repeat(1024);
    let odd = [
        "a", "a:b", "{a}", "}{", "{", ":", "a\0b", "\0", "a\r\nb", "*", "[a]", "å", "a\u{30a}",
        " ", &long,
    ];
    for key in odd {
        clients.cache.set(set(key, key.to_owned())).await.unwrap();
    }
    for key in odd {
        let entry = get(&clients, key).await.unwrap().unwrap();
        assert_eq!((&entry.value[..], &entry.key[..]), (key.as_bytes(), key));
    }
    let request = ListKeysRequest {
        page_size: 1000,
        ..Default::default()
    };
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListKeysRequest {
            page_token: token,
            ..request.clone()
        };
        let page = clients.cache.list_keys(request).await.unwrap().into_inner();
        listed.extend(page.keys.into_iter().map(|info| info.key));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    listed.sort();
    listed.dedup();
    let mut expected = odd.map(str::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn the_largest_value_fits_and_the_next_does_not(#[case] kind: Kind) {
    // A busy machine may take its time over 20 MiB.
    let patient = |config: &mut Config| config.redis.command_timeout = Duration::from_secs(20);
    let server = kind.start_with(patient).await;
    let mut clients = server.tenant("acme").await.clients;
    let mut state = 1_u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    })
    .take(20 << 20)
    .collect();
    let noise = bytes::Bytes::from(noise);
    let written = clients
        .cache
        .set(set("noise", noise.clone()))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(written.stored_bytes, 20 << 20);
    let entry = get(&clients, "noise").await.unwrap().unwrap();
    assert!(entry.value == noise);
    assert_eq!(entry.size_bytes, 20 << 20);

    let text = "a line that comes again and again\n".repeat(30_000);
    let written = clients
        .cache
        .set(set("text", text.clone()))
        .await
        .unwrap()
        .into_inner();
    assert!(
        written.stored_bytes < text.len() as i64 / 50,
        "{} bytes",
        written.stored_bytes
    );
    let entry = get(&clients, "text").await.unwrap().unwrap();
    assert!(entry.value == text.as_bytes());
    assert_eq!(
        (entry.size_bytes, entry.stored_bytes),
        (text.len() as i64, written.stored_bytes)
    );

    for bytes in [(20 << 20) + 1, 21 << 20] {
        let refused = clients
            .cache
            .set(set("large", vec![0; bytes]))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(reason(&refused), "ENTRY_TOO_LARGE");
    }
    assert_eq!(get(&clients, "large").await.unwrap(), None);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn batches_are_bounded(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let too_many = |status: Status, field: &str| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), "BATCH_TOO_LARGE");
        assert_eq!(fields(&status), [field]);
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(
            (&metadata["items"][..], &metadata["limit"][..]),
            ("1001", "1000")
        );
    };
    let many: Vec<String> = (0..1001).map(|n| n.to_string()).collect();
    let entries = many.iter().map(|key| item(key, "v")).collect();
    let request = BatchSetRequest {
        entries,
        ..Default::default()
    };
    too_many(
        clients.cache.batch_set(request).await.unwrap_err(),
        "entries",
    );
    let request = BatchGetRequest {
        keys: many.clone(),
        ..Default::default()
    };
    too_many(clients.cache.batch_get(request).await.unwrap_err(), "keys");
    let request = BatchDeleteRequest {
        keys: many.clone(),
        ..Default::default()
    };
    too_many(
        clients.cache.batch_delete(request).await.unwrap_err(),
        "keys",
    );
    let request = flush(Target::Keys(Keys { keys: many.clone() }));
    too_many(
        clients.cache.invalidate_cache(request).await.unwrap_err(),
        "keys.keys",
    );

    let entries = many.iter().take(1000).map(|key| item(key, "v")).collect();
    let request = BatchSetRequest {
        entries,
        ..Default::default()
    };
    let written = clients
        .cache
        .batch_set(request)
        .await
        .unwrap()
        .into_inner()
        .results;
    assert_eq!(
        written
            .iter()
            .filter(|result| result.status.is_none())
            .count(),
        1000
    );
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn page_tokens_belong_to_their_listing(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut clients = server.tenant("acme").await.clients;
    let mut others = server.tenant("other").await.clients;
    let entries: Vec<_> = (0..1000).map(|n| item(&format!("key {n}"), "v")).collect();
    for _ in 0..2 {
        let request = BatchSetRequest {
            entries: entries.clone(),
            ..Default::default()
        };
        clients.cache.batch_set(request).await.unwrap();
    }
    let request = ListKeysRequest {
        page_size: 5,
        ..Default::default()
    };
    let page = clients
        .cache
        .list_keys(request.clone())
        .await
        .unwrap()
        .into_inner();
    let token = page.next_page_token;
    assert!(!token.is_empty());
    let mut tampered = token.clone().into_bytes();
    tampered[3] = if tampered[3] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    let with = |page_token: &str| ListKeysRequest {
        page_token: page_token.into(),
        ..request.clone()
    };
    let misused = [
        with(&tampered),
        with("no token"),
        with(&token[1..]),
        with(&"A".repeat(100_000)),
        ListKeysRequest {
            prefix: "k".into(),
            ..with(&token)
        },
        ListKeysRequest {
            namespace: "other".into(),
            ..with(&token)
        },
    ];
    let invalid = |status: Status| {
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), "INVALID_PAGE_TOKEN");
    };
    for request in misused {
        invalid(clients.cache.list_keys(request).await.unwrap_err());
    }
    invalid(others.cache.list_keys(with(&token)).await.unwrap_err());
    assert!(clients.cache.list_keys(with(&token)).await.is_ok());
}
