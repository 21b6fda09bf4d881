//! TLS of the listener: who is answered, which certificate is shown, and what becomes
//! of connections when it is exchanged. It does not know what is called.

mod admin;
mod client;
mod exposure;
mod redis;
mod traces;

use std::{fs, path::Path, time::Duration};

use riptide_persistence::proto::v1::{GetServerInfoRequest, ReloadOutcome};
use rstest::rstest;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    authority::Authority,
    redis::Redis,
    rpc::configuration::{config_of, environment, launch, until, value_of},
    server::{ADMIN_KEY, Bearer, Clients, Kind, Server},
};

/// A folder with a file of settings, a certificate and its key.
struct Stage {
    folder: TempDir,
    authority: Authority,
}

impl Stage {
    fn new() -> Self {
        Self::with("", "")
    }

    /// With more settings of the server, and of its TLS; both begin with a comma.
    fn with(server: &str, tls: &str) -> Self {
        let stage = Self {
            folder: TempDir::new().unwrap(),
            authority: Authority::new(),
        };
        stage.write("server.crt", &stage.renew());
        stage.set(server, tls);
        stage
    }

    /// Writes the file of settings.
    fn set(&self, server: &str, tls: &str) {
        let [certificate, key] = ["server.crt", "server.key"].map(|name| self.path(name));
        let text = format!(
            "persistence: {{server: {{tls: {{cert_file: {certificate}, key_file: {key}{tls}}}{server}}}}}"
        );
        self.write("persistence.yml", &text);
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// A new certificate; its key takes the other one's place.
    fn renew(&self) -> String {
        let (certificate, key) = self.authority.sign();
        self.write("server.key", &key);
        certificate
    }

    async fn serve(&self, redis: Option<&Redis>) -> Server {
        let file = Path::new(&self.path("persistence.yml")).to_owned();
        let server = launch(&file, environment(self.folder.path(), redis));
        until("it serves", async || server.probe("/readyz").0 == 200).await;
        server
    }
}

async fn calls(clients: &Clients) -> Result<(), tonic::Status> {
    let mut state = clients.state.clone();
    let info = state.get_server_info(GetServerInfoRequest {}).await;
    info.map(|_| ())
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn calls_are_made_in_tls_and_in_nothing_else(#[case] kind: Kind) {
    let stage = Stage::new();
    let redis = (kind == Kind::Redis).then(Redis::start);
    let server = stage.serve(redis.as_ref()).await;
    let clients = stage.authority.clients(server.address).await;
    calls(&clients).await.unwrap();
    // More than a turn sends at once, both ways.
    let tenant = riptide_persistence::proto::v1::CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    clients.tenant.clone().create_tenant(tenant).await.unwrap();
    let value: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let set = riptide_persistence::proto::v1::SetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        value: value.clone().into(),
        ..Default::default()
    };
    clients.cache.clone().set(set).await.unwrap();
    let get = riptide_persistence::proto::v1::GetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        ..Default::default()
    };
    for _ in 0..3 {
        let got = clients.cache.clone().get(get.clone()).await.unwrap();
        assert!(got.into_inner().entry.unwrap().value == value);
    }

