//! Data keys and master keys are rotated, under traffic, with nothing lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use riptide_persistence::proto::v1::{
    DeleteTenantRequest, RewrapDataKeysRequest, RewrapReport, RotateDataKeyRequest,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{Stage, get, set, value, vault};
use crate::{
    rpc::tenant::{assert_refused, get as get_tenant},
    server::{Clients, Kind, fields},
};

fn rotate(tenant_id: &str) -> RotateDataKeyRequest {
    RotateDataKeyRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    }
}

/// All pages of a rewrap, of so many tenants each.
async fn rewrap(
    clients: &Clients,
    page_size: i32,
    validate_only: bool,
) -> Result<RewrapReport, Status> {
    let mut whole = RewrapReport::default();
    let mut request = RewrapDataKeysRequest {
        page_size,
        validate_only,
        ..Default::default()
    };
    loop {
        let page = clients
            .tenant
            .clone()
            .rewrap_data_keys(request.clone())
            .await?;
        let page = page.into_inner();
        let report = page.report.unwrap();
        whole.master_key_id = report.master_key_id;
        whole.tenants += report.tenants;
        whole.rewrapped += report.rewrapped;
        for (id, count) in report.data_keys {
            *whole.data_keys.entry(id).or_default() += count;
        }
        whole.lost.extend(report.lost);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(whole);
        }
    }
}

fn counts(report: &RewrapReport) -> BTreeMap<&str, i64> {
    let counts = report.data_keys.iter();
    counts.map(|(id, count)| (id.as_str(), *count)).collect()
}

