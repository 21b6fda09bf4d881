//! What is changed or moved in the store does not open.

use bytes::Bytes;
use riptide_persistence::store::{Key, Space};
use rstest::rstest;
use tonic::{Code, Status};

use super::{Stage, batch, get, incarnation, plant, raw, set, value, vault};
use crate::{process::audit, rpc::tenant::assert_refused, server::Kind};

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_was_changed_or_moved_is_data_loss_and_told(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let id = |name: &str| format!("{name}-{kind:?}").to_lowercase();
    let ids = ["vault", "other", "plain"].map(id);
    let server = stage.serve(&["one"]).await;
    let tenants = [
        vault(&server, &ids[0]).await,
        vault(&server, &ids[1]).await,
        server.tenant(&ids[2]).await,
    ];
    for tenant in &tenants {
        for key in ["a", "b"] {
            set(&tenant.clients, "", key, format!("value of {key}"))
                .await
                .unwrap();
        }
    }
    server.stop().await;

    let store = stage.store().await;
    let mut spaces = Vec::new();
    for id in &ids {
        spaces.push(Space::tenant(incarnation(&store, id).await));
    }
    let key = |namespace, key| Key::entry(namespace, key);
    let sealed = raw(&store, &spaces[0], key("default", "a")).await.unwrap();
    let in_the_clear = raw(&store, &spaces[2], key("default", "a")).await.unwrap();
    let flip = |at: usize| {
        let mut bytes = sealed.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 4;
        Bytes::from(bytes)
    };
    let planted: Vec<(usize, &str, String, Bytes)> = [
        (0, "default", "moved".to_owned(), sealed.clone()),
        (0, "elsewhere", "a".to_owned(), sealed.clone()),
        (1, "default", "a".to_owned(), sealed.clone()),
        (2, "default", "a".to_owned(), sealed.clone()),
        (0, "default", "planted".to_owned(), in_the_clear.clone()),
        (
            0,
            "default",
            "short".to_owned(),
            sealed.slice(..sealed.len() - 1),
        ),
        (0, "default", "head".to_owned(), sealed.slice(..30)),
    ]
    .into_iter()
    // Flags, sizes, the number of the data key, a tag, the nonce, the value, its tag;
    // each in the place where it was.
    .chain(
        [2, 10, 16, 35, 45, sealed.len() - 20, sealed.len() - 1]
            .map(|at| (0, "default", format!("flipped {at}"), flip(at))),
    )
    .collect();
    for (tenant, namespace, name, bytes) in &planted {
        plant(
            &store,
            &spaces[*tenant],
            key(namespace, name),
            bytes.clone(),
        )
        .await;
    }
    store.close().await.unwrap();
    drop(store);

    let server = stage.serve(&["one"]).await;
    let clients = [0, 1, 2].map(|at: usize| server.with_key(&tenants[at].secret));
    for (tenant, namespace, name, _) in &planted {
        let got = get(&clients[*tenant], namespace, name).await;
        let refused = assert_refused(got, Code::DataLoss, "ENTRY_CORRUPT");
        assert!(!refused.message().contains("value of"), "{refused:?}");
    }
    for id in &ids {
        assert_eq!(audit::unopened(id).len(), 1, "{id}");
    }
    // One that does not open does not hinder the others of a batch, and a write
    // mends it.
    let results = batch(&clients[0], &["a", "moved", "b", "planted"]).await;
    let opened: Vec<_> = results.iter().map(|got| got.entry.is_some()).collect();
    assert_eq!(opened, [true, false, true, false]);
    set(&clients[0], "", "moved", "mended").await.unwrap();
    assert_eq!(value(&clients[0], "", "moved").await.unwrap(), "mended");
    assert_eq!(value(&clients[1], "", "b").await.unwrap(), "value of b");
}

/// The same by hand, while the server is on it.
#[tokio::test]
async fn a_copy_by_redis_cli_is_data_loss() {
    let stage = Stage::new(Kind::Redis);
    let server = stage.serve(&["one"]).await;
    let (vault, other) = (vault(&server, "vault").await, vault(&server, "other").await);
    set(&vault.clients, "", "a", "value").await.unwrap();
    set(&other.clients, "", "a", "another").await.unwrap();
    let redis = stage.redis.as_ref().unwrap();
    let store = stage.store().await;
    let name = |incarnation, key: &str| {
        let all = redis.cli(&["KEYS", &format!("v1:{{{incarnation}}}:*:default:{key}")]);
        all.trim().to_owned()
    };
    let from = name(incarnation(&store, "vault").await, "a");
    let to = name(incarnation(&store, "other").await, "a");
    let copied = [
        redis.cli(&["COPY", &from, &from.replace(":default:a", ":default:b")]),
        redis.cli(&["COPY", &from, &to, "REPLACE"]),
    ];
    for (answer, from) in copied.iter().zip([&from, &to]) {
        assert!(answer.trim().ends_with('1'), "{from}: {answer}");
    }
    let loss = |got: Result<_, Status>| assert_refused(got, Code::DataLoss, "ENTRY_CORRUPT");
    loss(get(&vault.clients, "", "b").await);
    loss(get(&other.clients, "", "a").await);
    assert_eq!(value(&vault.clients, "", "a").await.unwrap(), "value");
}
