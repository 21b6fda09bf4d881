//! TLS to a collector of traces: whom it is believed by, and what becomes of spans where
//! it is not. It does not know what spans tell.

use std::{path::Path, thread, time::Duration};

use riptide_persistence::proto::v1::{CreateTenantRequest, GetTenantRequest};
use rstest::rstest;
use serde_json::Value;

use super::super::{client, collector::Collector};
use crate::{
    authority::{Authority, Says},
    cli::{Folder, Serving},
    rpc::configuration::{config_of, environment, launch, until, value_of},
    server::ADMIN_KEY,
};

/// Which address a collector is reached by.
const HERE: Says<'static> = Says {
    common_name: "collector",
    dns: &["127.0.0.1"],
    uri: &[],
    expired: false,
};

/// A folder whose server records every call, and believes this authority.
fn folder(authority: &Authority, trace: &str) -> Folder {
    let folder = Folder::new();
    folder.write("ca.crt", &authority.pem);
    let settings = format!(
        "persistence:\n  store: {{ephemeral: true}}\n  auth: {{admin_key: '{ADMIN_KEY}'}}\n  \
         trace: {{sample_ratio: 1, {trace}}}\n"
    );
    folder.write("persistence.yml", settings);
    folder
}

async fn create(serving: &Serving<'_>) {
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let admin = client(&serving.address, ADMIN_KEY);
    admin.tenant.clone().create_tenant(request).await.unwrap();
}

/// The first line of the log with this message, once it is there.
fn line(serving: &Serving<'_>, message: &str) -> Value {
    for _ in 0..600 {
        let log = serving.log();
        let mut lines = log
            .lines()
            .map_while(|line| serde_json::from_str(line).ok());
        if let Some(line) = lines.find(|line: &Value| line["message"] == message) {
            return line;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{message:?} is not told: {}", serving.log());
}

#[rstest]
#[case::a_file(", otlp_ca_file: ca.crt", false)]
#[case::the_machine("", true)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_arrive_where_the_collector_is_believed_by(
    #[case] more: &str,
    #[case] by_machine: bool,
) {
    let authority = Authority::new();
    let collector = Collector::start_in_tls(&authority.holder(HERE)).await;
    let mut folder = folder(
        &authority,
        &format!("otlp_endpoint: '{}'{more}", collector.url()),
    );
    if by_machine {
        let file = folder.path("ca.crt").display().to_string();
        folder.env("SSL_CERT_FILE", &file);
    }
    let mut serving = folder.serve(&[]);
    create(&serving).await;
    let is = |name: &str| name.ends_with("TenantService/CreateTenant");
    let own = collector.span("the call", |span| is(&span.name)).await;
    collector
        .span("its commit", |span| span.parent_span_id == own.span_id)
        .await;
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    let ended = line(&serving, "spans ended");
    assert_eq!(ended["dropped"], 0, "{ended}");
}

/// What is wrong with a collector.
enum Wrong {
    Authority,
    Name,
    Time,
    Protocol,
}

#[rstest]
#[case::authority(Wrong::Authority, "it is signed by none of trace.otlp_ca_file")]
#[case::name(Wrong::Name, "is for another name than the one it is reached by")]
#[case::time(Wrong::Time, "its certificate has expired")]
#[case::protocol(
    Wrong::Protocol,
    "it does not speak TLS on this port: http:// is for servers"
)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_arrive_at_another_and_callers_do_not_notice(
    #[case] wrong: Wrong,
    #[case] says: &str,
) {
    let authority = Authority::new();
    let collector = match wrong {
        Wrong::Authority => Collector::start_in_tls(&Authority::new().holder(HERE)).await,
        Wrong::Name => {
            let elsewhere = Says {
                dns: &["elsewhere.example.org"],
                ..HERE
            };
            Collector::start_in_tls(&authority.holder(elsewhere)).await
        }
        Wrong::Time => {
            let expired = Says {
                expired: true,
                ..HERE
            };
            Collector::start_in_tls(&authority.holder(expired)).await
        }
        Wrong::Protocol => Collector::start().await,
    };
    let url = collector.url().replace("http://", "https://");
    let folder = folder(
        &authority,
        &format!("otlp_endpoint: '{url}', otlp_ca_file: ca.crt"),
    );
    let mut serving = folder.serve(&[]);
    create(&serving).await;
    let told = line(&serving, "spans not taken by trace.otlp_endpoint");
    let why = told["why"].as_str().unwrap();
    assert!(
        why.contains("TLS with it failed") && why.contains(says),
        "{told}"
    );
    let get = GetTenantRequest {
        tenant_id: "acme".into(),
    };
    let admin = client(&serving.address, ADMIN_KEY);
    admin.tenant.clone().get_tenant(get).await.unwrap();
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    let ended = line(&serving, "spans ended");
    assert!(ended["dropped"].as_u64() > Some(0), "{ended}");
    assert_eq!(collector.requests(), []);
}

