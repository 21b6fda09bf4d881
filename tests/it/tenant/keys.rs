//! API keys from their issue to their end. It does not know how the store keeps
//! them.

use std::time::Duration;

use riptide_persistence::{
    error::Error,
    store::Table,
    tenant::{Access, Caller, Change, Issued, NewApiKey, api_key},
};
use secrecy::ExposeSecret;

use super::{DAY_MS, Replica, Stage};

const REQUEST: &str = "0190a1b2-0000-7000-8000-000000000001";

fn text(issued: &Issued) -> String {
    issued.secret.as_ref().unwrap().expose_secret().to_owned()
}

fn reader() -> NewApiKey {
    NewApiKey {
        display_name: "reader".into(),
        scopes: vec!["cache.read".into()],
        ..NewApiKey::default()
    }
}

fn by_request() -> Change {
    Change {
        request_id: REQUEST.into(),
        ..Change::default()
    }
}

async fn works(replica: &Replica, key: &str) -> bool {
    match replica.tenants.authenticate(Some(key)).await {
        Ok(_) => true,
        Err(Error::KeyInvalid) => false,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_new_key_grants_what_it_was_given_until_it_expires() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let new = NewApiKey {
        namespaces: vec!["web".into()],
        key_prefixes: vec!["user:".into()],
        expire_ms: Some(stage.now_ms() + 1000),
        ..reader()
    };
    let issued = replica
        .tenants
        .create_api_key("acme", new, Change::default())
        .await
        .unwrap();
    let caller = replica.caller(&text(&issued)).await;
    let tenancy = replica
        .tenants
        .admit(&caller, "", Access::Read)
        .await
        .unwrap();
    tenancy.reach_key("web", "user:1").unwrap();
    assert!(tenancy.reach_key("web", "order:1").is_err());
    assert!(tenancy.reach_key("default", "user:1").is_err());
    stage.pass_time(999);
    assert!(works(&replica, &text(&issued)).await);
    stage.pass_time(1);
    assert!(!works(&replica, &text(&issued)).await);
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_the_overlap() {
    let stage = Stage::new();
    let (one, two) = (stage.replica().await, stage.replica().await);
    let (_, first) = one.create_with_key("acme").await;
    let key_id = api_key::parse(&first).unwrap().key_id.to_owned();
    assert!(works(&two, &first).await);

    let overlap = Duration::from_secs(60);
    let second = one
        .tenants
        .rotate_api_key(&key_id, overlap, Change::default())
        .await
        .unwrap();
    assert_eq!(second.api_key.key_id, key_id);
    assert!(
        works(&two, &text(&second)).await,
        "usable everywhere as soon as it was returned"
    );
    assert!(works(&two, &first).await);
    stage.pass_time(60_000);
    assert!(!works(&two, &first).await);
    assert!(works(&two, &text(&second)).await);

    let third = one
        .tenants
        .rotate_api_key(&key_id, Duration::ZERO, Change::default())
        .await
        .unwrap();
    assert!(!works(&one, &text(&second)).await);
    assert!(works(&one, &text(&third)).await);

    let too_long = Duration::from_secs(30 * 24 * 60 * 60 + 1);
    let refused = one
        .tenants
        .rotate_api_key(&key_id, too_long, Change::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, Error::Invalid(found) if found[0].field == "overlap"));
}

#[tokio::test]
async fn a_revoked_key_is_dead_and_listed() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, key) = replica.create_with_key("acme").await;
    let key_id = api_key::parse(&key).unwrap().key_id.to_owned();
    let tried = Change {
        validate_only: true,
        ..Change::default()
    };
    replica
        .tenants
        .revoke_api_key(&key_id, tried)
        .await
        .unwrap();
    assert!(works(&replica, &key).await, "a validation writes nothing");

    let revoked = replica
        .tenants
        .revoke_api_key(&key_id, Change::default())
        .await
        .unwrap();
    assert_eq!(revoked.revoke_ms, Some(stage.now_ms()));
    assert!(!works(&replica, &key).await);
    stage.pass_time(5);
    let again = replica
        .tenants
        .revoke_api_key(&key_id, Change::default())
        .await
        .unwrap();
    assert_eq!(again.revoke_ms, revoked.revoke_ms);
    let listed = replica.tenants.list_api_keys("acme", 10, "").await.unwrap();
    assert_eq!(listed.api_keys[0].revoke_ms, revoked.revoke_ms);

    let rotated = replica
        .tenants
        .rotate_api_key(&key_id, Duration::ZERO, Change::default())
        .await;
    assert!(matches!(
        rotated.unwrap_err(),
        Error::ConditionNotMet { .. }
    ));
    for unknown in ["nope", &"0".repeat(28)] {
        let refused = replica
            .tenants
            .revoke_api_key(unknown, Change::default())
            .await
            .unwrap_err();
        assert_eq!(refused, Error::no_api_key(unknown));
    }
}

