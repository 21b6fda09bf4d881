//! Data keys as replicas know them: one that was admitted before a rotation reads
//! what was sealed after it.

use std::sync::Arc;

use riptide_persistence::{
    cache::{Cache, Freshness},
    config::MasterKey,
    error::Error,
    store::{Batch, Key, Space, Write},
    tenant::{
        Access, Caller, Change, Masters, NewTenant, Profile, Tenancy, Tenants,
        data_key::MAX_DATA_KEYS, record,
    },
};

use super::Stage;
use crate::cache::set;

fn masters(id: &str) -> Arc<Masters> {
    let key = MasterKey {
        id: id.to_owned(),
        key: [7; 32].into(),
    };
    Arc::new(Masters::new(&[key]))
}

async fn encrypted(tenants: &Tenants, tenant_id: &str) {
    let new = NewTenant {
        tenant_id: tenant_id.into(),
        profile: Profile {
            encryption_enabled: true,
            ..Profile::default()
        },
    };
    tenants.create(new, Change::default()).await.unwrap();
}

async fn admit(tenants: &Tenants) -> Tenancy {
    tenants
        .admit(&Caller::Admin, "vault", Access::Write)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_call_under_way_learns_of_a_new_data_key() {
    let stage = Stage::new();
    let tenants = stage
        .deaf_replica()
        .tenants
        .clone()
        .encrypted(masters("one"), false);
    let settings = Arc::new(crate::cache::settings());
    let cache = Cache::new(stage.store.clone(), Arc::default(), settings);
    encrypted(&tenants, "vault").await;
    let held = admit(&tenants).await;
    cache.set(&held, "", &set("old", "1")).await.unwrap();
    tenants
        .rotate_data_key("vault", Change::default())
        .await
        .unwrap();
    let later = admit(&tenants).await;
    for key in ["new", "newer"] {
        cache.set(&later, "", &set(key, "2")).await.unwrap();
    }

    // The tenant's record is read once, and known from then on.
    let freshness = Freshness::default();
    let get = async |key| {
        cache
            .get(&held, "", key, &freshness)
            .await
            .unwrap()
            .unwrap()
            .value
    };
    for (key, value, reads) in [("old", "1", 1), ("new", "2", 2), ("newer", "2", 1)] {
        let before = stage.counters.calls();
        assert_eq!(get(key).await, value);
        assert_eq!(stage.counters.calls().since(before).read, reads, "{key}");
    }
    let held = admit(&tenants).await;
    tenants
        .rotate_data_key("vault", Change::default())
        .await
        .unwrap();
    cache
        .set(&admit(&tenants).await, "", &set("third", "3"))
        .await
        .unwrap();
    let keys = ["old", "third"].map(str::to_owned);
    let got = cache.batch_get(&held, "", &keys, &freshness).await.unwrap();
    let values = got.into_iter().map(|got| got.unwrap().unwrap().value);
    assert_eq!(values.collect::<Vec<_>>(), ["1", "3"]);
    // It seals with the newest that it has heard of.
    cache.set(&held, "", &set("old", "4")).await.unwrap();

    // A number that there is not opens nothing, and is looked for each time.
    let key = Key::entry("default", "new");
    let read = stage
        .store
        .read(&held.space, 0, std::slice::from_ref(&key))
        .await
        .unwrap();
    let mut frame = read.records[0].as_ref().unwrap().value.to_vec();
    frame[15] = 99;
    let head = crc32fast::hash(&frame[..19]) as u16;
    frame[19..21].copy_from_slice(&head.to_le_bytes());
    let planted = Batch::of([Write::put(key, frame)]);
    stage.store.commit(&held.space, planted).await.unwrap();
    let refused = cache.get(&held, "", "new", &freshness).await;
    assert!(
        matches!(&refused, Err(Error::EntryCorrupt(why)) if why.contains("data key 99")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_tenant_has_no_more_data_keys_than_can_be_kept() {
    let stage = Stage::new();
    let tenants = stage.deaf_replica().tenants.clone();
    let tenants = tenants.encrypted(masters("one"), false);
    encrypted(&tenants, "vault").await;
    let mut tenant = tenants.get(&Caller::Admin, "vault").await.unwrap();
    let keys = &mut tenant.encryption.as_mut().unwrap().data_keys;
    let first = keys.remove(0);
    let number = |id: usize| {
        let mut key = first.clone();
        key.id = u32::try_from(id).unwrap();
        key
    };
    keys.extend((1..MAX_DATA_KEYS).rev().map(number));
    let write = Write::put(
        record::tenant_key("vault"),
        record::encode(&tenant).unwrap(),
    );
    let commit = stage
        .store
        .commit(&Space::registry(), Batch::of([write]))
        .await;
    commit.unwrap();

    let (_, last) = tenants
        .rotate_data_key("vault", Change::default())
        .await
        .unwrap();
    assert_eq!(last.id as usize, MAX_DATA_KEYS);
    let refused = tenants.rotate_data_key("vault", Change::default()).await;
    assert!(
        matches!(&refused, Err(Error::ConditionNotMet { description, .. }) if description.contains("1000 data keys")),
        "{refused:?}"
    );
}
