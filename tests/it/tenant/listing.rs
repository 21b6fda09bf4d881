//! Tenants page by page. It does not know what a token is made of.

use riptide_persistence::{
    error::Error,
    tenant::{Change, Filter, NewTenant, Profile, State, SuspensionMode, page::Listing},
};

use super::{Replica, Stage};

async fn ids(replica: &Replica, filter: &Filter, size: usize) -> Vec<String> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let page = replica.tenants.list(filter, size, &token).await.unwrap();
        assert!(page.tenants.len() <= size);
        ids.extend(page.tenants.into_iter().map(|tenant| tenant.tenant_id));
        token = page.next_page_token;
        if token.is_empty() {
            return ids;
        }
    }
}

async fn crowd() -> (Stage, Replica) {
    let stage = Stage::new();
    let replica = stage.replica().await;
    for n in 0..12 {
        let profile = Profile {
            plan: if n % 2 == 0 { "free" } else { "basic" }.into(),
            labels: [
                ("third".to_owned(), (n % 3).to_string()),
                ("all".to_owned(), "yes".to_owned()),
            ]
            .into(),
            ..Profile::default()
        };
        let new = NewTenant {
            tenant_id: format!("tenant-{n:02}"),
            profile,
        };
        replica
            .tenants
            .create(new, Change::default())
            .await
            .unwrap();
    }
    replica.create("zebra").await;
    replica
        .tenants
        .suspend("tenant-03", SuspensionMode::Blocked, "", Change::default())
        .await
        .unwrap();
    replica
        .tenants
        .delete("tenant-04", false, Change::default())
        .await
        .unwrap();
    (stage, replica)
}

#[tokio::test]
async fn a_listing_is_in_order_whatever_the_page_size() {
    let (_stage, replica) = crowd().await;
    let all = Filter {
        show_deleted: true,
        ..Filter::default()
    };
    let whole = ids(&replica, &all, 1000).await;
    assert_eq!(whole.len(), 13);
    assert!(whole.is_sorted());
    for size in [1, 2, 5, 13] {
        assert_eq!(ids(&replica, &all, size).await, whole, "{size}");
    }
}

#[tokio::test]
async fn one_page_is_one_call() {
    let (stage, replica) = crowd().await;
    replica
        .tenants
        .list(&Filter::default(), 5, "")
        .await
        .unwrap();
    let before = stage.counters.calls();
    let wide = Filter {
        show_deleted: true,
        ..Filter::default()
    };
    assert_eq!(
        replica
            .tenants
            .list(&wide, 5, "")
            .await
            .unwrap()
            .tenants
            .len(),
        5
    );
    let calls = stage.counters.calls().since(before);
    assert_eq!((calls.list, calls.read, calls.commit), (1, 0, 0));
}

#[tokio::test]
async fn every_condition_of_a_filter_counts() {
    let (_stage, replica) = crowd().await;
    let named = |names: &[u32]| {
        names
            .iter()
            .map(|n| format!("tenant-{n:02}"))
            .collect::<Vec<_>>()
    };
    let label = |value: &str| [("third".to_owned(), value.to_owned())].into();
    let cases: [(Filter, Vec<String>); 8] = [
        (
            Filter {
                name_prefix: "zeb".into(),
                ..Filter::default()
            },
            vec!["zebra".into()],
        ),
        (
            Filter {
                name_prefix: "none".into(),
                ..Filter::default()
            },
            vec![],
        ),
        (
            Filter {
                labels: label("0"),
                ..Filter::default()
            },
            named(&[0, 3, 6, 9]),
        ),
        (
            Filter {
                labels: label("0"),
                plan: "basic".into(),
                ..Filter::default()
            },
            named(&[3, 9]),
        ),
        (
            Filter {
                labels: label("1"),
                show_deleted: true,
                ..Filter::default()
            },
            named(&[1, 4, 7, 10]),
        ),
        (
            Filter {
                states: [State::Suspended].into(),
                ..Filter::default()
            },
            named(&[3]),
        ),
        (
            Filter {
                states: [State::Deleted, State::Suspended].into(),
                ..Filter::default()
            },
            named(&[3, 4]),
        ),
        (
            Filter {
                plan: "free".into(),
                name_prefix: "tenant".into(),
                ..Filter::default()
            },
            named(&[0, 2, 6, 8, 10]),
        ),
    ];
    for (filter, expected) in cases {
        for size in [1, 3, 100] {
            assert_eq!(
                ids(&replica, &filter, size).await,
                expected,
                "{filter:?} by {size}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_own_listing_alone() {
    let (_stage, replica) = crowd().await;
    let filter = Filter {
        plan: "free".into(),
        ..Filter::default()
    };
    let token = replica
        .tenants
        .list(&filter, 2, "")
        .await
        .unwrap()
        .next_page_token;
    replica.tenants.list(&filter, 5, &token).await.unwrap();
    let refused = async |filter: &Filter, token: &str| {
        let answer = replica.tenants.list(filter, 2, token).await;
        assert_eq!(answer.unwrap_err(), Error::InvalidPageToken, "{token:?}");
    };
    for other in [
        Filter::default(),
        Filter {
            plan: "basic".into(),
            ..Filter::default()
        },
        Filter {
            show_deleted: true,
            ..filter.clone()
        },
        Filter {
            name_prefix: "t".into(),
            ..filter.clone()
        },
        Filter {
            labels: [("all".to_owned(), "yes".to_owned())].into(),
            ..filter.clone()
        },
        Filter {
            states: [State::Active].into(),
            ..filter.clone()
        },
    ] {
        refused(&other, &token).await;
    }
    for at in 0..token.len() {
        let flipped = if &token[at..=at] == "A" { "B" } else { "A" };
        let mut tampered = token.clone();
        tampered.replace_range(at..=at, flipped);
        refused(&filter, &tampered).await;
    }
    for nonsense in [
        "x",
        "=",
        "AQ",
        "AAAA",
        &token[1..],
        &format!("{token}AAAA"),
        &"A".repeat(9000),
    ] {
        refused(&filter, nonsense).await;
    }
    let elsewhere = Stage::new().deaf_replica();
    let foreign = elsewhere
        .tenants
        .list(&filter, 2, &token)
        .await
        .unwrap_err();
    assert_eq!(foreign, Error::InvalidPageToken, "another store's token");
    let listing = Listing {
        name: "ListKeys",
        filter: &[],
    };
    assert_eq!(
        replica
            .tenants
            .open_page(&listing, &token)
            .await
            .unwrap_err(),
        Error::InvalidPageToken
    );
    assert_eq!(replica.tenants.open_page(&listing, "").await.unwrap(), None);
}

#[tokio::test]
async fn who_exists_throughout_is_listed_once_under_concurrent_creates() {
    let (_stage, replica) = crowd().await;
    let filter = Filter::default();
    let before = ids(&replica, &filter, 1000).await;
    let (mut seen, mut token, mut n) = (Vec::new(), String::new(), 0);
    loop {
        let page = replica.tenants.list(&filter, 2, &token).await.unwrap();
        seen.extend(page.tenants.into_iter().map(|tenant| tenant.tenant_id));
        // Before, between and behind what was listed so far.
        for name in [
            format!("a-new-{n:02}"),
            format!("tenant-{n:02}-new"),
            format!("zz-new-{n:02}"),
        ] {
            replica.create(&name).await;
        }
        n += 1;
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
        assert!(n < 100, "the listing ends");
    }
    assert!(seen.is_sorted());
    let old: Vec<_> = seen
        .iter()
        .filter(|id| !id.contains("new"))
        .cloned()
        .collect();
    assert_eq!(old, before);
}
