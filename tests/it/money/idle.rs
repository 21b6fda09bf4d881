//! What metering costs a replica: as much as there are tenants that called since
//! the last flush, however many it knows. It does not know when it flushes.

use riptide_persistence::{
    store::Calls,
    tenant::{Access, Counts, Tenancy},
};

use crate::tenant::{Replica, Stage};

/// The tenants a replica knows: each has been let in.
async fn know(replica: &Replica, keys: &[String]) -> Vec<Tenancy> {
    let mut tenancies = Vec::new();
    for key in keys {
        let caller = replica.caller(key).await;
        let tenancy = replica.tenants.admit(&caller, "", Access::Read).await;
        tenancies.push(tenancy.unwrap());
    }
    tenancies
}

/// Each of these tenants calls, and all is flushed; what that asked of the store.
async fn flush(stage: &Stage, replica: &Replica, active: &[Tenancy]) -> Calls {
    for tenancy in active {
        tenancy.account.meter.count(Counts {
            operations: 1,
            hits: 1,
            bytes_out: 100,
            ..Counts::default()
        });
    }
    let before = stage.counters.calls();
    replica.tenants.flush_meters().await.unwrap();
    stage.counters.calls().since(before)
}

#[tokio::test]
async fn a_flush_costs_what_called_since_the_last_and_nothing_for_the_idle() {
    const ACTIVE: usize = 20;
    let stage = Stage::new();
    let (crowded, quiet) = (stage.deaf_replica(), stage.deaf_replica());
    let mut keys = Vec::new();
    for number in 0..400 {
        let (_, key) = crowded.create_with_key(&format!("tenant-{number}")).await;
        keys.push(key);
    }
    let all = know(&crowded, &keys).await;
    let few = know(&quiet, &keys[..ACTIVE]).await;

    let whole = flush(&stage, &crowded, &all).await;
    assert!(whole.tally > 0);
    let nothing = Calls::default();
    assert_eq!(flush(&stage, &crowded, &[]).await, nothing, "all are idle");
    let beside_idle = flush(&stage, &crowded, &all[..ACTIVE]).await;
    let alone = flush(&stage, &quiet, &few).await;
    assert_eq!(beside_idle, alone);
    assert!(alone.tally < whole.tally, "{alone:?} and {whole:?}");
}
