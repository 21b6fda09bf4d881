//! Certificates of clients: whose are taken, and which of them are admins'. It does not
//! know how a certificate is made.

use std::{sync::Arc, time::Duration};

use riptide_persistence::proto::v1::{
    CreateTenantRequest, GetCacheStatsRequest, ReloadOutcome, WatchConfigRequest,
    WatchInvalidationsRequest, WhoAmIRequest, WhoAmIResponse,
};
use rstest::rstest;
use tonic::{Code, Request, Status};

use super::{Stage, calls, config_by};
use crate::{
    authority::{Authority, Holder, Says},
    process::audit,
    redis::Redis,
    rpc::configuration::{until, value_of},
    server::{ADMIN_KEY, Bearer, Clients, Kind, Server, reason},
};

/// Settings of TLS that ask clients for certificates of this file.
fn asking(stage: &Stage, client_auth: &str, admins: &str) -> String {
    let file = stage.path("clients.crt");
    format!(", client_ca_file: {file}, client_auth: {client_auth}, admins: '{admins}'")
}

/// A server that takes certificates of clients signed by whom the second one is.
fn stage(client_auth: &str, admins: &str) -> (Stage, Authority) {
    let (stage, of_clients) = (Stage::new(), Authority::new());
    stage.write("clients.crt", &of_clients.pem);
    stage.set("", &asking(&stage, client_auth, admins));
    (stage, of_clients)
}

async fn who(clients: &Clients) -> Result<WhoAmIResponse, Status> {
    let answer = clients.tenant.clone().who_am_i(WhoAmIRequest {}).await?;
    Ok(answer.into_inner())
}

