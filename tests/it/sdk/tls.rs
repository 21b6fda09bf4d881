//! The client in Rust over TLS: whom it trusts, and who it says it is. It does not know
//! what a certificate allows.

use std::{fs, path::Path, sync::Arc};

use riptide_persistence::{
    client::{Client, Unconnected},
    proto::v1::WhoAmIRequest,
};
use rstest::rstest;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::client::{get, tenant};
use crate::server::{ADMIN_KEY, Kind};

/// Writes a root, and certificates of it for a server and a client.
fn certificates(folder: &Path) {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(authority, authority_key);
    fs::write(folder.join("ca.pem"), root.pem()).unwrap();
    for (name, subject) in [("server", "127.0.0.1"), ("client", "client.example")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![subject.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_server_is_reached_by_who_trusts_it(#[case] kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    // The tests' server is in the clear; one that is not stands before it.
    let server = kind.start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    let acceptor = TlsAcceptor::from(Arc::new(serving(folder.path())));
    let shown = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (inner, seen) = (server.address, shown.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let shown = stream.get_ref().1.peer_certificates().map(<[_]>::len);
                seen.lock().unwrap().push(shown);
                let mut server = tokio::net::TcpStream::connect(inner).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });

    let trusting = Client::to(&address)
        .key(ADMIN_KEY)
        .ca_file(folder.path().join("ca.pem"));
    let anonymous = trusting.clone().connect().await.unwrap();
    let acme = tenant(&anonymous, "acme").await;
    assert!(acme.call(get("k")).await.unwrap().entry.is_none());
    let named = trusting.clone().identity(
        folder.path().join("client.crt"),
        folder.path().join("client.key"),
    );
    let named = named.connect_lazily().unwrap();
    assert!(named.call(WhoAmIRequest {}).await.unwrap().admin);
    assert_eq!(*shown.lock().unwrap(), [None, Some(1)]);

    // Nobody else's word is taken for it, and another's key is not this certificate's.
    let distrusting = Client::to(&address).key(ADMIN_KEY).connect().await;
    match distrusting.unwrap_err() {
        Unconnected::Unreachable { cause, .. } => {
            assert!(cause.contains("UnknownIssuer"), "{cause}");
        }
        other => panic!("{other}"),
    }
    let mixed = trusting.identity(
        folder.path().join("client.crt"),
        folder.path().join("server.key"),
    );
    match mixed.connect().await.unwrap_err() {
        Unconnected::Setting { name, .. } => assert_eq!(name, "key_file"),
        other => panic!("{other}"),
    }
}

/// A server that asks for a certificate, and lives without one.
fn serving(folder: &Path) -> ServerConfig {
    let chain = |name: &str| -> Vec<CertificateDer<'static>> {
        let path = folder.join(name);
        let found = CertificateDer::pem_file_iter(path).unwrap();
        found.collect::<Result<_, _>>().unwrap()
    };
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(chain("ca.pem"));
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain("server.crt"), key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
