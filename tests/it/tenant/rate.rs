//! What a warm admission costs: no call of the store, and no allocation. It does
//! not know how long it takes; `benches/pieces.rs` does.

use futures::FutureExt;
use riptide_persistence::tenant::{Access, Change, NewTenant, Profile, Quotas};
use secrecy::ExposeSecret;

use super::{Stage, named};

#[tokio::test]
async fn a_warm_admission_allocates_nothing() {
    let stage = Stage::new();
    let replica = stage.replica().await;
    let new = NewTenant {
        profile: Profile {
            quotas: Some(Quotas {
                operations_per_minute: Some(60_000_000),
                ..Quotas::default()
            }),
            ..Profile::default()
        },
        ..named("acme")
    };
    let tenants = &replica.tenants;
    let created = tenants.create(new, Change::default()).await.unwrap();
    let secret = created.issued.unwrap().secret.unwrap();
    let enter = async || {
        let key = Some(secret.expose_secret());
        let caller = tenants.authenticate(key).await.unwrap();
        let tenancy = tenants.admit(&caller, "", Access::Read).await.unwrap();
        tenants.charge(&tenancy).await.unwrap();
    };
    // Some calls ask for more permits, in the background; the rest use those.
    let before = stage.counters.calls();
    let mut counts = Vec::new();
    for call in 0..1_000 {
        if call % 10 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            enter().await;
        }
        let mut entered = None;
        let counted = allocation_counter::measure(|| entered = enter().now_or_never());
        if entered.is_some() {
            counts.push(counted.count_total);
        }
    }
    assert!(counts.len() > 900, "{} had to wait", counts.len());
    let without = counts.iter().filter(|count| **count == 0).count();
    assert!(without * 10 >= counts.len() * 9, "{counts:?}");
    let leases = stage.counters.calls().since(before).lease;
    assert!((1..200).contains(&leases), "{leases} leases");
}
