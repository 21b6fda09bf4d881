//! What sessions come to: usage, quotas, points, and the report of a purge. It does not
//! know how anything is counted.

use std::time::Duration;

use riptide_persistence::proto::v1::{
    DeleteTenantRequest, GetTenantBillingRequest, GetTenantUsageRequest, GetTenantUsageResponse,
    PhysicalReclaim, PurgeTenantRequest, UsageGranularity,
};
use rstest::rstest;
use tonic::Code;

use super::{assert_refused, create, get, of, terminate, touch};
use crate::server::{Clients, Kind};

async fn usage(clients: &Clients) -> GetTenantUsageResponse {
    let request = GetTenantUsageRequest {
        granularity: UsageGranularity::Minute.into(),
        ..Default::default()
    };
    let answer = clients.tenant.clone().get_tenant_usage(request).await;
    answer.unwrap().into_inner()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn usage_and_bill_tell_of_sessions(#[case] kind: Kind) {
    let server = kind.start().await;
    let clients = server.tenant("acme").await.clients;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(create(&clients, of("ann")).await.unwrap());
    }
    get(&clients, &sessions[0].session_id).await.unwrap();
    touch(&clients, &sessions[1].session_id).await.unwrap();
    terminate(&clients, &sessions[2].session_id, "")
        .await
        .unwrap();
    let answer = usage(&clients).await;
    let now = answer.usage.unwrap();
    assert_eq!(now.active_sessions, 3);
    assert_eq!(now.operations, 7);
    assert!(now.storage_bytes > 3 * 150, "{now:?}");
    assert!(now.bytes_in > 0 && now.bytes_out > 4 * 55, "{now:?}");
    assert_eq!((now.cache_entries, now.memory_bytes), (0, 0));
    for (metric, used) in [
        ("active_sessions", now.active_sessions),
        ("storage_bytes", now.storage_bytes),
    ] {
        let quota = &answer.quotas[metric];
        assert_eq!(quota.used, used, "{metric}");
        assert_eq!(quota.remaining, quota.limit - used, "{metric}");
    }

    // Held bytes add up, in the points as in the sum, and the bill follows.
    let billed = async || {
        let request = GetTenantBillingRequest::default();
        let answer = clients.tenant.clone().get_tenant_billing(request).await;
        let statement = answer.unwrap().into_inner().statement.unwrap();
        let mut lines = statement.lines.into_iter();
        let line = lines.find(|line| line.metric == "storage_byte_seconds");
        line.map_or(0, |line| line.quantity)
    };
    loop {
        let before = usage(&clients).await;
        let bill = billed().await;
        let after = usage(&clients).await;
        let [before, after] = [before, after].map(|answer| {
            let points = answer.points.iter().map(|point| point.storage_byte_seconds);
            (
                answer.usage.unwrap().storage_byte_seconds,
                points.sum::<i64>(),
            )
        });
        assert!(
            (before.0..=after.0).contains(&bill),
            "{before:?} {bill} {after:?}"
        );
        if before.0 >= 2 * now.storage_bytes {
            // The month may have begun within the points, and not the other way round.
            assert!(before.1 >= before.0, "{before:?}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_purge_removes_sessions_and_tells_how_many(#[case] kind: Kind) {
    let mut server = kind.start().await;
    let tenant = server.tenant("acme").await;
    for user_id in ["ann", "ann", "bob"] {
        create(&tenant.clients, of(user_id)).await.unwrap();
    }
    let held = usage(&tenant.clients).await.usage.unwrap();
    let mut admin = server.admin().tenant;
    let request = DeleteTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.delete_tenant(request).await.unwrap();
    let purge = |validate_only| PurgeTenantRequest {
        tenant_id: "acme".into(),
        validate_only,
        ..Default::default()
    };
    for validate_only in [true, false] {
        let report = admin.purge_tenant(purge(validate_only)).await.unwrap();
        let report = report.into_inner().report.unwrap();
        let told = (report.sessions, report.session_bytes);
        assert_eq!(told, (3, held.storage_bytes), "{validate_only}");
        if !validate_only {
            assert_eq!(report.physical_reclaim(), PhysicalReclaim::Done);
        }
    }
    if let Some(redis) = server.redis() {
        // What is left tells that the space was removed.
        let left = redis.cli(&["keys", "v1:{s????????????????}:*"]);
        assert!(left.lines().all(|key| key.ends_with("}:s")), "{left}");
    }
    // The next of the name begins with none.
    let again = server.tenant("acme").await.clients;
    let held = usage(&again).await.usage.unwrap();
    assert_eq!((held.active_sessions, held.storage_bytes), (0, 0));
    let old = create(&tenant.clients, of("ann")).await;
    assert_refused(old, Code::Unauthenticated, "API_KEY_INVALID");
}
