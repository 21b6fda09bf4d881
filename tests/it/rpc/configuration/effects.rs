//! Settings that a reload puts in force, each seen from outside: that it was not in
//! force before, and is after.

use std::time::Duration;

use riptide_persistence::proto::v1::{
    BatchGetRequest, CheckQuotaMode, CheckQuotaRequest, CheckQuotaResponse, CreateTenantRequest,
    CreateTenantResponse, DeleteTenantRequest, GetRequest, GetServerInfoRequest,
    GetTenantBillingRequest, GetTenantRequest, RewrapDataKeysRequest, SetRequest, SetResponse,
    WatchInvalidationsRequest,
};
use rstest::rstest;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Rig, until};
use crate::{
    redis::Redis,
    server::{Clients, Kind, Server, fields, reason},
};

fn set(key: &str, bytes: usize) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: vec![b'a'; bytes].into(),
        ..Default::default()
    }
}

async fn write(clients: &Clients, request: SetRequest) -> Result<SetResponse, Status> {
    Ok(clients.cache.clone().set(request).await?.into_inner())
}

async fn create(server: &Server, tenant_id: &str) -> Result<CreateTenantResponse, Status> {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await?;
    Ok(created.into_inner())
}

async fn check(
    clients: &Clients,
    metric: &str,
    mode: CheckQuotaMode,
) -> Result<CheckQuotaResponse, Status> {
    let request = CheckQuotaRequest {
        tenant_id: "acme".into(),
        metric: metric.into(),
        amount: 1,
        mode: mode.into(),
    };
    let checked = clients.tenant.clone().check_quota(request).await?;
    Ok(checked.into_inner())
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn limits_and_compression_of_entries(#[case] kind: Kind) {
    let rig = Rig::start(kind, "persistence:\n").await;
    let acme = rig.server.tenant("acme").await.clients;
    let tagged = |tags: &[&str]| SetRequest {
        tags: tags.iter().map(ToString::to_string).collect(),
        ..set("tagged", 1)
    };
    let long = SetRequest {
        ttl: seconds(2 * 86_400),
        ..set("long", 1)
    };
    let three = BatchGetRequest {
        keys: ["a", "b", "c"].map(str::to_owned).into(),
        ..Default::default()
    };
    write(&acme, set("large", 3000)).await.unwrap();
    write(&acme, long.clone()).await.unwrap();
    write(&acme, tagged(&["a", "b", "c"])).await.unwrap();
    write(&acme, tagged(&["more-than-ten-bytes"]))
        .await
        .unwrap();
    acme.cache.clone().batch_get(three.clone()).await.unwrap();
    let packed = write(&acme, set("packed", 1500)).await.unwrap();
    assert!(packed.stored_bytes < 500, "{packed:?}");

    rig.apply(
        "persistence:\n  cache: {max_value_bytes: 2 KiB, max_ttl: 1d, max_batch_items: 2, \
         max_tags: 2, max_tag_bytes: 10, compression: {enabled: false}}\n",
    )
    .await;
    let refused = async |request| write(&acme, request).await.unwrap_err();
    assert_eq!(
        reason(&refused(set("large", 3000)).await),
        "ENTRY_TOO_LARGE"
    );
    assert_eq!(fields(&refused(long).await), ["ttl"]);
    assert_eq!(fields(&refused(tagged(&["a", "b", "c"])).await), ["tags"]);
    let field = fields(&refused(tagged(&["more-than-ten-bytes"])).await);
    assert_eq!(field, ["tags[0]"]);
    let batch = acme.cache.clone().batch_get(three).await.unwrap_err();
    assert_eq!(reason(&batch), "BATCH_TOO_LARGE");
    let packed = write(&acme, set("packed", 1500)).await.unwrap();
    assert!(packed.stored_bytes >= 1500, "{packed:?}");

    rig.apply("persistence: {cache: {compression: {min_bytes: 1501}}}\n")
        .await;
    for (bytes, compressed) in [(1500, false), (1501, true)] {
        let packed = write(&acme, set("packed", bytes)).await.unwrap();
        assert_eq!(packed.stored_bytes < 500, compressed, "{packed:?}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn plans_quotas_and_prices(#[case] kind: Kind) {
    let free = |entries: u32, ttl: &str, more: &str, price: u32| {
        format!(
            "persistence:
  tenant:
    plans:
      free:
        default_ttl: {ttl}
        quotas: {{cache_entries: {entries}{more}}}
        prices: {{operations: {{unit_price_micros: {price}, unit: 1}}}}
"
        )
    };
    let rig = Rig::start(kind, &free(2, "1h", "", 0)).await;
    let admin = rig.server.admin();
    let acme = rig.server.tenant("acme").await.clients;
    let lasts = |written: &SetResponse| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        written.expire_time.unwrap().seconds - now.unwrap().as_secs() as i64
    };
    let bill = async || {
        let request = GetTenantBillingRequest {
            tenant_id: "acme".into(),
            ..Default::default()
        };
        let answer = admin.tenant.clone().get_tenant_billing(request).await;
        answer.unwrap().into_inner().statement.unwrap()
    };
    write(&acme, set("a", 1)).await.unwrap();
    let written = write(&acme, set("b", 1)).await.unwrap();
    assert!(lasts(&written) <= 3600, "{written:?}");
    let refused = write(&acme, set("c", 1)).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    let unknown = check(&acme, "pages", CheckQuotaMode::Peek).await;
    assert_eq!(reason(&unknown.unwrap_err()), "VALIDATION_FAILED");
    assert_eq!(bill().await.total_micros, 0);

    rig.apply(&free(3, "2h", ", custom: {pages: {limit: 5}}", 1_000_000))
        .await;
    let written = write(&acme, set("c", 1)).await.unwrap();
    assert!((3601..=7200).contains(&lasts(&written)), "{written:?}");
    let refused = write(&acme, set("d", 1)).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    let pages = check(&acme, "pages", CheckQuotaMode::Peek).await.unwrap();
    assert_eq!((pages.limit, pages.allowed), (5, true));
    let get = GetTenantRequest {
        tenant_id: "acme".into(),
    };
    let tenant = admin.tenant.clone().get_tenant(get).await.unwrap();
    let quotas = tenant.into_inner().tenant.unwrap().effective_quotas;
    assert_eq!(quotas.unwrap().cache_entries, Some(3));
    assert!(bill().await.total_micros >= 3_000_000, "{:?}", bill().await);

    // A rate.
    for _ in 0..2 {
        rig.server.admin();
        write(&acme, set("a", 1)).await.unwrap();
    }
    rig.apply(&free(3, "2h", ", operations_per_minute: 1", 0))
        .await;
    until("the rate is refused", async || {
        let answer = write(&acme, set("a", 1)).await;
        answer.is_err_and(|status| reason(&status) == "RATE_LIMITED")
    })
    .await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_new_tenants_are_and_how_many_there_may_be(#[case] kind: Kind) {
    let key = [(
        "PERSISTENCE_ENCRYPTION__MASTER_KEYS".to_owned(),
        "a:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".to_owned(),
    )];
    let rig = Rig::start_with(kind, "persistence:\n", key).await;
    let tenant = create(&rig.server, "one").await.unwrap().tenant.unwrap();
    assert_eq!(
        (tenant.plan.as_str(), tenant.encryption_enabled),
        ("free", false)
    );
    let delete = async |tenant_id: &str| {
        let request = DeleteTenantRequest {
            tenant_id: tenant_id.into(),
            ..Default::default()
        };
        let deleted = rig.server.admin().tenant.delete_tenant(request).await;
        let tenant = deleted.unwrap().into_inner().tenant.unwrap();
        tenant.purge_time.unwrap().seconds - tenant.delete_time.unwrap().seconds
    };
    create(&rig.server, "two").await.unwrap();
    assert_eq!(delete("two").await, 7 * 86_400);

    rig.apply(
        "persistence: {tenant: {default_plan: basic, delete_grace: 1h, max_tenants: 3}, \
         encryption: {enabled: true}}",
    )
    .await;
    let tenant = create(&rig.server, "three").await.unwrap().tenant.unwrap();
    assert_eq!(
        (tenant.plan.as_str(), tenant.encryption_enabled),
        ("basic", true)
    );
    assert_eq!(delete("one").await, 3600);
    let refused = create(&rig.server, "four").await.unwrap_err();
    assert_eq!(reason(&refused), "MAX_TENANTS");
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn watchers_and_their_signs_of_life(#[case] kind: Kind) {
    let text = |most: u32, heartbeat: &str| {
        format!(
            "persistence: {{cache: {{watch: {{max_watchers: {most}, heartbeat: {heartbeat}}}}}}}"
        )
    };
    let rig = Rig::start(kind, &text(1, "25s")).await;
    let acme = rig.server.tenant("acme").await.clients;
    let watch = async || {
        let request = WatchInvalidationsRequest::default();
        let watch = acme.cache.clone().watch_invalidations(request).await?;
        Ok::<_, Status>(watch.into_inner())
    };
    let mut first = watch().await.unwrap();
    first.message().await.unwrap().unwrap();
    assert_eq!(reason(&watch().await.unwrap_err()), "QUOTA_EXCEEDED");

    rig.apply(&text(2, "100ms")).await;
    let mut second = watch().await.unwrap();
    // At once, and then again and again although nothing has changed.
    for _ in 0..4 {
        let told = tokio::time::timeout(Duration::from_secs(20), second.message()).await;
        assert!(told.unwrap().unwrap().unwrap().events.is_empty());
    }
    assert_eq!(reason(&watch().await.unwrap_err()), "QUOTA_EXCEEDED");
}

/// How long Redis keeps an entry that was refilled for so many seconds.
async fn kept_seconds(rig: &mut Rig, acme: &Clients, key: &str, ttl: i64) -> i64 {
    let request = riptide_persistence::proto::v1::GetOrLeaseRequest {
        key: key.into(),
        ..Default::default()
    };
    let leased = acme.cache.clone().get_or_lease(request).await.unwrap();
    let refill = SetRequest {
        lease_token: leased.into_inner().lease_token,
        ttl: seconds(ttl),
        ..set(key, 1)
    };
    write(acme, refill).await.unwrap();
    let redis = rig.server.redis().unwrap();
    let names = redis.cli(&["KEYS", &format!("*:default:{key}")]);
    let ms: i64 = redis.cli(&["PTTL", names.trim()]).trim().parse().unwrap();
    ms / 1000
}

#[tokio::test]
async fn how_long_a_refilled_entry_is_kept_beyond_its_end() {
    let text = |stale: &str| format!("persistence: {{cache: {{lease: {{stale_for: {stale}}}}}}}");
    let mut rig = Rig::start(Kind::Redis, &text("0s")).await;
    let acme = rig.server.tenant("acme").await.clients;
    let kept = kept_seconds(&mut rig, &acme, "before", 1000).await;
    assert!((900..1100).contains(&kept), "{kept}");
    rig.apply(&text("600s")).await;
    let kept = kept_seconds(&mut rig, &acme, "after", 1000).await;
    assert!((1500..1700).contains(&kept), "{kept}");
}

/// The store is killed and the answers of CheckQuota, which goes on by what is
/// remembered, are as they were set last.
#[tokio::test]
async fn what_becomes_of_rates_without_the_store_and_for_how_long() {
    for (policy, remembered, allowed) in [
        ("allow", "5m", true),
        ("deny", "5m", false),
        ("allow", "0s", false),
    ] {
        let first = if policy == "allow" { "deny" } else { "allow" };
        let mut rig = Rig::start(
            Kind::Redis,
            &format!("persistence: {{tenant: {{when_store_is_down: {first}}}}}"),
        )
        .await;
        let acme = rig.server.tenant("acme").await.clients;
        rig.apply(&format!(
            "persistence: {{tenant: {{when_store_is_down: {policy}}}, auth: {{remembered_ttl: {remembered}, key_cache_ttl: 6s}}}}"
        ))
        .await;
        let metric = "operations_per_minute";
        // The feed tells of the creation once; what is looked up after that stays.
        tokio::time::sleep(Duration::from_millis(500)).await;
        check(&acme, metric, CheckQuotaMode::Consume).await.unwrap();
        let redis: &mut Redis = rig.server.redis().unwrap();
        redis.kill();
        until(
            &format!("{policy} after {remembered}"),
            async || match check(&acme, metric, CheckQuotaMode::Consume).await {
                Ok(answer) => answer.allowed == allowed && allowed,
                Err(status) => !allowed && reason(&status) == "STORE_UNAVAILABLE",
            },
        )
        .await;
    }
}

#[tokio::test]
async fn how_long_a_server_waits_before_it_goes() {
    let mut rig = Rig::start(Kind::Embedded, "persistence: {drain: {delay: 0s}}").await;
    rig.apply("persistence: {drain: {delay: 2s, timeout: 20s}}")
        .await;
    let watch = HealthClient::new(rig.server.connect())
        .watch(HealthCheckRequest::default())
        .await;
    let mut states = watch.unwrap().into_inner();
    states.message().await.unwrap().unwrap();
    rig.server.begin_stop();
    let state = states.message().await.unwrap().unwrap();
    assert_eq!(state.status(), ServingStatus::NotServing);
    // A new connection would find the port closed.
    let late = Clients::new(
        rig.server.connect(),
        crate::server::Bearer::new(crate::server::ADMIN_KEY),
    );
    let info = late
        .state
        .clone()
        .get_server_info(GetServerInfoRequest {})
        .await;
    info.unwrap();
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn master_keys_can_be_added_and_taken_away(#[case] kind: Kind) {
    let folder = tempfile::TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    let key = |id: &str| {
        format!(
            "{id}:{}",
            data_encoding::BASE64.encode(&[id.as_bytes()[0]; 32])
        )
    };
    let set_keys = |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| key(id)).collect();
        std::fs::write(&keys, ids.join(",")).unwrap();
    };
    set_keys(&["a"]);
    let env = [
        (
            "PERSISTENCE_ENCRYPTION__MASTER_KEYS_FILE".to_owned(),
            keys.display().to_string(),
        ),
        ("PERSISTENCE_HOT_RELOAD".to_owned(), "false".to_owned()),
        // Nothing is answered that was opened before.
        (
            "PERSISTENCE_CACHE__NEAR__ENABLED".to_owned(),
            "false".to_owned(),
        ),
    ];
    let rig = Rig::start_with(kind, "persistence: {encryption: {enabled: true}}", env).await;
    let admin = rig.server.admin();
    let old = rig.server.tenant("old").await.clients;
    write(&old, set("k", 100)).await.unwrap();
    let get = async |clients: &Clients| {
        let request = GetRequest {
            key: "k".into(),
            ..Default::default()
        };
        clients.cache.clone().get(request).await
    };
    let rewrap = async || {
        let request = RewrapDataKeysRequest::default();
        let answer = admin.tenant.clone().rewrap_data_keys(request).await;
        answer.unwrap().into_inner().report.unwrap().master_key_id
    };
    assert_eq!(rewrap().await, "a");
    // Without its master key a tenant's values cannot be opened...
    set_keys(&["b"]);
    let reload = rig.reload().await;
    assert_eq!(reload.changes[0].path, "encryption.master_keys");
    assert_eq!(reload.changes[0].new, "(redacted)");
    let lost = get(&old).await.unwrap_err();
    assert_eq!(reason(&lost), "ENTRY_CORRUPT");
    // ...and with it they can, whichever wraps what is new.
    set_keys(&["b", "a"]);
    rig.reload().await;
    get(&old).await.unwrap();
    assert_eq!(rewrap().await, "b");
    set_keys(&["b"]);
    rig.reload().await;
    get(&old).await.unwrap();
    let new = rig.server.tenant("new").await.clients;
    write(&new, set("k", 100)).await.unwrap();
    get(&new).await.unwrap();
}