/// Sets and gets until told to stop; every answer must be what was set last.
async fn traffic(clients: Clients, key: String, over: Arc<AtomicBool>, turns: Arc<AtomicU64>) {
    let mut turn = 0_u64;
    while !over.load(Ordering::Relaxed) {
        turn += 1;
        let text = format!("{key} {turn}");
        set(&clients, "", &key, text.clone()).await.unwrap();
        assert_eq!(value(&clients, "", &key).await.unwrap(), text);
        // Set before any rotation.
        assert_eq!(value(&clients, "", "first").await.unwrap(), "of all");
        turns.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the callers made so many more turns.
async fn more(turns: &AtomicU64, wanted: u64) {
    let from = turns.load(Ordering::Relaxed);
    let reached = async {
        while turns.load(Ordering::Relaxed) < from + wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    reached.expect("the callers do not come on");
}

#[rstest]
#[case::embedded(Kind::Embedded, 1)]
#[case::redis(Kind::Redis, 2)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_rotated_under_traffic(#[case] kind: Kind, #[case] replicas: usize) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["old"]).await;
    let tenant = vault(&server, "vault").await;
    for other in ["other-1", "other-2", "other-3"] {
        vault(&server, other).await;
    }
    server.tenant("plain").await;
    set(&tenant.clients, "", "first", "of all").await.unwrap();
    server.stop().await;

    let mut servers = Vec::new();
    for _ in 0..replicas {
        servers.push(stage.serve(&["new", "old"]).await);
    }
    let (over, turns) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let clients = servers[number % replicas].with_key(&tenant.secret);
            let key = format!("key {number}");
            tokio::spawn(traffic(clients, key, over.clone(), turns.clone()))
        })
        .collect();
    more(&turns, 20).await;
    for turn in 0..6 {
        let mut admin = servers[turn % replicas].admin();
        let rotated = admin.tenant.rotate_data_key(rotate("vault")).await.unwrap();
        let rotated = rotated.into_inner();
        assert_eq!(rotated.data_keys as usize, turn + 2);
        assert_eq!(rotated.data_key.unwrap().master_key_id, "new");
        // What one replica seals with the new key, another opens at once.
        let key = format!("rotated {turn}");
        let at = |at: usize| servers[at % replicas].with_key(&tenant.secret);
        set(&at(turn), "", &key, "sealed").await.unwrap();
        assert_eq!(value(&at(turn + 1), "", &key).await.unwrap(), "sealed");
        more(&turns, 20).await;
    }

    let admin = servers[0].admin();
    let etag = get_tenant(&admin, "vault").await.unwrap().etag;
    let before = rewrap(&admin, 2, true).await.unwrap();
    assert_eq!(counts(&before), [("new", 6), ("old", 4)].into());
    assert_eq!(
        (before.tenants, before.rewrapped, before.lost.len()),
        (5, 4, 0)
    );
    let done = rewrap(&admin, 2, false).await.unwrap();
    assert_eq!(counts(&done), [("new", 10)].into());
    assert_eq!((done.master_key_id.as_str(), done.rewrapped), ("new", 4));
    let again = rewrap(&admin, 0, false).await.unwrap();
    assert_eq!((counts(&again), again.rewrapped), ([("new", 10)].into(), 0));
    assert_eq!(get_tenant(&admin, "vault").await.unwrap().etag, etag);
    more(&turns, 20).await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    for server in servers {
        server.stop().await;
    }

    // The old master key is needed no more.
    let server = stage.serve(&["new"]).await;
    let clients = server.with_key(&tenant.secret);
    assert_eq!(value(&clients, "", "first").await.unwrap(), "of all");
    for turn in 0..6 {
        let key = format!("rotated {turn}");
        assert_eq!(value(&clients, "", &key).await.unwrap(), "sealed");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_cannot_be_unwrapped_is_named_and_stays(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["lost"]).await;
    let tenant = vault(&server, "vault").await;
    set(&tenant.clients, "", "k", "value").await.unwrap();
    server.stop().await;
    let server = stage.serve(&["old"]).await;
    // A deleted tenant can come back, and its keys are wrapped with the others.
    let deleted = vault(&server, "deleted").await;
    set(&deleted.clients, "", "k", "value").await.unwrap();
    let delete = DeleteTenantRequest {
        tenant_id: "deleted".into(),
        ..Default::default()
    };
    server.admin().tenant.delete_tenant(delete).await.unwrap();
    server.stop().await;

    let server = stage.serve(&["new", "old"]).await;
    let report = rewrap(&server.admin(), 1, false).await.unwrap();
    assert_eq!(counts(&report), [("lost", 1), ("new", 1)].into());
    let [lost] = report.lost.as_slice() else {
        panic!("{report:?}")
    };
    assert_eq!((lost.tenant_id.as_str(), lost.data_key_id), ("vault", 1));
    assert_eq!(lost.master_key_id, "lost");
    assert!(lost.reason.contains("not in encryption.master_keys"));
    assert_refused(
        get(&server.with_key(&tenant.secret), "", "k").await,
        Code::DataLoss,
        "ENTRY_CORRUPT",
    );
    server.stop().await;

    let server = stage.serve(&["new", "lost"]).await;
    let report = rewrap(&server.admin(), 1, false).await.unwrap();
    assert_eq!(counts(&report), [("new", 2)].into());
    let clients = server.with_key(&tenant.secret);
    assert_eq!(value(&clients, "", "k").await.unwrap(), "value");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_rotation_is_done_once_and_checked(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["one"]).await;
    let tenant = vault(&server, "vault").await;
    let mut admin = server.admin();
    let once = RotateDataKeyRequest {
        request_id: "0190a1b2-0000-7000-8000-0000000000bb".into(),
        ..rotate("vault")
    };
    let first = admin
        .tenant
        .rotate_data_key(once.clone())
        .await
        .unwrap()
        .into_inner();
    let again = admin
        .tenant
        .rotate_data_key(once.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(first, again);
    assert_eq!(
        (first.data_keys, first.data_key.unwrap().data_key_id),
        (2, 2)
    );
    let other = RotateDataKeyRequest {
        tenant_id: "other".into(),
        ..once
    };
    let other = admin.tenant.rotate_data_key(other).await;
    assert_refused(other, Code::FailedPrecondition, "REQUEST_ID_REUSED");
    let tried = RotateDataKeyRequest {
        validate_only: true,
        ..rotate("vault")
    };
    let tried = admin
        .tenant
        .rotate_data_key(tried)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(tried.data_keys, 3);
    let stale = RotateDataKeyRequest {
        etag: tenant.message.etag.clone(),
        ..rotate("vault")
    };
    let stale = admin.tenant.rotate_data_key(stale).await;
    assert_refused(stale, Code::Aborted, "ETAG_MISMATCH");
    let third = admin.tenant.rotate_data_key(rotate("vault")).await.unwrap();
    assert_eq!(third.into_inner().data_keys, 3);

    let unknown = admin.tenant.rotate_data_key(rotate("nobody")).await;
    assert_refused(unknown, Code::NotFound, "TENANT_NOT_FOUND");
    let unnamed = admin.tenant.rotate_data_key(rotate("")).await;
    let unnamed = assert_refused(unnamed, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(fields(&unnamed), ["tenant_id"]);
    let negative = rewrap(&admin, -1, false).await;
    let negative = assert_refused(negative, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(fields(&negative), ["page_size"]);
    let forged = RewrapDataKeysRequest {
        page_token: "forged".into(),
        ..Default::default()
    };
    let forged = admin.tenant.rewrap_data_keys(forged).await;
    assert_refused(forged, Code::InvalidArgument, "INVALID_PAGE_TOKEN");

    let mut clients = tenant.clients.clone();
    let denied = clients.tenant.rotate_data_key(rotate("vault")).await;
    assert_refused(denied, Code::PermissionDenied, "SCOPE_MISSING");
    let denied = rewrap(&clients, 0, true).await;
    assert_refused(denied, Code::PermissionDenied, "SCOPE_MISSING");
}
