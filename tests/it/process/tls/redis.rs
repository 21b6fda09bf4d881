//! TLS to Redis: everything goes over it, and where it fails the reason is told. It does
//! not know what is kept there.

use std::{collections::BTreeMap, fs, path::Path};

use riptide_persistence::proto::v1::{CreateTenantRequest, GetRequest, SetRequest};
use tempfile::TempDir;

use crate::{
    authority::{Authority, Holder, Says},
    redis::{Options, Redis, end_with_us, eventually, free_port},
    rpc::configuration::{environment, launch, until},
    server::Server,
};

/// A folder with certificates of Redis' authority.
struct Stage {
    folder: TempDir,
    authority: Authority,
}

/// Which address a server is reached by.
const HERE: Says<'static> = Says {
    common_name: "redis",
    dns: &["127.0.0.1"],
    uri: &[],
    expired: false,
};

impl Stage {
    fn new() -> Self {
        let stage = Self {
            folder: TempDir::new().unwrap(),
            authority: Authority::new(),
        };
        stage.write("ca.crt", &stage.authority.pem);
        stage.write("believed.crt", &stage.authority.pem);
        stage.hold("redis", &stage.authority.holder(HERE));
        let client = stage.authority.holder(Says {
            common_name: "riptide",
            ..Says::default()
        });
        stage.hold("client", &client);
        stage
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn hold(&self, name: &str, holder: &Holder) {
        self.write(&format!("{name}.crt"), &holder.pem);
        self.write(&format!("{name}.key"), &holder.key_pem);
    }

    /// Arguments of a redis-server that speaks TLS on this port.
    fn arguments(&self, port: u16, auth_clients: &str) -> Vec<String> {
        [
            ("--tls-port", port.to_string()),
            ("--tls-cert-file", self.path("redis.crt")),
            ("--tls-key-file", self.path("redis.key")),
            ("--tls-ca-cert-file", self.path("believed.crt")),
            ("--tls-auth-clients", auth_clients.to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// A redis-server that speaks TLS on the second port.
    fn redis(&self, auth_clients: &str, options: Options) -> (Redis, u16) {
        let port = free_port();
        let arguments = self.arguments(port, auth_clients);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        (options.with(&arguments).start(), port)
    }

    /// The environment of a server on this Redis, that believes the authority and
    /// shows the client's certificate.
    fn environment(&self, url: &str) -> BTreeMap<String, String> {
        let mut env = environment(self.folder.path(), None);
        env.remove("PERSISTENCE_STORE__EPHEMERAL");
        env.insert("REDIS_URL".into(), url.into());
        for (name, file) in [
            ("CA_FILE", "ca.crt"),
            ("CERT_FILE", "client.crt"),
            ("KEY_FILE", "client.key"),
        ] {
            env.insert(format!("PERSISTENCE_REDIS__TLS__{name}"), self.path(file));
        }
        env
    }

    fn launch(&self, env: BTreeMap<String, String>) -> Server {
        self.write("persistence.yml", "persistence:\n");
        launch(Path::new(&self.path("persistence.yml")), env)
    }

    /// Servers on this Redis that are two replicas of one service, and serve.
    async fn replicas(&self, url: &str) -> [Server; 2] {
        let replicas = [(); 2].map(|()| self.launch(self.environment(url)));
        for replica in &replicas {
            replica.serves(true).await;
        }
        replicas
    }

    /// What is told of why a server with this environment does not serve.
    async fn trouble(&self, env: BTreeMap<String, String>, says: &str) {
        let server = self.launch(env);
        let mut told = String::new();
        until(says, async || {
            told = server.probe("/readyz").1;
            told.contains(says)
        })
        .await;
        assert!(told.contains("TLS with it failed"), "{told}");
    }
}

async fn set(server: &Server, value: &str) {
    let request = SetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        value: value.as_bytes().to_vec().into(),
        ..Default::default()
    };
    server.admin().cache.set(request).await.unwrap();
}

async fn get(server: &Server) -> String {
    let request = GetRequest {
        tenant_id: "acme".into(),
        key: "k".into(),
        ..Default::default()
    };
    let answer = server.admin().cache.get(request).await.unwrap();
    let entry = answer.into_inner().entry;
    entry.map_or_else(String::new, |entry| {
        String::from_utf8(entry.value.to_vec()).unwrap()
    })
}

/// Two replicas do what needs every kind of connection: commits, reads near that are
/// told of changes, the change feed.
async fn works([one, two]: &[Server; 2]) {
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    one.admin().tenant.create_tenant(request).await.unwrap();
    for value in ["one", "two", "three"] {
        set(one, value).await;
        // Read near, by the replica that is told of the next change.
        until("it is read near", async || {
            let before = two.calls();
            let read = get(two).await;
            read == value && two.calls() == before
        })
        .await;
    }
}

/// Each connection but this one's own came in on the port of TLS.
fn only_over_tls(redis: &Redis, port: u16) {
    let clients = redis.cli(&["client", "list"]);
    let others: Vec<_> = clients
        .lines()
        .filter(|client| !client.contains("cmd=client|list"))
        .collect();
    let at = format!("laddr=127.0.0.1:{port} ");
    assert!(others.len() >= 4, "{clients}");
    for client in &others {
        assert!(client.contains(&at), "{client}");
    }
    let tracked = others.iter().filter(|client| {
        let flags = client
            .split(' ')
            .find_map(|field| field.strip_prefix("flags="));
        flags.is_some_and(|flags| flags.contains('t'))
    });
    assert!(tracked.count() >= 2, "{clients}");
    assert!(clients.contains("cmd=xread"), "{clients}");
}

#[tokio::test]
async fn every_connection_to_a_server_is_in_tls_and_shows_a_certificate() {
    let stage = Stage::new();
    let (redis, port) = stage.redis("yes", Options::new().password("secret"));
    let url = format!("rediss://:secret@127.0.0.1:{port}");
    let replicas = stage.replicas(&url).await;
    works(&replicas).await;
    only_over_tls(&redis, port);
}

#[tokio::test]
async fn a_cluster_is_reached_in_tls() {
    let stage = Stage::new();
    let bus = free_port().to_string();
    let node = Options::new()
        .with(&["--cluster-enabled", "yes", "--cluster-port", &bus])
        .with(&["--cluster-announce-ip", "127.0.0.1", "--tls-cluster", "yes"]);
    let (redis, port) = stage.redis("yes", node);
    assert_eq!(redis.cli(&["cluster", "addslotsrange", "0", "16383"]), "OK");
    eventually("the cluster is whole", || {
        redis.cli(&["cluster", "info"]).contains("cluster_state:ok")
    });
    let url = format!("rediss-cluster://127.0.0.1:{port}");
    let replicas = stage.replicas(&url).await;
    works(&replicas).await;
    only_over_tls(&redis, port);
}

#[tokio::test]
async fn a_server_that_sentinel_names_is_reached_in_tls() {
    let stage = Stage::new();
    let (redis, port) = stage.redis("yes", Options::new());
    let folder = stage.folder.path().join("sentinel");
    fs::create_dir(&folder).unwrap();
    end_with_us(&folder);
    let file = folder.join("sentinel.conf");
    let watch = format!("sentinel monitor main 127.0.0.1 {port} 1\n");
    fs::write(&file, watch).unwrap();
    let (plain, in_tls) = (free_port(), free_port());
    let mut arguments = vec!["--sentinel".to_owned()];
    arguments.extend(stage.arguments(in_tls, "yes"));
    arguments.extend(["--tls-replication", "yes"].map(str::to_owned));
    let first = [file.to_str().unwrap()];
    let mut sentinel = crate::redis::spawn(&folder, plain, &arguments, &first);
    assert!(crate::redis::answers(&mut sentinel, plain));
    let url = format!("rediss-sentinel://127.0.0.1:{in_tls}?sentinelServiceName=main");
    let replicas = stage.replicas(&url).await;
    works(&replicas).await;
    // Its own connections are there too.
    let clients = redis.cli(&["client", "list"]);
    let at = format!("laddr=127.0.0.1:{port} ");
    let in_clear = clients
        .lines()
        .filter(|client| !client.contains(&at) && !client.contains("cmd=client|list"));
    assert_eq!(in_clear.count(), 0, "{clients}");
    sentinel.kill().unwrap();
    sentinel.wait().unwrap();
}

#[tokio::test]
async fn why_a_handshake_fails_is_told() {
    let stage = Stage::new();
    let (redis, port) = stage.redis("yes", Options::new());
    let url = format!("rediss://127.0.0.1:{port}");
    let with = |changes: &[(&str, Option<String>)]| {
        let mut env = stage.environment(&url);
        for (name, value) in changes {
            let name = format!("PERSISTENCE_REDIS__TLS__{name}");
            match value {
                Some(value) => env.insert(name, value.clone()),
                None => env.remove(&name),
            };
        }
        env
    };
    // Signed by another, and by none that this machine trusts.
    stage.write("other.crt", &Authority::new().pem);
    let other = Some(stage.path("other.crt"));
    stage
        .trouble(with(&[("CA_FILE", other)]), "its certificate is unknown")
        .await;
    stage
        .trouble(with(&[("CA_FILE", None)]), "redis.tls.ca_file")
        .await;
    // Nothing shown, and what the server does not take.
    stage
        .trouble(
            with(&[("CERT_FILE", None), ("KEY_FILE", None)]),
            "it asks for a certificate: set redis.tls.cert_file",
        )
        .await;
    let foreign = Authority::new().holder(HERE);
    stage.hold("foreign", &foreign);
    stage
        .trouble(
            with(&[
                ("CERT_FILE", Some(stage.path("foreign.crt"))),
                ("KEY_FILE", Some(stage.path("foreign.key"))),
            ]),
            "does not accept the certificate of redis.tls.cert_file",
        )
        .await;
    drop(redis);

    // For another name, and over.
    for (says, told) in [
        (
            Says {
                dns: &["127.0.0.2", "localhost"],
                ..HERE
            },
            "is for another name",
        ),
        (
            Says {
                expired: true,
                ..HERE
            },
            "has expired",
        ),
    ] {
        stage.hold("redis", &stage.authority.holder(says));
        let (redis, port) = stage.redis("no", Options::new());
        let env = stage.environment(&format!("rediss://127.0.0.1:{port}"));
        stage.trouble(env, told).await;
        drop(redis);
    }
}

#[tokio::test]
async fn certificates_are_exchanged_while_it_runs() {
    let stage = Stage::new();
    let (mut redis, port) = stage.redis("yes", Options::new());
    let url = format!("rediss://127.0.0.1:{port}");
    let replicas = stage.replicas(&url).await;
    works(&replicas).await;
    // Redis comes back with a certificate of another authority, and believes no other.
    let after = Authority::new();
    stage.hold("redis", &after.holder(HERE));
    stage.write("believed.crt", &after.pem);
    redis.restart();
    let [server, _] = &replicas;
    until("it is not believed", async || {
        server
            .probe("/readyz")
            .1
            .contains("its certificate is unknown")
    })
    .await;
    stage.write("ca.crt", &after.pem);
    until("it does not believe", async || {
        let told = server.probe("/readyz").1;
        told.contains("does not accept the certificate of redis.tls.cert_file")
    })
    .await;
    stage.hold("client", &after.holder(HERE));
    for server in &replicas {
        server.serves(true).await;
    }
}

#[test]
fn files_that_make_no_sense_are_told_by_their_setting() {
    let stage = Stage::new();
    let url = "rediss://127.0.0.1:1";
    let problem = |url: &str, changes: &[(&str, &str)]| {
        let mut env = stage.environment(url);
        for (name, file) in changes {
            let value = match file.is_empty() {
                true => String::new(),
                false => stage.path(file),
            };
            env.insert(format!("PERSISTENCE_REDIS__TLS__{name}"), value);
        }
        let mut sources = riptide_persistence::config::Sources::process(None, Vec::new());
        sources.env = env;
        match riptide_persistence::config::load(&sources) {
            Ok(loaded) => {
                let shown = loaded.settings.iter().find(|s| s.path == "redis.tls.key");
                assert_eq!(shown.unwrap().value, "(redacted)");
                Vec::new()
            }
            Err(problems) => problems.0,
        }
    };
    assert_eq!(problem(url, &[]), []);
    for (changes, path, says) in [
        (
            &[("CA_FILE", "none")],
            "redis.tls.ca_file",
            "cannot be read",
        ),
        (
            &[("CA_FILE", "client.key")],
            "redis.tls.ca_file",
            "holds no certificate",
        ),
        (
            &[("KEY_FILE", "redis.key")],
            "redis.tls.key_file",
            "is not the key of the certificate in redis.tls.cert_file",
        ),
        (
            &[("KEY_FILE", "")],
            "redis.tls.key_file",
            "is needed beside redis.tls.cert_file",
        ),
    ] {
        let found = problem(url, changes);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, path);
        assert!(found[0].message.contains(says), "{found:?}");
    }
    let found = problem("redis://127.0.0.1:1", &[]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].message.contains("rediss://"), "{found:?}");
}
