//! Bills over a real socket, on both backends: what calls and reports come to is
//! owed at the plan's prices. It does not know how periods are closed.

use std::time::Duration;

use riptide_persistence::{
    proto::v1::{
        CreateTenantRequest, GetRequest, GetTenantBillingRequest, ListStatementsRequest, Quotas,
        RecordUsageRequest, SetRequest, Statement, UpdateTenantRequest,
    },
    tenant::Period,
};
use rstest::rstest;
use tonic::Code;

use super::{assert_refused, mask};
use crate::server::{Clients, Kind, fields};

async fn bill(clients: &Clients, period: &str) -> Result<Statement, tonic::Status> {
    let request = GetTenantBillingRequest {
        tenant_id: "acme".into(),
        period: period.into(),
    };
    let answer = clients.tenant.clone().get_tenant_billing(request).await?;
    let answer = answer.into_inner();
    assert_eq!(answer.previous, [], "nothing was closed");
    Ok(answer.statement.unwrap())
}

/// Metric, quantity and amount of the lines of a plan.
fn lines(statement: &Statement, plan: &str) -> Vec<(String, i64, i64)> {
    let of_plan = statement.lines.iter().filter(|line| line.plan == plan);
    of_plan
        .map(|line| (line.metric.clone(), line.quantity, line.amount_micros))
        .collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_a_tenant_consumes_is_owed_at_its_plans_prices(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| {
            for (plan, price) in [("basic", 10), ("professional", 7)] {
                let plan = config.tenant.plans.get_mut(plan).unwrap();
                plan.prices.operations.unit_price_micros = price;
                plan.prices.operations.unit = 1;
                plan.prices.operations.included = 0;
                plan.prices.compute_ms.unit_price_micros = 3;
                plan.prices.compute_ms.unit = 2;
                plan.prices.compute_ms.included = 0;
            }
        })
        .await;
    let admin = server.admin();
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        plan: "basic".into(),
        quotas: Some(Quotas::default()),
        ..Default::default()
    };
    let created = admin.tenant.clone().create_tenant(request).await;
    let mut acme = server.with_key(&created.unwrap().into_inner().secret);
    for n in 0..3 {
        let set = SetRequest {
            key: format!("k{n}"),
            value: "v".into(),
            ..Default::default()
        };
        acme.cache.set(set).await.unwrap();
    }
    for key in ["k0", "missing"] {
        let get = GetRequest {
            key: key.into(),
            ..Default::default()
        };
        acme.cache.get(get).await.unwrap();
    }
    let report = RecordUsageRequest {
        tenant_id: "acme".into(),
        event_id: "render-1".into(),
        operations: 5,
        compute_ms: 5,
        ..Default::default()
    };
    admin.tenant.clone().record_usage(report).await.unwrap();

    let statement = bill(&acme, "").await.unwrap();
    assert_eq!(
        (
            statement.tenant_id.as_str(),
            statement.currency.as_str(),
            statement.closed
        ),
        ("acme", "USD", false)
    );
    let owed = lines(&statement, "basic");
    // 3 Sets, 2 Gets and 5 reported, at 10; 5 ms at 3 for 2, 7.5 rounded half up.
    assert!(owed.contains(&("operations".into(), 10, 100)), "{owed:?}");
    assert!(owed.contains(&("compute_ms".into(), 5, 8)), "{owed:?}");
    let total: i64 = statement.lines.iter().map(|line| line.amount_micros).sum();
    assert_eq!(statement.total_micros, total);
    assert!(statement.projected_total_micros >= total);

    // Another plan from here on: what was consumed before stays at its price.
    let mut tenant = riptide_persistence::proto::v1::Tenant {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    tenant.plan = "professional".into();
    let update = UpdateTenantRequest {
        tenant: Some(tenant),
        update_mask: mask(&["plan"]),
        ..Default::default()
    };
    admin.tenant.clone().update_tenant(update).await.unwrap();
    let set = SetRequest {
        key: "after".into(),
        value: "v".into(),
        ..Default::default()
    };
    acme.cache.set(set).await.unwrap();
    let statement = bill(&acme, "").await.unwrap();
    assert!(lines(&statement, "basic").contains(&("operations".into(), 10, 100)));
    assert!(lines(&statement, "professional").contains(&("operations".into(), 1, 7)));
    // By its name the period is the same; only time has passed.
    let named = bill(&acme, &statement.period).await.unwrap();
    assert!(lines(&named, "professional").contains(&("operations".into(), 1, 7)));
    assert!(named.total_micros >= statement.total_micros);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_period_that_is_none_or_not_over_is_refused_by_name(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    let now = Period::parse(&bill(&acme, "").await.unwrap().period).unwrap();
    let (next, before) = (now.next().to_string(), now.previous().to_string());
    for wrong in ["2026", "2026-13", "November", "2026-11-01", &next, &before] {
        let answer = bill(&acme, wrong).await;
        let refused = assert_refused(answer, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&refused), ["period"], "{wrong}");
    }
    let list = |period: &str, page_size, page_token: &str| ListStatementsRequest {
        period: period.into(),
        page_size,
        page_token: page_token.into(),
    };
    let mut admin = server.admin().tenant;
    for wrong in ["", "2026-13", &now.to_string(), &next] {
        let answer = admin.list_statements(list(wrong, 0, "")).await;
        let refused = assert_refused(answer, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(fields(&refused), ["period"], "{wrong}");
    }
    let refused = admin
        .list_statements(list(&before, -1, ""))
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["page_size"]);
    let answer = admin.list_statements(list(&before, 0, "forged")).await;
    assert_refused(answer, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let listed = admin
        .list_statements(list(&before, 0, ""))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((listed.statements, listed.total_size), (Vec::new(), 0));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn periods_that_are_over_are_closed_by_the_server_itself(#[case] kind: Kind) {
    let server = kind
        .start_with(|config| config.billing.close_after = Duration::ZERO)
        .await;
    let acme = server.tenant("acme").await.clients;
    let now = Period::parse(&bill(&acme, "").await.unwrap().period).unwrap();
    let request = || ListStatementsRequest {
        period: now.previous().to_string(),
        ..Default::default()
    };
    let mut admin = server.admin().tenant;
    let mut closed = admin.list_statements(request()).await.unwrap().into_inner();
    for _ in 0..1000 {
        if closed.complete {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        closed = admin.list_statements(request()).await.unwrap().into_inner();
    }
    // Nobody was there: it is closed, and empty.
    assert!(closed.complete);
    assert_eq!((closed.statements, closed.total_size), (Vec::new(), 0));
    let answer = acme.tenant.clone().list_statements(request()).await;
    assert_refused(answer, Code::PermissionDenied, "SCOPE_MISSING");
}