    // In the clear, by one who trusts others, and for another protocol.
    assert!(calls(&server.admin()).await.is_err());
    let stranger = Authority::new().shake(server.address, "h2").await;
    let refused = stranger.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    assert!(
        stage
            .authority
            .shake(server.address, "http/1.1")
            .await
            .is_err()
    );
    calls(&clients).await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on() {
    let stage = Stage::new();
    let server = stage.serve(None).await;
    let address = server.address;
    let before = stage.authority.clients(address).await;
    let first = stage.authority.shown(address).await;
    let named = value_of_certificate(&before).await;
    assert!(named.starts_with("sha256:"), "{named}");

    // The key is exchanged first, and belongs to no certificate for a while: that is
    // told, and nothing changes.
    let certificate = stage.renew();
    until("it is told", async || {
        let reload = config_by(&before).await.last_reload;
        reload.is_some_and(|reload| reload.outcome() == ReloadOutcome::Rejected)
    })
    .await;
    let reload = config_by(&before).await.last_reload.unwrap();
    assert_eq!(reload.problems[0].path, "server.tls.key_file");
    assert!(reload.problems[0].description.contains("is not the key"));
    assert_eq!(stage.authority.shown(address).await, first);

    stage.write("server.crt", &certificate);
    until("the new one is shown", async || {
        stage.authority.shown(address).await != first
    })
    .await;
    calls(&before).await.unwrap();
    calls(&stage.authority.clients(address).await)
        .await
        .unwrap();
    let config = config_by(&before).await;
    let reload = config.last_reload.unwrap();
    let paths: Vec<_> = reload.changes.iter().map(|c| c.path.as_str()).collect();
    assert_eq!(paths, ["server.tls.certificate", "server.tls.key"]);
    assert_eq!(reload.changes[0].old, named);
    assert_ne!(reload.changes[0].new, named);
    assert_eq!(reload.changes[1].new, "(redacted)");
    assert!(!format!("{reload:?}").contains("PRIVATE"));

    for (text, says) in [
        ("", "empty"),
        ("no PEM at all", "holds no certificate"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "holds no certificate first",
        ),
        (
            "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n",
            "not in PEM",
        ),
    ] {
        stage.write("server.crt", text);
        until(&format!("{says} is told"), async || {
            let reload = config_by(&before).await.last_reload.unwrap();
            reload.problems.iter().any(|problem| {
                problem.path == "server.tls.cert_file" && problem.description.contains(says)
            })
        })
        .await;
        calls(&stage.authority.clients(address).await)
            .await
            .unwrap();
    }
}

async fn config_by(clients: &Clients) -> riptide_persistence::proto::v1::GetConfigResponse {
    let request = riptide_persistence::proto::v1::GetConfigRequest {};
    clients
        .state
        .clone()
        .get_config(request)
        .await
        .unwrap()
        .into_inner()
}

async fn value_of_certificate(clients: &Clients) -> String {
    value_of(&config_by(clients).await, "server.tls.certificate").0
}

#[tokio::test]
async fn tls_can_begin_and_end_while_the_server_runs() {
    let stage = Stage::new();
    let tls = fs::read_to_string(stage.path("persistence.yml")).unwrap();
    stage.write("persistence.yml", "persistence:\n");
    let file = Path::new(&stage.path("persistence.yml")).to_owned();
    let server = launch(&file, environment(stage.folder.path(), None));
    server.serves(true).await;
    stage.write("persistence.yml", &tls);
    until("it speaks TLS", async || {
        stage.authority.shake(server.address, "h2").await.is_ok()
    })
    .await;
    // A connection that was open before goes on.
    let config = config_of(&server).await;
    assert_eq!(config.version, 2);
    calls(&stage.authority.clients(server.address).await)
        .await
        .unwrap();
    stage.write("persistence.yml", "persistence:\n");
    until("it speaks in the clear", async || {
        let clients = Clients::new(server.connect(), Bearer::new(ADMIN_KEY));
        calls(&clients).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn who_does_not_finish_a_handshake_is_let_go() {
    let stage = Stage::new();
    let text = fs::read_to_string(stage.path("persistence.yml")).unwrap();
    stage.write(
        "persistence.yml",
        &text.replace("{tls:", "{handshake_timeout: 300ms, tls:"),
    );
    let server = stage.serve(None).await;
    // The first bytes of a handshake, and then nothing.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    silent.write_all(&[22, 3, 1, 0, 200, 1]).await.unwrap();
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), silent.read_to_end(&mut bytes)).await;
    let _ = ended.expect("it is still open");
    // After it, too: TLS stands, and nobody speaks.
    let mut shaken = stage.authority.shake(server.address, "h2").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), shaken.read_to_end(&mut bytes)).await;
    let _ = ended.expect("it is still open");
    calls(&stage.authority.clients(server.address).await)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_start_without_a_sound_certificate_is_refused_by_its_setting() {
    let stage = Stage::new();
    let load = |env: &[(&str, String)]| {
        let mut sources = riptide_persistence::config::Sources::process(None, Vec::new());
        let owned = env
            .iter()
            .map(|(name, value)| (name.to_string(), value.clone()));
        sources.env = owned.collect();
        riptide_persistence::config::load(&sources)
    };
    let (cert, key) = (
        "PERSISTENCE_SERVER__TLS__CERT_FILE",
        "PERSISTENCE_SERVER__TLS__KEY_FILE",
    );
    let [certificate, private] = ["server.crt", "server.key"].map(|name| stage.path(name));
    let everywhere = ("PERSISTENCE_SERVER__LISTEN", "0.0.0.0:0".to_owned());
    let loaded = load(&[
        (cert, certificate.clone()),
        (key, private.clone()),
        everywhere.clone(),
    ]);
    assert!(loaded.unwrap().config.server.tls.is_on());
    let problem = |env: &[(&str, String)]| {
        let problems = load(env).unwrap_err().0;
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].to_string()
    };
    let told = problem(&[(cert, certificate.clone())]);
    assert!(
        told.starts_with("server.tls.key_file (default): is needed"),
        "{told}"
    );
    let told = problem(&[(key, private.clone())]);
    assert!(
        told.starts_with("server.tls.cert_file (default): is needed"),
        "{told}"
    );
    let told = problem(&[(cert, certificate.clone()), (key, certificate.clone())]);
    assert!(told.contains("server.tls.key_file (env") && told.contains("holds no private key"));
    let told = problem(&[(cert, stage.path("none")), (key, private)]);
    assert!(
        told.contains("server.tls.cert_file (env") && told.contains("cannot be read"),
        "{told}"
    );
    let told = problem(&[everywhere]);
    assert!(told.contains("set server.tls"), "{told}");
}
