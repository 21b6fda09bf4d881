//! `/metrics` of a live server: what is told is what is documented, in a form that a
//! strict reader takes, and each figure moves by what it counts. It does not know how
//! they are counted.

mod caches;
mod ties;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use riptide_persistence::{
    metrics::{FAMILIES, Kind as Form},
    proto::v1::{
        CreateCheckpointRequest, DeleteRequest, GetRequest, GetTenantRequest, Quotas,
        ReloadConfigRequest, SetRequest, Tenant as Wanted, UpdateTenantRequest,
    },
};
use rstest::rstest;

use crate::server::{Kind, Server};

/// Samples by name and labels, as they are written.
type Samples = BTreeMap<String, f64>;

/// What a server tells, by OpenMetrics' rules: each family once, with its type before its
/// samples; no sample of another; `# EOF` at the end.
fn scrape(server: &Server) -> (BTreeMap<String, String>, Samples) {
    let mut stream = TcpStream::connect(server.admin_address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/openmetrics-text; version=1.0.0"));
    let body = body.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let (mut types, mut samples) = (BTreeMap::new(), Samples::new());
    let mut family = String::new();
    for line in body.lines() {
        if let Some(told) = line.strip_prefix("# ") {
            let mut words = told.splitn(3, ' ');
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            if name != family {
                assert!(!types.contains_key(name), "{name} is told twice");
                name.clone_into(&mut family);
            }
            if kind == "TYPE" {
                types.insert(family.clone(), words.next().unwrap().to_owned());
            }
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let plain = name.split('{').next().unwrap();
            assert!(plain.starts_with(&family), "{line} is not of {family}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert_eq!(samples.insert(name.to_owned(), value), None, "{line}");
        }
    }
    (types, samples)
}

/// The sum of all samples of a name that have these labels.
fn sum(samples: &Samples, name: &str, labels: &[&str]) -> f64 {
    let of = samples.iter().filter(|(sample, _)| {
        sample.split('{').next() == Some(name) && labels.iter().all(|label| sample.contains(label))
    });
    of.map(|(_, value)| value).sum()
}

fn set(key: &str) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    }
}

fn get(key: &str) -> GetRequest {
    GetRequest {
        key: key.into(),
        ..Default::default()
    }
}

