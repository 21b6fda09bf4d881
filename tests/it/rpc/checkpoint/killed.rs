//! The service killed while it takes a checkpoint: what is there afterwards is whole, or
//! it is none.

use std::time::{Duration, Instant};

use riptide_persistence::proto::v1::{CheckpointState, Component as Named};
use rstest::rstest;

use super::{Vault, entries, list_by, of, set, take, tenant_by, until, verify_by};
use crate::{
    cli::Folder,
    process::client,
    redis::Redis,
    server::{ADMIN_KEY, Kind},
};

const ENTRIES: usize = 60;

/// Kills in a test of every day; `make checkpoint-kills` has a hundred.
fn kills() -> usize {
    match std::env::var_os("RIPTIDE_SOAK") {
        Some(_) => 50,
        None => 5,
    }
}

/// A folder whose server keeps its checkpoints there, on a store that survives a kill.
fn folder(vault: &Vault, redis: Option<&Redis>) -> Folder {
    let folder = Folder::new();
    let store = match redis {
        Some(redis) => format!("redis: {{url: '{}'}}, ", redis.url()),
        None => String::new(),
    };
    let settings = format!(
        "persistence: {{{store}auth: {{admin_key: '{ADMIN_KEY}'}}, checkpoint: {{url: '{}'}}}}",
        vault.url()
    );
    folder.write("persistence.yml", settings);
    folder
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_verifies_is_whole(#[case] kind: Kind) {
    // Nothing of it there yet, cut off, whole.
    let mut seen = [0, 0, 0];
    let mut length = None;
    for round in 0..=kills() {
        let vault = Vault::new();
        let redis = (kind == Kind::Redis).then(Redis::start);
        let folder = folder(&vault, redis.as_ref());
        let serving = folder.serve(&[]);
        let admin = client(&serving.address, ADMIN_KEY);
        let acme = client(&serving.address, &tenant_by(&admin, "acme").await);
        let mut noise = vec![0; 100 << 10];
        for n in 0..ENTRIES {
            riptide_persistence::random::fill(&mut noise);
            set(&acme, &format!("key-{n}"), noise.clone()).await;
        }
        let began = Instant::now();
        let taking =
            tokio::spawn(async move { take(&admin, of(&[Named::Tenants, Named::Cache])).await });
        let Some(length) = length else {
            // The first one is let alone, to learn how long it takes.
            taking.await.unwrap().unwrap();
            length = Some(began.elapsed());
            continue;
        };
        tokio::time::sleep(moment(length)).await;
        drop(serving);
        let answered = taking.await.unwrap().ok();

        let serving = folder.serve(&[]);
        let admin = client(&serving.address, ADMIN_KEY);
        let listed = list_by(&admin).await;
        assert!(listed.len() <= 1, "round {round}: {listed:?}");
        if let Some(answered) = answered {
            assert_eq!(listed, [answered], "round {round}");
        }
        seen[0] += usize::from(listed.is_empty());
        for found in listed {
            let told = verify_by(&admin, &found.checkpoint_id).await.unwrap();
            let whole = found.state() == CheckpointState::Complete;
            assert_eq!(told.valid, whole, "round {round}: {told:?}");
            seen[1 + usize::from(whole)] += 1;
            if whole {
                let contents = vault.contents(&found.checkpoint_id).await;
                assert_eq!(entries(&contents["acme"]).len(), ENTRIES);
            } else {
                assert_eq!(told.damaged_part, "manifest.json");
            }
        }
    }
    let [none, cut, whole] = seen;
    eprintln!("{kind:?}: {none} not begun, {cut} cut off, {whole} whole");
    if kills() >= 50 {
        assert!(cut > 0, "none was killed in the middle");
    }
}

/// Any moment of something that takes so long, and a little beyond.
fn moment(length: Duration) -> Duration {
    let at = u16::from_be_bytes(riptide_persistence::random::bytes());
    length.mul_f64(1.1 * f64::from(at) / f64::from(u16::MAX))
}

/// The turn of a replica that was killed is over soon, and so are its points in time.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_one_can_be_taken(#[case] kind: Kind) {
    let vault = Vault::new();
    let redis = (kind == Kind::Redis).then(Redis::start);
    let folder = folder(&vault, redis.as_ref());
    let serving = folder.serve(&[]);
    let admin = client(&serving.address, ADMIN_KEY);
    let acme = client(&serving.address, &tenant_by(&admin, "acme").await);
    let mut noise = vec![0; 100 << 10];
    for n in 0..ENTRIES {
        riptide_persistence::random::fill(&mut noise);
        set(&acme, &format!("key-{n}"), noise.clone()).await;
    }
    let mut state = admin.state.clone();
    let mut events = state
        .create_checkpoint(of(&[Named::Tenants, Named::Cache]))
        .await
        .unwrap()
        .into_inner();
    events.message().await.unwrap();
    drop(serving);
    let serving = folder.serve(&[]);
    let admin = client(&serving.address, ADMIN_KEY);
    let mut taken = None;
    until("one is taken", async || {
        taken = take(&admin, of(&[Named::Tenants, Named::Cache])).await.ok();
        taken.is_some()
    })
    .await;
    let taken = taken.unwrap();
    assert_eq!((taken.tenants, taken.missed.len()), (1, 0));
    assert!(verify_by(&admin, &taken.checkpoint_id).await.unwrap().valid);
}
