//! Three replicas on one Redis: of all their callers one refills an entry.

use futures::future::join_all;

use super::{again, ask, asked, get, lapsed, refill, wait};
use crate::{
    redis::Redis,
    server::{Backend, Server},
};

#[tokio::test]
async fn of_callers_at_three_replicas_one_refills() {
    let redis = Redis::start();
    let replicas = join_all((0..3).map(|_| Server::start(Backend::Redis(&redis)))).await;
    let acme = replicas[0].tenant("acme").await;
    let clients: Vec<_> = replicas.iter().map(|r| r.with_key(&acme.secret)).collect();
    for round in 0..5 {
        let key = format!("key {round}");
        let calls = (0..60).map(|n| ask(&clients[n % 3], asked(&key)));
        let told: Vec<_> = join_all(calls)
            .await
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let (leased, waiting): (Vec<_>, Vec<_>) =
            told.iter().partition(|told| !told.lease_token.is_empty());
        assert_eq!((leased.len(), waiting.len()), (1, 59), "{round}");
        for told in waiting {
            again(told);
        }

        // Set at another replica than it was leased at, and seen at every one.
        let token = &leased[0].lease_token;
        let set = refill(&clients[round % 3], &key, "value", token).await;
        set.unwrap();
        for clients in &clients {
            let request = asked(&key);
            let told = wait(clients, &request).await;
            assert_eq!(&told.entry.unwrap().value[..], b"value");
            assert!(get(clients, &key).await.unwrap().is_some());
            lapsed(refill(clients, &key, "again", token).await);
        }
    }
}
