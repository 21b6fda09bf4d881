//! What is refused and what is asked for beyond loopback: TLS or a word of the
//! operator's, and a key in any case. It does not know how either works.

use riptide_persistence::{
    config::{self, Sources},
    proto::v1::GetServerInfoRequest,
};
use rstest::rstest;

use super::Stage;
use crate::{
    rpc::configuration::{environment, launch, until},
    server::{ADMIN_KEY, Backend, Bearer, Clients, Server, reason},
};

fn load(env: &[(&str, &str)]) -> Result<config::Loaded, config::Problems> {
    let mut sources = Sources::process(None, Vec::new());
    let owned = env
        .iter()
        .map(|(name, value)| (format!("PERSISTENCE_SERVER__{name}"), value.to_string()));
    sources.env = owned.collect();
    config::load(&sources)
}

#[rstest]
#[case::all_addresses("0.0.0.0:0")]
#[case::all_of_ipv6("[::]:0")]
#[case::an_address("192.0.2.1:7000")]
#[case::an_address_of_ipv6("[2001:db8::1]:7000")]
#[case::loopback_in_disguise("[::ffff:127.0.0.1]:7000")]
fn each_listener_is_refused_beyond_loopback_by_its_own_setting(#[case] address: &str) {
    let (all, admin) = (
        "ALLOW_PLAINTEXT_BEYOND_LOOPBACK",
        "ALLOW_PLAINTEXT_ADMIN_BEYOND_LOOPBACK",
    );
    let told = |env: &[(&str, &str)]| {
        let problems = load(env).unwrap_err().0;
        problems
            .into_iter()
            .map(|problem| {
                assert!(
                    problem
                        .message
                        .starts_with(&format!("{address} is beyond loopback"))
                );
                assert!(problem.message.contains("listen on 127.0.0.1 or [::1]"));
                (problem.path, problem.message)
            })
            .collect::<Vec<_>>()
    };
    let both = [("LISTEN", address), ("ADMIN_LISTEN", "0.0.0.0:9")];
    assert_eq!(load(&both).unwrap_err().0.len(), 2);
    let calls = told(&[("LISTEN", address)]);
    let [(path, says)] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(path, "server.listen");
    for name in [
        "server.tls.cert_file",
        "server.tls.key_file",
        "server.allow_plaintext_beyond_loopback to true",
    ] {
        assert!(says.contains(name), "{says}");
    }
    let probes = told(&[("ADMIN_LISTEN", address)]);
    let [(path, says)] = &probes[..] else {
        panic!("{probes:?}");
    };
    assert_eq!(path, "server.admin_listen");
    for name in [
        "server.admin_tls to true",
        "server.allow_plaintext_admin_beyond_loopback",
        "server.allow_plaintext_beyond_loopback",
    ] {
        assert!(says.contains(name), "{says}");
    }
    // What is allowed for probes alone is not allowed for calls.
    assert!(load(&[("ADMIN_LISTEN", address), (admin, "true")]).is_ok());
    assert_eq!(told(&[("LISTEN", address), (admin, "true")]).len(), 1);
    for listen in ["LISTEN", "ADMIN_LISTEN"] {
        assert!(load(&[(listen, address), (all, "true")]).is_ok());
    }
}

#[rstest]
#[case("127.0.0.1:0")]
#[case("127.8.9.10:0")]
#[case("[::1]:0")]
fn loopback_needs_nothing(#[case] address: &str) {
    assert!(load(&[("LISTEN", address), ("ADMIN_LISTEN", address)]).is_ok());
}