/// A call by one with this certificate and this key.
async fn who_is(
    stage: &Stage,
    server: &Server,
    holder: Option<&Holder>,
    bearer: Bearer,
) -> Result<WhoAmIResponse, Status> {
    let clients = stage.authority.clients_as(server.address, holder, bearer);
    // Where the server refuses the certificate, the client hears of it with its call.
    match clients.await {
        Ok(clients) => who(&clients).await,
        Err(error) => Err(Status::unavailable(error.to_string())),
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_listed_certificate_is_an_admin_and_no_other_gives_anything(#[case] kind: Kind) {
    audit::listen();
    let listed = "spiffe://platform/ops, ops.example.org,CN=Ann Other";
    let (stage, of_clients) = stage("optional", listed);
    let redis = (kind == Kind::Redis).then(Redis::start);
    let server = stage.serve(redis.as_ref()).await;

    for (says, key_id) in [
        (
            Says {
                uri: &["spiffe://platform/else", "spiffe://platform/ops"],
                ..Says::default()
            },
            "cert:spiffe://platform/ops",
        ),
        (
            Says {
                common_name: "nobody",
                dns: &["OPS.example.org"],
                ..Says::default()
            },
            "cert:ops.example.org",
        ),
        (
            Says {
                common_name: "Ann Other",
                ..Says::default()
            },
            "cert:CN=Ann Other",
        ),
    ] {
        let holder = of_clients.holder(says);
        let told = who_is(&stage, &server, Some(&holder), Bearer::none()).await;
        let told = told.unwrap();
        assert!(told.admin && told.scopes == ["admin"] && told.tenant_id.is_empty());
        assert_eq!(told.key_id, key_id);
    }

    // It does what an admin does, and is named where that is told.
    let ops = of_clients.holder(Says {
        uri: &["spiffe://platform/ops"],
        ..Says::default()
    });
    let clients = |holder, bearer| {
        let (stage, address) = (&stage, server.address);
        async move {
            let clients = stage.authority.clients_as(address, holder, bearer).await;
            clients.unwrap()
        }
    };
    let admin = clients(Some(&ops), Bearer::none()).await;
    let id = format!("tls-{kind:?}-create");
    let mut request = Request::new(CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("x-request-id", id.parse().unwrap());
    let created = admin.tenant.clone().create_tenant(request).await.unwrap();
    let secret = created.into_inner().secret;
    let told = audit::told(&id);
    assert_eq!(
        told,
        [["cert:spiffe://platform/ops", "CreateTenant", "acme", "OK"].map(String::from)]
    );
    let fleet = GetCacheStatsRequest::default();
    admin.cache.clone().get_cache_stats(fleet).await.unwrap();

    // Where a key comes too, the key decides.
    let tenant = clients(Some(&ops), Bearer::new(&secret)).await;
    let told = who(&tenant).await.unwrap();
    assert!(!told.admin && told.tenant_id == "acme");
    let refused = tenant
        .tenant
        .clone()
        .create_tenant(CreateTenantRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&refused), "SCOPE_MISSING");
    let wrong = who_is(&stage, &server, Some(&ops), Bearer::new("wrong")).await;
    assert_eq!(reason(&wrong.unwrap_err()), "API_KEY_INVALID");

    // Names that only resemble one, a kind for another, and no certificate at all.
    for says in [
        Says {
            uri: &["spiffe://platform/ops/x", "SPIFFE://platform/ops"],
            ..Says::default()
        },
        Says {
            dns: &["*.example.org", "ops.example.org.evil.org"],
            ..Says::default()
        },
        Says {
            common_name: "ops.example.org",
            uri: &["urn:ops.example.org"],
            ..Says::default()
        },
        Says {
            common_name: "ann other",
            dns: &["ann-other"],
            ..Says::default()
        },
    ] {
        let holder = of_clients.holder(says);
        let refused = who_is(&stage, &server, Some(&holder), Bearer::none()).await;
        assert_eq!(reason(&refused.unwrap_err()), "API_KEY_MISSING");
        // It is no hindrance either.
        let told = who_is(&stage, &server, Some(&holder), Bearer::new(&secret)).await;
        assert_eq!(told.unwrap().tenant_id, "acme");
    }
    let refused = who_is(&stage, &server, None, Bearer::none()).await;
    assert_eq!(reason(&refused.unwrap_err()), "API_KEY_MISSING");
    let told = who_is(&stage, &server, None, Bearer::new(ADMIN_KEY)).await;
    assert_eq!(told.unwrap().key_id, "admin");
    assert_eq!(server.tls.handshake_failures(), 0);
}

#[rstest]
#[case::optional("optional")]
#[case::required("required")]
#[tokio::test]
async fn a_wrong_certificate_is_refused_and_counted(#[case] client_auth: &str) {
    let (stage, of_clients) = stage(client_auth, "CN=ops");
    let server = stage.serve(None).await;
    let ops = Says {
        common_name: "ops",
        ..Says::default()
    };
    let good = of_clients.holder(ops);
    let expired = of_clients.holder(Says {
        expired: true,
        ..ops
    });
    let foreign = Authority::new().holder(ops);
    let admin = || Bearer::new(ADMIN_KEY);
    for wrong in [expired, foreign] {
        let counted = server.tls.handshake_failures();
        // A key is no help: nothing of the call arrives.
        let refused = who_is(&stage, &server, Some(&wrong), admin()).await;
        let refused = refused.unwrap_err();
        assert_ne!(refused.code(), Code::Unauthenticated, "{refused}");
        until("it is counted", async || {
            server.tls.handshake_failures() > counted
        })
        .await;
    }
    let without = who_is(&stage, &server, None, admin()).await;
    assert_eq!(without.is_ok(), client_auth == "optional");
    who_is(&stage, &server, Some(&good), Bearer::none())
        .await
        .unwrap();
    // Nor does one who speaks in the clear get in; one who only looks whether the port
    // is open is not counted.
    let counted = server.tls.handshake_failures();
    drop(
        tokio::net::TcpStream::connect(server.address)
            .await
            .unwrap(),
    );
    assert!(calls(&server.admin()).await.is_err());
    until("it is counted", async || {
        let text = server.probe("/metrics").1;
        let name = "riptide_tls_handshake_failures_total ";
        let told = text.lines().find_map(|line| line.strip_prefix(name));
        told.unwrap().parse::<u64>().unwrap() > counted
    })
    .await;
}

#[tokio::test]
async fn who_is_no_admin_any_more_is_none_on_a_connection_that_was_open() {
    let (stage, of_clients) = stage("required", "CN=ops,CN=other");
    let server = stage.serve(None).await;
    let [ops, other] = ["ops", "other"].map(|common_name| {
        of_clients.holder(Says {
            common_name,
            ..Says::default()
        })
    });
    let clients = |holder, bearer| {
        let clients = stage.authority.clients_as(server.address, holder, bearer);
        async { clients.await.unwrap() }
    };
    let admin = clients(Some(&ops), Bearer::none()).await;
    let keeper = clients(Some(&other), Bearer::new(ADMIN_KEY)).await;
    let tenant = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    admin.tenant.clone().create_tenant(tenant).await.unwrap();
    let watch = WatchInvalidationsRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let watch = admin.cache.clone().watch_invalidations(watch).await;
    let mut watch = watch.unwrap().into_inner();
    let watch_config = WatchConfigRequest::default();
    let watch_config = admin.state.clone().watch_config(watch_config).await;
    let mut watch_config = watch_config.unwrap().into_inner();
    watch_config.message().await.unwrap();

    stage.set("", &asking(&stage, "required", "CN=other"));
    until("it is refused", async || match who(&admin).await {
        Ok(told) => told.key_id != "cert:CN=ops",
        Err(refused) => reason(&refused) == "API_KEY_MISSING",
    })
    .await;
    // What it watched ends.
    let refused = loop {
        if let Err(refused) = watch.message().await {
            break refused;
        }
    };
    assert_eq!(reason(&refused), "API_KEY_INVALID");
    let refused = loop {
        if let Err(refused) = watch_config.message().await {
            break refused;
        }
    };
    assert_eq!(reason(&refused), "API_KEY_INVALID");
    let told = clients(Some(&other), Bearer::none()).await;
    assert_eq!(who(&told).await.unwrap().key_id, "cert:CN=other");

    stage.set("", &asking(&stage, "required", "CN=ops"));
    until("it is an admin again", async || who(&admin).await.is_ok()).await;
    calls(&keeper).await.unwrap();
}

#[tokio::test]
async fn another_authority_is_believed_by_new_connections() {
    let (stage, before) = stage("required", "CN=ops");
    let server = stage.serve(None).await;
    let after = Authority::new();
    let ops = Says {
        common_name: "ops",
        ..Says::default()
    };
    let (old, new) = (before.holder(ops), after.holder(ops));
    let open = stage
        .authority
        .clients_as(server.address, Some(&old), Bearer::none());
    let open = open.await.unwrap();
    let told = |holder| who_is(&stage, &server, Some(holder), Bearer::none());
    assert!(who(&open).await.is_ok() && told(&new).await.is_err());
    let shown = value_of(&config_by(&open).await, "server.tls.client_ca").0;
    assert!(shown.starts_with("sha256:"), "{shown}");

    // Both, as it is done where nobody is to be refused; then the new one alone.
    stage.write("clients.crt", &format!("{}{}", before.pem, after.pem));
    until("the new one is believed", async || told(&new).await.is_ok()).await;
    assert!(told(&old).await.is_ok());
    stage.write("clients.crt", &after.pem);
    until("the old one is not", async || told(&old).await.is_err()).await;
    assert!(told(&new).await.is_ok());
    // The connection that was open goes on.
    let config = config_by(&open).await;
    let reload = config.last_reload.unwrap();
    assert_eq!(reload.changes[0].path, "server.tls.client_ca");
    assert_ne!(reload.changes[0].new, shown);

    // A file that makes no sense changes nothing.
    stage.write("clients.crt", "no certificate");
    until("it is told", async || {
        let reload = config_by(&open).await.last_reload.unwrap();
        reload.outcome() == ReloadOutcome::Rejected
            && reload.problems[0].path == "server.tls.client_ca_file"
    })
    .await;
    assert!(told(&new).await.is_ok());
}

#[tokio::test]
async fn until_when_the_certificate_is_good_can_be_read() {
    let stage = Stage::new();
    let server = stage.serve(None).await;
    // Those of rcgen are good until the year 4096.
    let first = server.tls.certificate_expiry_s().unwrap();
    assert!(first > 60_000_000_000, "{first}");
    let short = Arc::new(stage.authority.holder(Says {
        dns: &["localhost"],
        expired: true,
        ..Says::default()
    }));
    stage.write("server.key", &short.key_pem);
    stage.write("server.crt", &short.pem);
    // It is the operator's to say; what is shown is told as it is.
    until("it is noticed", async || {
        server.tls.certificate_expiry_s() == Some(1_609_459_200)
    })
    .await;
    let told = |server: &Server| {
        let text = server.probe("/metrics").1;
        let name = "riptide_tls_certificate_expiry_timestamp_seconds ";
        let told = text.lines().find_map(|line| line.strip_prefix(name));
        told.map(|told| told.parse::<f64>().unwrap())
    };
    assert_eq!(told(&server), Some(1_609_459_200.0));
    let none = Kind::Embedded.start().await;
    assert_eq!(none.tls.certificate_expiry_s(), None);
    assert_eq!(told(&none), None);
    tokio::time::timeout(Duration::from_secs(20), none.stop())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_does_not_fit_together_is_told_by_its_setting() {
    let stage = Stage::new();
    stage.write("clients.crt", &Authority::new().pem);
    let file = stage.path("clients.crt");
    let problems = |tls: &str| {
        stage.set("", tls);
        let file = Some(stage.path("persistence.yml").into());
        let mut sources = riptide_persistence::config::Sources::process(file, Vec::new());
        sources.env.clear();
        match riptide_persistence::config::load(&sources) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .0
                .into_iter()
                .map(|problem| (problem.path, problem.message))
                .collect(),
        }
    };
    assert_eq!(
        problems(&format!(
            ", client_auth: optional, client_ca_file: {file}, admins: ~"
        )),
        []
    );
    for (tls, path, says) in [
        (
            ", client_auth: required".to_owned(),
            "server.tls.client_ca_file",
            "is needed because server.tls.client_auth is set",
        ),
        (
            format!(", client_ca_file: {file}"),
            "server.tls.client_auth",
            "is off, but server.tls.client_ca_file is set",
        ),
        (
            ", admins: ops".to_owned(),
            "server.tls.admins",
            "is of no use while server.tls.client_auth is off",
        ),
        (
            format!(", client_auth: on, client_ca_file: {file}"),
            "server.tls.client_auth",
            "is not one of: off, optional, required",
        ),
        (
            format!(
                ", client_auth: optional, client_ca_file: {}",
                stage.path("server.key")
            ),
            "server.tls.client_ca_file",
            "holds no certificate in PEM",
        ),
        (
            format!(", client_auth: optional, client_ca_file: {file}, admins: '*.example.org'"),
            "server.tls.admins",
            "allowed are a URI",
        ),
    ] {
        let found = problems(&tls);
        assert_eq!(found.len(), 1, "{tls}: {found:?}");
        assert_eq!(found[0].0, path, "{found:?}");
        assert!(found[0].1.contains(says), "{found:?}");
    }
}
