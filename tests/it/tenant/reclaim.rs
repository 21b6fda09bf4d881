//! Jobs that give bytes back. It does not know who leaves them.

use std::sync::Arc;

use riptide_persistence::{
    store::{Batch, Commit, Handle, Incarnation, Space, Step, Table},
    tenant::reclaim::{self, Work},
};
use tokio::task::JoinHandle;

use super::{Stage, cut::Cut, eventually, sweeper};

fn background(store: &Handle) -> JoinHandle<()> {
    tokio::spawn(reclaim::run(store.clone(), sweeper()))
}

async fn flush(stage: &Stage, incarnation: Incarnation) -> u64 {
    let batch = Batch {
        step: Some(Step::Generation),
        ..Batch::default()
    };
    match stage
        .store
        .commit(&Space::tenant(incarnation), batch)
        .await
        .unwrap()
    {
        Commit::Applied(applied) => applied.view.generation,
        refused => panic!("{refused:?}"),
    }
}

#[tokio::test]
async fn orphans_wait_for_their_step_and_then_go() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    let space = Space::tenant(incarnation);
    stage.fill(incarnation, "default", 700).await;
    let work = Work::Orphans { below: 1 };
    reclaim::enqueue(&stage.store, incarnation, work.clone())
        .await
        .unwrap();
    assert_eq!(
        reclaim::pending(&stage.store, incarnation).await.unwrap(),
        [work]
    );
    assert!(
        reclaim::pending(&stage.store, Incarnation::random())
            .await
            .unwrap()
            .is_empty()
    );

    let running = background(&stage.store);
    let before = stage.counters.calls();
    eventually(async || stage.counters.calls().since(before).list >= 2).await;
    assert_eq!(
        stage.store.usage(&space).await.unwrap().entries,
        700,
        "not before the flush"
    );
    assert_eq!(flush(&stage, incarnation).await, 1);
    stage.fill(incarnation, "default", 5).await;
    eventually(async || {
        reclaim::pending(&stage.store, incarnation)
            .await
            .unwrap()
            .is_empty()
    })
    .await;
    running.abort();
    let audit = stage.store.audit(&space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!((audit.found.entries, audit.found.orphaned_bytes), (5, 0));
    assert_eq!(audit.counted.orphaned_bytes, 0);
}

#[tokio::test]
async fn a_job_whose_step_never_came_is_dropped_and_harms_nothing() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    stage.fill(incarnation, "default", 10).await;
    reclaim::enqueue(&stage.store, incarnation, Work::Orphans { below: 1 })
        .await
        .unwrap();
    stage.pass_time(61_000);
    let running = background(&stage.store);
    eventually(async || stage.records(Table::Job).await.is_empty()).await;
    running.abort();
    assert_eq!(
        stage
            .store
            .usage(&Space::tenant(incarnation))
            .await
            .unwrap()
            .entries,
        10
    );
}

#[tokio::test]
async fn a_job_can_be_withdrawn() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    let id = reclaim::enqueue(&stage.store, incarnation, Work::Orphans { below: 9 })
        .await
        .unwrap();
    reclaim::withdraw(&stage.store, &id).await.unwrap();
    assert!(stage.records(Table::Job).await.is_empty());
}

#[tokio::test]
async fn what_lies_below_a_version_goes_in_its_namespace_alone() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    let space = Space::tenant(incarnation);
    stage.fill(incarnation, "web", 30).await;
    stage.fill(incarnation, "web-2", 30).await;
    let work = Work::Below {
        prefix: "web:".into(),
        version: u64::MAX >> 12,
    };
    reclaim::enqueue(&stage.store, incarnation, work)
        .await
        .unwrap();
    let running = background(&stage.store);
    eventually(async || stage.records(Table::Job).await.is_empty()).await;
    running.abort();
    let audit = stage.store.audit(&space).await.unwrap();
    assert!(audit.agrees(), "{audit:?}");
    assert_eq!(audit.found.entries, 30);
}

#[tokio::test]
async fn another_replica_takes_over_the_job_of_one_that_died() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    stage.fill(incarnation, "default", 900).await;
    reclaim::enqueue(&stage.store, incarnation, Work::Orphans { below: 1 })
        .await
        .unwrap();
    flush(&stage, incarnation).await;
    // It claims the job, and is gone.
    let dying: Handle = Arc::new(Cut::after(stage.store.clone(), 1, false));
    let first = background(&dying);
    let before = stage.counters.calls();
    eventually(async || stage.counters.calls().since(before).commit == 1).await;
    first.abort();

    let second = background(&stage.store);
    let before = stage.counters.calls();
    eventually(async || stage.counters.calls().since(before).list >= 2).await;
    assert_eq!(
        stage.records(Table::Job).await.len(),
        1,
        "claimed by the first for ten seconds"
    );
    stage.pass_time(10_001);
    eventually(async || stage.records(Table::Job).await.is_empty()).await;
    second.abort();
    let audit = stage
        .store
        .audit(&Space::tenant(incarnation))
        .await
        .unwrap();
    assert_eq!((audit.found.entries, audit.found.orphaned_bytes), (0, 0));
}

#[tokio::test]
async fn a_tenant_flushed_over_and_over_is_scanned_once() {
    let stage = Stage::new();
    let incarnation = Incarnation::random();
    stage.fill(incarnation, "default", 10).await;
    for below in 1..=50 {
        reclaim::enqueue(&stage.store, incarnation, Work::Orphans { below })
            .await
            .unwrap();
        assert_eq!(flush(&stage, incarnation).await, below);
    }
    for version in [7, 5, 6] {
        let work = Work::Below {
            prefix: "web:".into(),
            version,
        };
        reclaim::enqueue(&stage.store, incarnation, work)
            .await
            .unwrap();
    }
    let before = stage.counters.calls();
    let running = background(&stage.store);
    eventually(async || stage.records(Table::Job).await.is_empty()).await;
    running.abort();
    assert_eq!(stage.counters.calls().since(before).reclaim, 2);
    let usage = stage
        .store
        .usage(&Space::tenant(incarnation))
        .await
        .unwrap();
    assert_eq!((usage.entries, usage.orphaned_bytes), (0, 0));
}
