//! What is listed, in which order, page by page; and what is refused. It does not know
//! who was told of.

use prost_types::Timestamp;
use riptide_persistence::proto::v1::{AuditEvent, ListAuditEventsRequest};
use rstest::rstest;
use tonic::Code;

use super::{events, page};
use crate::server::{Kind, Server, fields, reason};

/// A server with events about three tenants.
async fn told(kind: Kind) -> Server {
    let server = kind.start().await;
    for tenant_id in ["one", "two", "three"] {
        server.tenant(tenant_id).await;
        for _ in 0..4 {
            server.key(tenant_id, &["cache.read"]).await;
        }
    }
    server
}

fn ids(events: &[AuditEvent]) -> Vec<&str> {
    events.iter().map(|event| &*event.request_id).collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn pages_are_in_the_order_of_time_and_bound_to_their_filter(#[case] kind: Kind) {
    let server = told(kind).await;
    let admin = server.admin();
    let all = events(&server, "").await;
    assert_eq!(all.len(), 15);
    let times = |event: &AuditEvent| event.time.map(|time| (time.seconds, time.nanos));
    assert!(all.is_sorted_by_key(times));
    assert!(all.is_sorted_by_key(|event| event.sequence));
    assert_eq!(all[0].previous_hash, "");
    assert!(
        all.windows(2)
            .all(|two| two[0].hash == two[1].previous_hash)
    );

    for tenant_id in ["", "two"] {
        let expected: Vec<_> = all
            .iter()
            .filter(|event| tenant_id.is_empty() || event.tenant_id == tenant_id)
            .cloned()
            .collect();
        for page_size in [1, 2, 7, 15, 16] {
            let mut request = ListAuditEventsRequest {
                tenant_id: tenant_id.into(),
                page_size,
                ..Default::default()
            };
            let mut found = Vec::new();
            loop {
                let page = page(&admin, request.clone()).await.unwrap();
                assert!(page.events.len() <= page_size as usize);
                let first = request.page_token.is_empty() && tenant_id.is_empty();
                assert_eq!(page.chains.len(), usize::from(first));
                if let [chain] = &page.chains[..] {
                    let last = all.last().unwrap();
                    assert_eq!(
                        (&chain.replica, chain.sequence, &chain.hash),
                        (&last.replica, last.sequence, &last.hash)
                    );
                }
                found.extend(page.events);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
                // One more while it is listed; it is about another.
                if found.len() == 1 && page_size == 1 && tenant_id == "two" {
                    server.tenant("late").await;
                }
            }
            assert_eq!(ids(&found), ids(&expected), "{tenant_id} by {page_size}");
        }
    }
    let first = ListAuditEventsRequest {
        page_size: 1,
        ..Default::default()
    };
    let token = page(&admin, first.clone()).await.unwrap().next_page_token;
    for other in [
        ListAuditEventsRequest {
            tenant_id: "two".into(),
            ..first.clone()
        },
        ListAuditEventsRequest {
            start_time: Some(Timestamp::default()),
            ..first.clone()
        },
    ] {
        let page_token = token.clone();
        let request = ListAuditEventsRequest {
            page_token,
            ..other
        };
        let refused = page(&admin, request).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_span_begins_with_its_start_and_ends_before_its_end(#[case] kind: Kind) {
    let server = told(kind).await;
    let admin = server.admin();
    for tenant_id in ["", "two"] {
        let all = events(&server, tenant_id).await;
        let ns = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + time.nanos as i128;
        let time = |event: &AuditEvent| event.time.unwrap();
        let (from, to) = (time(&all[1]), time(&all[all.len() - 2]));
        let later = |time: Timestamp, nanos| Timestamp {
            nanos: time.nanos + nanos,
            ..time
        };
        for (start, end) in [
            (Some(from), None),
            (None, Some(to)),
            (Some(from), Some(later(to, 1))),
            (Some(later(from, 1)), Some(later(to, 999_999))),
        ] {
            let request = ListAuditEventsRequest {
                tenant_id: tenant_id.into(),
                start_time: start,
                end_time: end,
                ..Default::default()
            };
            let found = page(&admin, request).await.unwrap();
            assert_eq!(found.next_page_token, "");
            let expected: Vec<_> = all
                .iter()
                .filter(|event| start.is_none_or(|start| ns(time(event)) >= ns(start)))
                .filter(|event| end.is_none_or(|end| ns(time(event)) < ns(end)))
                .cloned()
                .collect();
            assert_eq!(ids(&found.events), ids(&expected), "{start:?} to {end:?}");
        }
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn all_that_is_wrong_is_named(#[case] kind: Kind) {
    let server = kind.start().await;
    let request = ListAuditEventsRequest {
        tenant_id: "No Tenant".into(),
        start_time: Some(Timestamp {
            seconds: -1,
            nanos: 0,
        }),
        end_time: Some(Timestamp {
            seconds: 0,
            nanos: -1,
        }),
        page_size: -1,
        page_token: "forged".into(),
    };
    let refused = page(&server.admin(), request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut wrong = fields(&refused);
    wrong.sort();
    assert_eq!(wrong, ["end_time", "page_size", "start_time", "tenant_id"]);
    let time = Some(Timestamp {
        seconds: 7,
        nanos: 0,
    });
    let empty = ListAuditEventsRequest {
        start_time: time,
        end_time: time,
        ..Default::default()
    };
    let refused = page(&server.admin(), empty).await.unwrap_err();
    assert_eq!(fields(&refused), ["end_time"]);
    let forged = ListAuditEventsRequest {
        page_token: "forged".into(),
        ..Default::default()
    };
    let refused = page(&server.admin(), forged).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_PAGE_TOKEN");
    // A tenant that never was has no events.
    assert!(events(&server, "nobody").await.is_empty());
}