#[tokio::test]
async fn a_replay_gets_the_same_secret_and_other_content_is_refused() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, first) = replica.create_with_key("acme").await;
    let key_id = api_key::parse(&first).unwrap().key_id.to_owned();
    let issue = async |new| {
        replica
            .tenants
            .create_api_key("acme", new, by_request())
            .await
    };
    let issued = issue(reader()).await.unwrap();
    let again = issue(reader()).await.unwrap();
    assert_eq!(again.api_key, issued.api_key);
    assert_eq!(text(&again), text(&issued));
    assert!(works(&replica, &text(&issued)).await);
    assert_eq!(stage.records(Table::ApiKey).await.len(), 2);
    let other = NewApiKey {
        display_name: "other".into(),
        ..reader()
    };
    assert_eq!(issue(other).await.unwrap_err(), Error::RequestIdReused);
    let rotated = replica
        .tenants
        .rotate_api_key(&key_id, Duration::ZERO, by_request())
        .await;
    assert_eq!(rotated.unwrap_err(), Error::RequestIdReused);

    stage.pass_time(DAY_MS);
    let rotated = replica
        .tenants
        .rotate_api_key(&key_id, Duration::ZERO, by_request())
        .await
        .unwrap();
    let again = replica
        .tenants
        .rotate_api_key(&key_id, Duration::ZERO, by_request())
        .await
        .unwrap();
    assert_eq!(text(&again), text(&rotated));
    assert!(works(&replica, &text(&rotated)).await);
}

#[tokio::test]
async fn no_key_is_issued_where_there_is_no_live_tenant_or_only_a_validation() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    replica.create("acme").await;
    let tried = Change {
        validate_only: true,
        ..Change::default()
    };
    let issued = replica
        .tenants
        .create_api_key("acme", reader(), tried)
        .await
        .unwrap();
    assert!(issued.secret.is_none());
    assert_eq!(stage.records(Table::ApiKey).await.len(), 1);
    for missing in ["nobody", "No", ""] {
        let refused = replica
            .tenants
            .create_api_key(missing, reader(), Change::default())
            .await
            .unwrap_err();
        assert!(
            matches!(refused, Error::NotFound { .. } | Error::Invalid(_)),
            "{missing}"
        );
    }
    replica
        .tenants
        .delete("acme", false, Change::default())
        .await
        .unwrap();
    let refused = replica
        .tenants
        .create_api_key("acme", reader(), Change::default())
        .await
        .unwrap_err();
    assert_eq!(refused, Error::TenantDeleted("acme".into()));
}

#[tokio::test]
async fn keys_are_listed_page_by_page_with_their_last_use() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, first) = replica.create_with_key("acme").await;
    replica.create("other").await;
    for _ in 0..4 {
        replica
            .tenants
            .create_api_key("acme", reader(), Change::default())
            .await
            .unwrap();
    }
    stage.pass_time(1);
    let used_ms = stage.now_ms();
    assert!(works(&replica, &first).await);
    stage.pass_time(10);
    assert!(
        works(&replica, &first).await,
        "within a minute of the first use: not noted again"
    );
    replica.tenants.flush_uses().await.unwrap();

    // A replica that knows nothing by itself finds it in the store.
    let other = stage.deaf_replica();
    let (mut ids, mut uses, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let page = other
            .tenants
            .list_api_keys("acme", 2, &token)
            .await
            .unwrap();
        assert!(page.api_keys.len() <= 2);
        uses.extend(
            page.api_keys
                .iter()
                .filter_map(|key| Some((key.key_id.clone(), key.last_used_ms?))),
        );
        ids.extend(page.api_keys.into_iter().map(|key| key.key_id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(ids.len(), 5);
    assert!(ids.is_sorted());
    assert_eq!(
        uses,
        [(api_key::parse(&first).unwrap().key_id.to_owned(), used_ms)]
    );

    let page = other.tenants.list_api_keys("acme", 2, "").await.unwrap();
    let foreign = other
        .tenants
        .list_api_keys("other", 2, &page.next_page_token)
        .await
        .unwrap_err();
    assert_eq!(foreign, Error::InvalidPageToken);
}

#[tokio::test]
async fn a_use_costs_one_commit_a_minute() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let (_, key) = replica.create_with_key("acme").await;
    let before = stage.counters.calls();
    for _ in 0..3 {
        for _ in 0..10 {
            replica.caller(&key).await;
            replica.tenants.flush_uses().await.unwrap();
        }
        stage.pass_time(60_000);
    }
    assert_eq!(stage.counters.calls().since(before).commit, 3);
    assert!(matches!(replica.caller(&key).await, Caller::Key(_)));
}
