//! Quotas over two replicas on one Redis: levels are exact between them, and what
//! is set through one is in force at the other within a second.

use std::time::{Duration, Instant};

use futures::future::join_all;
use riptide_persistence::proto::v1::{CustomQuota, Quotas};

use super::{CONSUME, PEEK, check, set_quotas, with_seats};
use crate::{
    redis::Redis,
    server::{Backend, Clients, Server},
};

async fn limit(clients: &Clients) -> i64 {
    check(clients, "seats", 1, PEEK).await.unwrap().limit
}

async fn until(clients: &Clients, wanted: i64) -> Duration {
    let began = Instant::now();
    while limit(clients).await != wanted {
        assert!(began.elapsed() < Duration::from_secs(5), "not {wanted}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn a_level_is_exact_over_two_replicas_and_changes_within_a_second() {
    let redis = Redis::start();
    let one = Server::start_with(Backend::Redis(&redis), with_seats(40)).await;
    let two = Server::start_with(Backend::Redis(&redis), with_seats(40)).await;
    let acme = one.tenant("acme").await;
    let clients = [acme.clients.clone(), two.with_key(&acme.secret)];
    let consume = (0..64).map(|n| check(&clients[n % 2], "seats", 1, CONSUME));
    let answers = join_all(consume).await;
    let admitted = answers
        .iter()
        .filter(|answer| answer.as_ref().unwrap().allowed);
    assert_eq!(admitted.count(), 40);
    for client in &clients {
        let looked = check(client, "seats", 1, PEEK).await.unwrap();
        assert_eq!((looked.allowed, looked.used, looked.limit), (false, 40, 40));
    }

    // The tenant's own takes the place of its plan's, and gives it back.
    let own = Quotas {
        custom: [(
            "seats".to_owned(),
            CustomQuota {
                limit: 41,
                window: None,
            },
        )]
        .into(),
        ..Default::default()
    };
    for (quotas, wanted) in [(own, 41), (Quotas::default(), 40)] {
        set_quotas(&one, quotas, &["quotas.custom.seats"]).await;
        for client in &clients {
            let took = until(client, wanted).await;
            assert!(took < Duration::from_secs(1), "{wanted} took {took:?}");
        }
    }
}
