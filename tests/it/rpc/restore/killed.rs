//! The service killed at random moments of a restore: a tenant is wholly as it was, or
//! wholly as it is in the checkpoint, and whoever comes after ends the work. It does not
//! know which moment that was.

use std::time::Duration;

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

    for round in 0..kills() {
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
        let [a, b] = random::bytes::<2>();
        let request = RestoreCheckpointRequest {
            request_id: format!("00000000-0000-4000-8000-{round:012}"),
            ..asked(&id, RestoreConflict::Replace)
        };
        let admin = client(&serving.address, ADMIN_KEY);
        let begun = tokio::spawn({
            let request = request.clone();
            async move { restore(&admin, request).await }
        });
        let wait = u64::from(u16::from_be_bytes([a, b])) % 700;
        tokio::time::sleep(Duration::from_millis(wait)).await;
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
                "round {round}, killed after {wait} ms: a tenant is half restored"
            );
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
    let mut admin = client(&serving.address, ADMIN_KEY).tenant;
    let listed = admin.list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().tenants.len(), TENANTS);
    audit(&redis).await;
}