#[rstest]
#[case::file_without_endpoint("otlp_ca_file: ca.crt", "otlp_ca_file", "asks for no TLS")]
#[case::file_without_tls(
    "otlp_endpoint: 'http://localhost:4317', otlp_ca_file: ca.crt",
    "otlp_ca_file",
    "it begins with https:// where it does"
)]
#[case::no_file(
    "otlp_endpoint: 'https://localhost:4317', otlp_ca_file: none.crt",
    "otlp_ca_file",
    "none.crt cannot be read"
)]
#[case::no_certificate(
    "otlp_endpoint: 'https://localhost:4317', otlp_ca_file: persistence.yml",
    "otlp_ca_file",
    "holds no certificate in PEM"
)]
#[case::no_pem(
    "otlp_endpoint: 'https://localhost:4317', otlp_ca_file: torn.crt",
    "otlp_ca_file",
    "is not in PEM"
)]
#[case::another_scheme(
    "otlp_endpoint: 'grpcs://localhost:4317', otlp_ca_file: ca.crt",
    "otlp_endpoint",
    "is not http://<host>:<port> or https://<host>:<port>"
)]
#[case::no_name(
    "otlp_endpoint: 'https://a..b:4317'",
    "otlp_endpoint",
    "is no name of a server"
)]
fn what_makes_no_sense_stops_the_start_by_its_name(
    #[case] trace: &str,
    #[case] setting: &str,
    #[case] says: &str,
) {
    let folder = folder(&Authority::new(), trace);
    folder.write(
        "torn.crt",
        "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
    );
    let refused = folder.run(&["serve"]);
    refused
        .refused(1, &format!("trace.{setting}"))
        .refused(1, says);
}

#[tokio::test]
async fn another_content_of_the_file_waits_for_a_restart() {
    let folder = folder(
        &Authority::new(),
        "otlp_endpoint: 'https://127.0.0.1:1', otlp_ca_file: ca.crt",
    );
    let root = folder.path("ca.crt");
    let file = folder.path("persistence.yml");
    let mut env = environment(Path::new(file.parent().unwrap()), None);
    let name = "PERSISTENCE_TRACE__OTLP_CA_FILE";
    env.insert(name.into(), root.display().to_string());
    let server = launch(&file, env);
    server.serves(true).await;
    let before = value_of(&config_of(&server).await, "trace.otlp_ca").0;
    assert!(before.starts_with("sha256:"), "{before}");
    folder.write("ca.crt", &Authority::new().pem);
    until("it is told", async || {
        let reload = config_of(&server).await.last_reload;
        let waits = reload
            .map(|reload| reload.requires_restart)
            .unwrap_or_default();
        matches!(&*waits, [change] if change.path == "trace.otlp_ca" && change.old == before)
    })
    .await;
    let still = value_of(&config_of(&server).await, "trace.otlp_ca").0;
    assert_eq!(still, before);
}