#[test]
fn tls_opens_the_listener_it_protects() {
    let stage = Stage::new();
    let [certificate, key] = ["server.crt", "server.key"].map(|name| stage.path(name));
    let tls = [("TLS__CERT_FILE", &*certificate), ("TLS__KEY_FILE", &*key)];
    let with = |more: &[(&str, &str)]| load(&[&tls, more].concat());
    assert!(with(&[("LISTEN", "[::]:0")]).is_ok());
    let problems = with(&[("ADMIN_LISTEN", "[::]:0")]).unwrap_err().0;
    assert_eq!(problems[0].path, "server.admin_listen");
    assert!(with(&[("ADMIN_LISTEN", "[::]:0"), ("ADMIN_TLS", "on")]).is_ok());
    // Without a certificate there is none of it.
    let problems = load(&[("ADMIN_LISTEN", "[::]:0"), ("ADMIN_TLS", "on")]);
    let problems = problems.unwrap_err().0;
    assert_eq!(problems[0].path, "server.admin_tls");
    assert!(problems[0].message.contains("server.tls.cert_file"));
}

#[test]
fn a_name_is_no_address_to_listen_on() {
    for (name, path) in [
        ("LISTEN", "server.listen"),
        ("ADMIN_LISTEN", "server.admin_listen"),
    ] {
        let problems = load(&[(name, "localhost:50051")]).unwrap_err().0;
        assert_eq!((problems.len(), &*problems[0].path), (1, path));
        let says = &problems[0].message;
        assert!(
            says.contains(
                "\"localhost:50051\" is not an IP address and a port, such as 127.0.0.1:50051"
            ),
            "{says}"
        );
    }
}

#[tokio::test]
async fn nothing_is_bound_where_a_listener_is_refused() {
    type Change = fn(&mut config::Server);
    let changes: [(&str, Change); 2] = [
        ("server.listen", |server| {
            server.listen = "0.0.0.0:0".parse().unwrap();
        }),
        ("server.admin_listen", |server| {
            server.admin_listen = "[::]:0".parse().unwrap();
        }),
    ];
    for (setting, change) in changes {
        let launched = Server::launch(Backend::Embedded, |config| change(&mut config.server));
        let Err(error) = launched else {
            panic!("{setting} listens everywhere");
        };
        assert!(error.to_string().starts_with(setting), "{error}");
    }
}

/// There is no server without keys: where none is set, one is made, and an empty one is
/// none. So whoever reaches it, by TLS or in the clear, needs one.
#[rstest]
#[case::none_is_set(None)]
#[case::an_empty_one_is_set(Some(""))]
#[tokio::test]
async fn whoever_reaches_it_from_anywhere_needs_a_key(
    #[case] admin_key: Option<&str>,
    #[values(true, false)] in_tls: bool,
) {
    let stage = Stage::new();
    if !in_tls {
        stage.write(
            "persistence.yml",
            "persistence: {server: {allow_plaintext_beyond_loopback: true}}",
        );
    }
    let mut env = environment(stage.folder.path(), None);
    env.insert("PERSISTENCE_SERVER__LISTEN".into(), "0.0.0.0:0".into());
    env.remove("PERSISTENCE_AUTH__ADMIN_KEY");
    if let Some(key) = admin_key {
        env.insert("PERSISTENCE_AUTH__ADMIN_KEY".into(), key.into());
    }
    let file = std::path::PathBuf::from(stage.path("persistence.yml"));
    let server = launch(&file, env);
    until("it serves", async || server.probe("/readyz").0 == 200).await;
    let address = ([127, 0, 0, 1], server.address.port()).into();
    let clients = async |bearer: Bearer| match in_tls {
        true => {
            let clients = stage.authority.clients_as(address, None, bearer);
            clients.await.unwrap()
        }
        false => {
            let endpoint = format!("http://{address}");
            let endpoint = tonic::transport::Endpoint::from_shared(endpoint).unwrap();
            Clients::new(endpoint.connect_lazy(), bearer)
        }
    };
    for (bearer, told) in [
        (Bearer::none(), "API_KEY_MISSING"),
        (Bearer::new(""), "API_KEY_INVALID"),
        (Bearer::new(ADMIN_KEY), "API_KEY_INVALID"),
    ] {
        let mut state = clients(bearer).await.state;
        let refused = state.get_server_info(GetServerInfoRequest {}).await;
        assert_eq!(reason(&refused.unwrap_err()), told);
    }
    let made = std::fs::read_to_string(stage.path("store/admin.key")).unwrap();
    let mut state = clients(Bearer::new(made.trim())).await.state;
    state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
}