async fn checkpoint(server: &Server) -> Result<(), tonic::Status> {
    let mut state = server.admin().state;
    let told = state
        .create_checkpoint(CreateCheckpointRequest::default())
        .await?;
    let mut told = told.into_inner();
    while told.message().await?.is_some() {}
    Ok(())
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_is_documented_is_told_and_nothing_else(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    acme.cache.clone().set(set("k")).await.unwrap();
    checkpoint(&server).await.unwrap();
    let (types, samples) = scrape(&server);
    let told: BTreeSet<String> = types.keys().cloned().collect();
    let name = |family: &riptide_persistence::metrics::Family| match family.kind {
        Form::Counter => family.name.trim_end_matches("_total").to_owned(),
        Form::Info => family.name.trim_end_matches("_info").to_owned(),
        Form::Gauge | Form::Histogram => family.name.to_owned(),
    };
    // Of these, the table says when they are not told.
    let absent = [
        "riptide_store_max_bytes",
        "riptide_tls_certificate_expiry_timestamp_seconds",
    ];
    for family in FAMILIES {
        let name = name(family);
        match types.get(&name) {
            Some(kind) => assert_eq!(kind, family.kind.name(), "{name}"),
            None => assert!(absent.contains(&&*name), "{name} is not told"),
        }
    }
    let of_redis = samples.keys().any(|it| it.starts_with("riptide_redis_"));
    assert_eq!(of_redis, kind == Kind::Redis);
    let known: BTreeSet<String> = FAMILIES.iter().map(name).collect();
    let unknown: Vec<_> = told.difference(&known).collect();
    assert_eq!(unknown, Vec::<&String>::new());
    // Labels are those of the table, but for the bounds of histograms.
    for sample in samples.keys() {
        let Some((plain, labels)) = sample.split_once('{') else {
            continue;
        };
        let ends = ["_bucket", "_sum", "_count"];
        let base = ends.iter().find_map(|end| plain.strip_suffix(end));
        let family = FAMILIES
            .iter()
            .find(|family| family.name == plain || Some(family.name) == base)
            .unwrap_or_else(|| panic!("{sample}"));
        let labels = labels.trim_end_matches('}').split("\",");
        let labels = labels.map(|label| label.split('=').next().unwrap());
        let labels: BTreeSet<&str> = labels.filter(|label| *label != "le").collect();
        assert_eq!(labels, family.labels.iter().copied().collect(), "{sample}");
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn each_figure_moves_by_what_it_counts(#[case] kind: Kind) {
    let server = kind.start().await;
    let acme = server.tenant("acme").await.clients;
    let mut cache = acme.cache.clone();
    let (_, before) = scrape(&server);
    cache.set(set("k")).await.unwrap();
    // The first ones from the store, the rest near.
    for _ in 0..10 {
        cache.get(get("k")).await.unwrap();
    }
    cache.get(get("none")).await.unwrap();
    let delete = DeleteRequest {
        key: "k".into(),
        ..Default::default()
    };
    cache.delete(delete).await.unwrap();
    let refused = server.anonymous().cache.get(get("k")).await;
    assert!(refused.is_err());
    let absent = GetTenantRequest {
        tenant_id: "nobody".into(),
    };
    assert!(server.admin().tenant.get_tenant(absent).await.is_err());
    let update = UpdateTenantRequest {
        tenant: Some(Wanted {
            tenant_id: "acme".into(),
            quotas: Some(Quotas {
                cache_entries: Some(0),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["quotas.cache_entries".into()],
        }),
        ..Default::default()
    };
    server.admin().tenant.update_tenant(update).await.unwrap();
    while cache.set(set("too-many")).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    checkpoint(&server).await.unwrap();
    let reload = ReloadConfigRequest::default();
    server.admin().state.reload_config(reload).await.unwrap();

    let rpc = |method: &str| format!("grpc_method=\"{method}\"");
    let moved = |samples: &Samples, name: &str, labels: &[&str]| {
        sum(samples, name, labels) - sum(&before, name, labels)
    };
    let (get_label, ok) = (rpc("Get"), "grpc_code=\"OK\"");
    let mut after = scrape(&server).1;
    // What tenants did is told when it is flushed, within a second or so.
    while moved(&after, "riptide_cache_reads_total", &[]) < 11.0
        || moved(&after, "riptide_quota_refusals_total", &["cache_entries"]) < 1.0
        || moved(&after, "riptide_meter_flushes_total", &["\"ok\""]) < 1.0
        || moved(&after, "riptide_audit_events_total", &["\"kept\""]) < 1.0
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = scrape(&server).1;
    }
    let moved = |name: &str, labels: &[&str]| moved(&after, name, labels);
    assert_eq!(moved("grpc_server_handled_total", &[&get_label, ok]), 11.0);
    assert_eq!(moved("grpc_server_started_total", &[&get_label]), 12.0);
    assert_eq!(moved("grpc_server_msg_sent_total", &[&get_label]), 11.0);
    assert_eq!(
        moved("grpc_server_handling_seconds_count", &[&get_label]),
        12.0
    );
    let reason = |reason: &str| moved("riptide_grpc_refusals_total", &[&format!("\"{reason}\"")]);
    assert_eq!(reason("API_KEY_MISSING"), 1.0);
    assert_eq!(reason("TENANT_NOT_FOUND"), 1.0);
    assert_eq!(reason("QUOTA_EXCEEDED"), 1.0);
    let reads = |result: &str| moved("riptide_cache_reads_total", &[&format!("\"{result}\"")]);
    assert_eq!(reads("near_hit") + reads("hit"), 10.0);
    assert!(reads("near_hit") >= 1.0 && reads("hit") >= 1.0, "{after:?}");
    assert_eq!(reads("miss"), 1.0);
    assert!(moved("riptide_cache_writes_total", &["\"set\""]) >= 1.0);
    assert_eq!(moved("riptide_cache_writes_total", &["\"delete\""]), 1.0);
    let commits = ["method=\"commit\"", "outcome=\"applied\""];
    assert!(
        moved("riptide_store_calls_total", &commits) >= 4.0,
        "{after:?}"
    );
    assert!(moved("riptide_store_call_seconds_count", &["method=\"commit\""]) >= 4.0);
    assert_eq!(
        moved("riptide_config_reloads_total", &["\"unchanged\""]),
        1.0
    );
    let kinds = ["kind=\"MANUAL\"", "outcome=\"taken\""];
    assert_eq!(moved("riptide_checkpoints_total", &kinds), 1.0);
    assert_eq!(moved("riptide_checkpoint_duration_seconds_count", &[]), 1.0);
    assert!(moved("riptide_checkpoint_last_size_bytes", &[]) > 0.0);
    assert_eq!(sum(&after, "riptide_store_up", &[]), 1.0);
    assert_eq!(sum(&after, "riptide_health_serving", &["\"all\""]), 1.0);
    assert!(sum(&after, "riptide_grpc_connections", &[]) >= 1.0);
    assert!(moved("process_cpu_seconds_total", &[]) >= 0.0);
    assert!(sum(&after, "process_resident_memory_bytes", &[]) > 1e6);
}

/// The tenants that call most are told by name, all others as one: whoever has more
/// tenants gets no longer answer.
#[tokio::test]
async fn only_so_many_tenants_are_told_by_name() {
    let server = Kind::Embedded
        .start_with(|config| {
            config.metrics.tenants = 2;
            config.tenant.max_tenants = -1;
        })
        .await;
    let (mut expected, mut busiest) = (0.0, None);
    for n in 0..6 {
        let tenant = server.tenant(&format!("tenant-{n}")).await.clients;
        for m in 0..=n * 10 {
            tenant
                .cache
                .clone()
                .set(set(&format!("k{m}")))
                .await
                .unwrap();
            expected += 1.0;
        }
        busiest = Some(tenant);
    }
    let mut busiest = busiest.unwrap().cache;
    let name = "riptide_tenant_operations_total";
    let mut last;
    // Who calls most is found out every few seconds; nothing that was done is lost by it.
    for _ in 0..600 {
        last = scrape(&server).1;
        let of = last.keys().filter(|sample| sample.starts_with(name));
        let labels: BTreeSet<String> = of.cloned().collect();
        assert!(labels.len() <= 3, "{labels:?}");
        assert!(labels.iter().any(|label| label.contains("\"other\"")));
        let is_told = labels.iter().any(|label| label.contains("\"tenant-5\""));
        if is_told && labels.len() == 3 && sum(&last, name, &[]) >= expected {
            return;
        }
        busiest.set(set("more")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never told by name");
}

#[tokio::test]
async fn the_store_is_told_to_be_down_and_up_again() {
    let mut server = Kind::Redis.start().await;
    assert_eq!(sum(&scrape(&server).1, "riptide_store_up", &[]), 1.0);
    let mut redis = server.take_redis().unwrap();
    redis.kill();
    server.serves(false).await;
    let down = scrape(&server).1;
    assert_eq!(sum(&down, "riptide_store_up", &[]), 0.0);
    assert_eq!(sum(&down, "riptide_health_serving", &["\"all\""]), 0.0);
    redis.restart();
    server.serves(true).await;
    assert_eq!(sum(&scrape(&server).1, "riptide_store_up", &[]), 1.0);
    server.hold(Some(redis));
}
