//! Peers that do not keep to the protocol: they are refused or cut off, and
//! those who do are served.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use h2::client;
use http::{Request, Response, header};
use riptide_persistence::proto::v1::GetServerInfoRequest;
use tonic::Code;

use crate::server::{ADMIN_KEY, Backend, Kind, Server, fields, raw_call, reason};

const GET: &str = "/riptide.persistence.v1.CacheService/Get";

/// A GetRequest whose key need not be text.
#[derive(Clone, PartialEq, prost::Message)]
struct RawGet {
    #[prost(bytes, tag = "3")]
    key: Vec<u8>,
}

/// A BatchSetRequest whose keys need not be text.
#[derive(Clone, PartialEq, prost::Message)]
struct RawBatchSet {
    #[prost(message, repeated, tag = "3")]
    entries: Vec<RawSetEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RawSetEntry {
    #[prost(bytes, tag = "1")]
    key: Vec<u8>,
}

/// A GetRequest whose tenant_id is a number.
#[derive(Clone, PartialEq, prost::Message)]
struct WrongType {
    #[prost(int64, tag = "1")]
    tenant_id: i64,
}

#[tokio::test]
async fn a_message_that_cannot_be_read_is_refused_by_its_field() {
    let server = Server::start(Backend::Embedded).await;
    let tenant = server.tenant("acme").await.clients;
    let refused = raw_call(
        tenant.keyed.clone(),
        GET,
        RawGet {
            key: vec![0xff, 0xfe],
        },
    )
    .await;
    let batch = RawBatchSet {
        entries: vec![RawSetEntry {
            key: vec![0xc3, 0x28],
        }],
    };
    let path = "/riptide.persistence.v1.CacheService/BatchSet";
    let in_batch = raw_call(tenant.keyed.clone(), path, batch).await;
    let mistyped = raw_call(tenant.keyed.clone(), GET, WrongType { tenant_id: 7 }).await;
    for (answer, field) in [
        (refused, "key"),
        (in_batch, "entries.key"),
        (mistyped, "tenant_id"),
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(reason(&status), "VALIDATION_FAILED");
        assert_eq!(fields(&status), [field]);
    }
}

/// What a call gets that is sent byte by byte: its HTTP status, and the
/// `grpc-status` of its headers.
async fn bytes(server: &Server, request: Request<()>, body: Option<&'static [u8]>) -> (u16, i32) {
    let stream = tokio::net::TcpStream::connect(server.address)
        .await
        .unwrap();
    let (mut send, connection) = client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (answer, mut stream) = send.send_request(request, false).unwrap();
    if let Some(body) = body {
        stream.send_data(body.into(), true).unwrap();
    }
    let answer: Response<_> = answer.await.unwrap();
    let code = answer.headers().get("grpc-status");
    let code = code.map_or(-1, |code| code.to_str().unwrap().parse().unwrap());
    (answer.status().as_u16(), code)
}

fn call(path: &str) -> http::request::Builder {
    Request::post(format!("http://localhost{path}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN_KEY}"))
}

#[tokio::test]
async fn broken_frames_are_refused_and_the_next_call_is_served() {
    let server = Server::start(Backend::Embedded).await;
    let invalid = Code::InvalidArgument as i32;
    for body in [
        // Nothing, half a head, less than the head says, an unknown flag, a
        // length of 4 GiB, a compressed message of no known encoding.
        b"".as_slice(),
        b"\0\0",
        b"\0\0\0\0\x09abc",
        b"\x07\0\0\0\0",
        b"\0\xff\xff\xff\xff",
        b"\x01\0\0\0\x01a",
        b"\0\0\0\0\x03\xff\xff\xff",
    ] {
        let (status, code) = bytes(&server, call(GET).body(()).unwrap(), Some(body)).await;
        assert_eq!((status, code), (200, invalid), "{body:?}");
    }
    server
        .admin()
        .state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_no_grpc_is_answered_in_http() {
    let server = Server::start(Backend::Embedded).await;
    let json = Request::post("http://localhost/x").header(header::CONTENT_TYPE, "application/json");
    assert_eq!(
        bytes(&server, json.body(()).unwrap(), Some(b"{}")).await,
        (415, -1)
    );
    let get = Request::get("http://localhost/").body(()).unwrap();
    assert_eq!(bytes(&server, get, Some(b"")).await, (405, -1));
}

#[tokio::test]
async fn a_body_that_never_ends_meets_the_deadline() {
    let server = Kind::Embedded
        .start_with(|config| config.server.max_deadline = Duration::from_millis(100))
        .await;
    let (status, code) = bytes(&server, call(GET).body(()).unwrap(), None).await;
    assert_eq!((status, code), (200, Code::DeadlineExceeded as i32));
}

/// Says something to the port and reads until the server closes.
fn say(server: &Server, words: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    stream.write_all(words).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("the server does not close")
        }
        _ => answer,
    }
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http2_is_cut_off() {
    let server = Kind::Embedded
        .start_with(|config| config.server.handshake_timeout = Duration::from_millis(100))
        .await;
    // Silence, half a preface, HTTP/1, TLS.
    for words in [
        b"".as_slice(),
        b"PRI * HTTP",
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaa",
    ] {
        assert_eq!(say(&server, words), b"");
    }
    server
        .admin()
        .state
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_room_comes_back() {
    let server = Kind::Embedded
        .start_with(|config| config.server.max_connections = 2)
        .await;
    // The clients' own connection is the first.
    let second = TcpStream::connect(server.address).unwrap();
    loop {
        if say_nothing(&server) {
            break;
        }
    }
    drop(second);
    let again = server.connect();
    let mut clients = crate::server::Clients::new(again, crate::server::Bearer::new(ADMIN_KEY));
    for attempt in 0.. {
        match clients.state.get_server_info(GetServerInfoRequest {}).await {
            Ok(_) => break,
            Err(status) => assert!(attempt < 1000, "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a new connection is closed at once.
fn say_nothing(server: &Server) -> bool {
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}
