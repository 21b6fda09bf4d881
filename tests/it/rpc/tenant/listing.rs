//! ListTenants over a real socket. It does not know what a token is made of.

use std::collections::HashMap;

use riptide_persistence::proto::v1::{
    CreateTenantRequest, DeleteTenantRequest, ListTenantsRequest, TenantState,
};
use rstest::rstest;
use tonic::{Code, Status};

use super::{assert_refused, named};
use crate::server::{Clients, Kind, fields};

async fn page(
    admin: &Clients,
    request: ListTenantsRequest,
) -> Result<(Vec<String>, String), Status> {
    let page = admin
        .tenant
        .clone()
        .list_tenants(request)
        .await?
        .into_inner();
    Ok((
        page.tenants
            .into_iter()
            .map(|tenant| tenant.tenant_id)
            .collect(),
        page.next_page_token,
    ))
}

async fn all(admin: &Clients, request: ListTenantsRequest) -> Vec<String> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let (more, next) = page(
            admin,
            ListTenantsRequest {
                page_token,
                ..request.clone()
            },
        )
        .await
        .unwrap();
        ids.extend(more);
        page_token = next;
        if page_token.is_empty() {
            return ids;
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn tenants_are_listed_in_order_and_by_filter(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    for n in 0..7 {
        let request = CreateTenantRequest {
            plan: if n % 2 == 0 { "free" } else { "basic" }.into(),
            labels: HashMap::from([("parity".into(), (n % 2).to_string())]),
            ..named(&format!("tenant-{n}"))
        };
        admin.tenant.create_tenant(request).await.unwrap();
    }
    let delete = DeleteTenantRequest {
        tenant_id: "tenant-3".into(),
        ..Default::default()
    };
    admin.tenant.delete_tenant(delete).await.unwrap();
    let names = |numbers: &[u8]| {
        numbers
            .iter()
            .map(|n| format!("tenant-{n}"))
            .collect::<Vec<_>>()
    };
    let by = |page_size| ListTenantsRequest {
        page_size,
        ..Default::default()
    };
    for (request, expected) in [
        (by(0), names(&[0, 1, 2, 4, 5, 6])),
        (by(2), names(&[0, 1, 2, 4, 5, 6])),
        (by(i32::MAX), names(&[0, 1, 2, 4, 5, 6])),
        (
            ListTenantsRequest {
                show_deleted: true,
                ..by(3)
            },
            names(&[0, 1, 2, 3, 4, 5, 6]),
        ),
        (
            ListTenantsRequest {
                states: vec![TenantState::Deleted.into()],
                ..by(3)
            },
            names(&[3]),
        ),
        (
            ListTenantsRequest {
                plan: "basic".into(),
                ..by(1)
            },
            names(&[1, 5]),
        ),
        (
            ListTenantsRequest {
                labels: [("parity".into(), "0".into())].into(),
                ..by(3)
            },
            names(&[0, 2, 4, 6]),
        ),
        (
            ListTenantsRequest {
                name_prefix: "tenant-6".into(),
                ..by(3)
            },
            names(&[6]),
        ),
        (
            ListTenantsRequest {
                name_prefix: "x".into(),
                ..by(3)
            },
            vec![],
        ),
    ] {
        assert_eq!(all(&admin, request.clone()).await, expected, "{request:?}");
    }

    let (_, token) = page(&admin, by(2)).await.unwrap();
    let mut tampered = token.clone();
    tampered.replace_range(3..4, if &token[3..4] == "A" { "B" } else { "A" });
    for request in [
        ListTenantsRequest {
            page_token: tampered,
            ..by(2)
        },
        ListTenantsRequest {
            page_token: "nonsense".into(),
            ..by(2)
        },
        ListTenantsRequest {
            page_token: token.clone(),
            plan: "free".into(),
            ..by(2)
        },
        ListTenantsRequest {
            page_token: token.clone(),
            show_deleted: true,
            ..by(2)
        },
    ] {
        assert_refused(
            page(&admin, request).await,
            Code::InvalidArgument,
            "INVALID_PAGE_TOKEN",
        );
    }
    page(
        &admin,
        ListTenantsRequest {
            page_token: token,
            ..by(5)
        },
    )
    .await
    .unwrap();

    let bad = ListTenantsRequest {
        states: vec![1, 0, 9],
        ..by(-1)
    };
    let refused = assert_refused(
        page(&admin, bad).await,
        Code::InvalidArgument,
        "VALIDATION_FAILED",
    );
    assert_eq!(fields(&refused), ["page_size", "states[1]", "states[2]"]);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_listing_is_stable_under_concurrent_creates(#[case] kind: Kind) {
    let server = kind.start().await;
    let mut admin = server.admin();
    let mut old = Vec::new();
    for n in 0..20 {
        old.push(format!("old-{n:02}"));
        admin
            .tenant
            .create_tenant(named(&format!("old-{n:02}")))
            .await
            .unwrap();
    }
    let creating = {
        let mut admin = server.admin();
        tokio::spawn(async move {
            for n in 0..20 {
                for name in [
                    format!("aaa-{n:02}"),
                    format!("old-{n:02}-new"),
                    format!("zzz-{n:02}"),
                ] {
                    admin.tenant.create_tenant(named(&name)).await.unwrap();
                }
            }
        })
    };
    let mut listings = 0;
    while !creating.is_finished() || listings < 3 {
        let mut listed = all(
            &admin,
            ListTenantsRequest {
                page_size: 3,
                ..Default::default()
            },
        )
        .await;
        assert!(listed.is_sorted(), "{listed:?}");
        listed.retain(|id| id.starts_with("old-") && !id.ends_with("-new"));
        assert_eq!(listed, old);
        listings += 1;
    }
    creating.await.unwrap();
}
