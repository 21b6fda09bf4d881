//! TLS of the admin listener: who asks it in TLS is answered, and nobody else, and
//! that it can begin and end. It does not know what is asked there.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stage;
use crate::{
    authority::{Authority, shake},
    rpc::configuration::{environment, launch, until},
    server::Server,
};

/// What is answered to a probe in TLS.
async fn probe(stage: &Stage, server: &Server) -> std::io::Result<String> {
    let config = stage.authority.client("http/1.1", None);
    let mut stream = shake(config, server.admin_address).await?;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn probes_are_answered_in_tls_where_it_is_asked_for() {
    let stage = Stage::new();
    // Clients are asked for certificates where calls are made, but not here.
    let of_clients = Authority::new();
    stage.write("clients.crt", &of_clients.pem);
    let file = stage.path("clients.crt");
    let asking = format!(", client_ca_file: {file}, client_auth: required");
    stage.set(", admin_tls: true", &asking);
    let server = launch(
        std::path::Path::new(&stage.path("persistence.yml")),
        environment(stage.folder.path(), None),
    );
    until("it is answered", async || {
        let told = probe(&stage, &server).await;
        told.is_ok_and(|told| told.starts_with("HTTP/1.1 200") && told.ends_with("ok\n"))
    })
    .await;
    // In the clear, nothing is said but that it is wrong.
    let mut plain = tokio::net::TcpStream::connect(server.admin_address)
        .await
        .unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"));
    assert_eq!(server.tls.handshake_failures(), 1);

    stage.set("", &asking);
    until("it speaks in the clear", async || {
        probe(&stage, &server).await.is_err() && server.probe("/healthz").0 == 200
    })
    .await;
}
