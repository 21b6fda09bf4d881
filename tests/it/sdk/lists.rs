//! Lists as streams: every page of them, while what is listed grows. It does not know how
//! pages are made.

use std::{collections::BTreeSet, pin::pin};

use futures::{StreamExt, TryStreamExt};
use riptide_persistence::{
    client::Reason,
    proto::v1::{ListApiKeysRequest, ListKeysRequest, ListTenantsRequest},
};
use rstest::rstest;

use super::client::{admin, new_tenant, set, tenant};
use crate::server::Kind;

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn every_tenant_is_listed_while_others_are_created(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = admin(&server).connect().await.unwrap();
    let mut there = BTreeSet::new();
    for n in 0..7 {
        let tenant_id = format!("there-{n}");
        admin.call(new_tenant(&tenant_id)).await.unwrap();
        there.insert(tenant_id);
    }
    let request = ListTenantsRequest {
        page_size: 2,
        ..Default::default()
    };
    let mut listed = BTreeSet::new();
    let mut tenants = pin!(admin.pages(request));
    let mut n = 0;
    while let Some(tenant) = tenants.try_next().await.unwrap() {
        assert!(
            listed.insert(tenant.tenant_id.clone()),
            "{} came twice",
            tenant.tenant_id
        );
        if n < 10 {
            // Some before where the list stands, and some after it.
            for name in ["aaa", "zzz"] {
                admin
                    .call(new_tenant(&format!("{name}-{n}")))
                    .await
                    .unwrap();
            }
        }
        n += 1;
    }
    assert!(listed.is_superset(&there), "{listed:?}");
    assert!(tenants.try_next().await.unwrap().is_none(), "it has ended");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_page_is_asked_for_when_it_is_needed_and_what_fails_ends_the_list(#[case] kind: Kind) {
    let server = kind.start().await;
    let admin = admin(&server).connect().await.unwrap();
    let acme = tenant(&admin, "acme").await;
    for n in 0..5 {
        acme.call(set(&format!("k{n}"))).await.unwrap();
    }
    let request = ListKeysRequest {
        page_size: 2,
        ..Default::default()
    };
    let keys: BTreeSet<String> = acme
        .pages(request.clone())
        .map_ok(|key| key.key)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(keys.len(), 5);

    // One page is read, so one call is made.
    let first: Vec<_> = acme.pages(request).take(1).collect().await;
    assert!(first[0].is_ok());
    let request = ListApiKeysRequest {
        tenant_id: "acme".into(),
        page_token: "not one of ours".into(),
        ..Default::default()
    };
    let told: Vec<_> = admin.pages(request).collect().await;
    assert_eq!(told.len(), 1);
    let failure = told[0].as_ref().unwrap_err();
    assert_eq!(failure.reason(), Some(Reason::InvalidPageToken));
}
