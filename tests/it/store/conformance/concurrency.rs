//! Many callers at once. It does not know how a backend orders them.

use riptide_persistence::store::{Limits, Metric};
use tokio::task::JoinSet;

use super::*;

pub async fn one_writer_wins_each_version(store: &Handle) {
    let space = space();
    let mut version = write(store, &space, Write::put(entry("k"), "start")).await;
    for round in 0..10 {
        let mut writers = JoinSet::new();
        for writer in 0..20 {
            let (store, space) = (store.clone(), space.clone());
            let write =
                Write::put(entry("k"), format!("{round} {writer}")).when(Check::Version(version));
            writers.spawn(async move {
                (
                    writer,
                    store.commit(&space, Batch::of([write])).await.unwrap(),
                )
            });
        }
        let mut winner = None;
        for (writer, commit) in writers.join_all().await {
            match commit {
                Commit::Applied(_) => assert_eq!(winner.replace(writer), None, "only one wins"),
                Commit::Refused(Refusal::Conflict {
                    write: 0,
                    found: Some(found),
                }) => assert!(found > version),
                Commit::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
        let record = record(store, &space, entry("k")).await.unwrap();
        assert_eq!(record.value, format!("{round} {}", winner.unwrap()));
        version = record.version;
    }
}

pub async fn one_creator_wins(store: &Handle) {
    let space = space();
    let mut creators = JoinSet::new();
    for creator in 0..50 {
        let (store, space) = (store.clone(), space.clone());
        let batch = Batch::of([
            Write::put(key(Table::Tenant, "t"), format!("{creator}")).when(Check::Absent),
            Write::put(key(Table::Request, format!("r{creator}")), "done"),
        ]);
        creators.spawn(async move { store.commit(&space, batch).await.unwrap() });
    }
    let commits = creators.join_all().await;
    assert_eq!(
        commits
            .iter()
            .filter(|commit| matches!(commit, Commit::Applied(_)))
            .count(),
        1
    );
    let mut requests = 0;
    for creator in 0..50 {
        requests += usize::from(
            value(store, &space, key(Table::Request, format!("r{creator}")))
                .await
                .is_some(),
        );
    }
    assert_eq!(requests, 1, "the others left nothing");
}

pub async fn a_limit_holds_under_many_writers(store: &Handle) {
    let space = space();
    let limit = 300;
    let mut writers = JoinSet::new();
    for writer in 0..50 {
        let (store, space) = (store.clone(), space.clone());
        writers.spawn(async move {
            let mut applied = 0;
            for number in 0..10 {
                let limits = Limits {
                    entries: Some(limit),
                    bytes: None,
                };
                let put = Write::put(entry(format!("{writer}-{number}")), "v");
                match store
                    .commit(
                        &space,
                        Batch {
                            limits,
                            ..Batch::of([put])
                        },
                    )
                    .await
                    .unwrap()
                {
                    Commit::Applied(now) => {
                        assert!(now.usage.entries <= limit);
                        applied += 1;
                    }
                    Commit::Refused(refusal) => {
                        let full = Refusal::Exceeded {
                            metric: Metric::Entries,
                            limit,
                            used: limit,
                        };
                        assert_eq!(refusal, full, "refused only when it is full");
                    }
                }
            }
            applied
        });
    }
    let admitted: u64 = writers.join_all().await.into_iter().sum();
    assert_eq!(admitted, limit, "never above, and none refused in vain");
    assert_eq!(counted(store, &space).await.0, limit);
    assert_agrees(store, &space).await;
}

pub async fn every_acknowledged_commit_is_read(store: &Handle) {
    let space = space();
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let (store, space) = (store.clone(), space.clone());
        writers.spawn(async move {
            for round in 0..40 {
                let key = entry(format!("k{writer}"));
                let version =
                    write(&store, &space, Write::put(key.clone(), format!("{round}"))).await;
                let record = record(&store, &space, key).await.unwrap();
                assert_eq!(
                    (record.version, record.value),
                    (version, format!("{round}").into())
                );
            }
        });
    }
    writers.join_all().await;
}
