//! The service killed at random moments of a restore: a tenant is wholly as it was, or
//! wholly as it is in the checkpoint, and whoever comes after ends the work. It does not
//! know which moment that was.

use std::time::{Duration, Instant};

use riptide_persistence::{proto::v1::ListTenantsRequest, random};

use super::*;
use crate::{cli::Folder, process::client};

const TENANTS: usize = 4;
const ENTRIES: usize = 120;

/// Kills; more by the environment.
fn kills() -> usize {
    let kills = std::env::var("RESTORE_KILLS");
    kills.ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

fn id_of(n: usize) -> String {
    format!("tenant-{n}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_gone_on_with() {
    let redis = Redis::start();
    let folder = Folder::new();
    let settings = format!(
        "persistence: {{redis: {{url: '{}'}}, auth: {{admin_key: '{ADMIN_KEY}'}}, \
         checkpoint: {{url: 'file://{}'}}, tenant: {{default_plan: enterprise}}}}",
        redis.url(),
        folder.path("checkpoints").display()
    );
    folder.write("persistence.yml", settings);
    let mut serving = folder.serve(&[]);
    let mut secrets = Vec::new();
    for n in 0..TENANTS {
        let request = CreateTenantRequest {
            tenant_id: id_of(n),
            ..Default::default()
        };
        let mut admin = client(&serving.address, ADMIN_KEY).tenant;
        let created = admin.create_tenant(request).await.unwrap().into_inner();
        fill(&client(&serving.address, &created.secret), ENTRIES, 1).await;
        secrets.push(created.secret);
    }
    let then = shown(&client(&serving.address, &secrets[0])).await;
    let id = checkpoint(&client(&serving.address, ADMIN_KEY), &ALL).await;

    // Tenants that a kill found as they were, and restored.
    let mut seen = [0, 0];
    let mut length = None;
    for round in 0..=kills() {
        // What is there differs from the checkpoint in every entry.
        for secret in &secrets {
            fill(
                &client(&serving.address, secret),
                ENTRIES,
                100 + round as u8,
            )
            .await;
        }
        let now = shown(&client(&serving.address, &secrets[0])).await;
        let request = RestoreCheckpointRequest {
            request_id: format!("00000000-0000-4000-8000-{round:012}"),
            ..asked(&id, RestoreConflict::Replace)
        };
        let admin = client(&serving.address, ADMIN_KEY);
        let began = Instant::now();
        let begun = tokio::spawn({
            let request = request.clone();
            async move { restore(&admin, request).await }
        });
        let Some(length) = length else {
            // The first one is let alone, to learn how long it takes.
            begun.await.unwrap().unwrap();
            length = Some(began.elapsed());
            continue;
        };
        let at = f64::from(u16::from_be_bytes(random::bytes())) / f64::from(u16::MAX);
        let wait: Duration = Duration::mul_f64(length, 1.1 * at);
        tokio::time::sleep(wait).await;
        drop(serving);
        let _ = begun.await;

        serving = folder.serve(&[]);
        let mut whole = 0;
        for secret in &secrets {
            let held = shown(&client(&serving.address, secret)).await;
            let values = |all: &BTreeMap<String, Shown>| -> Vec<(String, Vec<u8>)> {
                all.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect()
            };
            let held = values(&held);
            assert!(
                held == values(&then) || held == values(&now),
                "round {round}, killed after {wait:?} of {length:?}: a tenant is half restored"
            );
            seen[usize::from(held == values(&then))] += 1;
            whole += 1;
        }
        assert_eq!(whole, TENANTS);
        // Whoever asks again gets what came of it.
        let result = loop {
            let admin = client(&serving.address, ADMIN_KEY);
            match restore(&admin, request.clone()).await {
                Ok((_, Some(result))) => break result,
                Ok((_, None)) => panic!("a restore tells what it did"),
                Err(status) => {
                    let reason = reason(&status);
                    assert!(reason.ends_with("_IN_PROGRESS"), "{status:?}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        };
        assert_eq!(
            (result.replaced, result.failures.len()),
            (TENANTS as i64, 0)
        );
        for secret in &secrets {
            let held = shown(&client(&serving.address, secret)).await;
            assert_same(&held, &then);
        }
    }
    let [before, after] = seen;
    eprintln!("killed: {before} tenants as they were, {after} restored");
    let mut admin = client(&serving.address, ADMIN_KEY).tenant;
    let listed = admin.list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().tenants.len(), TENANTS);
    audit(&redis).await;
}
