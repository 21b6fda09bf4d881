//! What nobody may read: secrets, users' keys, values, tags and sessions' data are given to
//! every RPC, and looked for in all that leaves the process for an operator's eyes. It
//! does not know which line would hold them.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use data_encoding::BASE64;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use riptide_persistence::{
    grpc::METHODS,
    proto::v1::{
        BatchGetRequest, CreateSessionRequest, CreateTenantRequest, DESCRIPTORS, GetConfigRequest,
        GetRequest, InvalidateCacheRequest, SetRequest, Tags, invalidate_cache_request::Target,
    },
};
use rstest::rstest;
use tonic::{Request, Status};

use super::{client, collector::Collector};
use crate::{
    cli::{Folder, Serving},
    redis::Options,
    server::{Clients, Kind, raw_call},
};

const ADMIN: &str = "rta_canary-admin-key-0123456789";
const PASSWORD: &str = "canary-redis-password";
const MASTER: &[u8; 32] = b"canary-master-key-0123456789abcd";

/// Fields whose texts are nobody's business, whatever message they are in.
const PRIVATE: [&str; 13] = [
    "key",
    "keys",
    "prefix",
    "value",
    "tags",
    "data",
    "attributes",
    "user_id",
    "lease_token",
    "resume_token",
    "page_token",
    "key_prefixes",
    "except_session_id",
];

/// Any message, its fields encoded already.
#[derive(Clone, PartialEq)]
struct Canned(Vec<u8>);

/// Descriptors of messages by name.
struct Protos(BTreeMap<String, DescriptorProto>, FileDescriptorSet);

impl Protos {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let mut messages = BTreeMap::new();
        for file in &set.file {
            for message in &file.message_type {
                let name = format!(".{}.{}", file.package(), message.name());
                messages.insert(name.clone(), message.clone());
                for nested in &message.nested_type {
                    messages.insert(format!("{name}.{}", nested.name()), nested.clone());
                }
            }
        }
        Self(messages, set)
    }

    /// The message that an RPC takes.
    fn input(&self, service: &str, rpc: &str) -> String {
        let services = self.1.file.iter().flat_map(|file| &file.service);
        let mut found = services.filter(|found| found.name() == service);
        let methods = &found.next().unwrap().method;
        let method = methods.iter().find(|method| method.name() == rpc).unwrap();
        method.input_type().to_owned()
    }

    /// A message with a canary in each private field, and a tenant's name where one goes.
    fn canned(&self, name: &str, depth: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(message) = self.0.get(name) else {
            return bytes;
        };
        for field in &message.field {
            let text = match field.name() {
                "tenant_id" => "acme".to_owned(),
                name if PRIVATE.contains(&name) => format!("canary-{name}"),
                // Of a map, and of what a Struct holds.
                "string_value" => "canary-data".to_owned(),
                _ => String::new(),
            };
            let content = match field.r#type() {
                Type::String | Type::Bytes if !text.is_empty() => text.into_bytes(),
                Type::Message if depth < 5 => self.canned(field.type_name(), depth + 1),
                _ => continue,
            };
            if content.is_empty() {
                continue;
            }
            prost::encoding::encode_key(
                u32::try_from(field.number()).unwrap(),
                prost::encoding::WireType::LengthDelimited,
                &mut bytes,
            );
            prost::encoding::encode_varint(content.len() as u64, &mut bytes);
            bytes.extend(content);
        }
        bytes
    }
}

/// A message of fields that prost does not know keeps none of them, so what is canned goes
/// through a codec of its own.
#[derive(Default)]
struct Codec;

impl tonic::codec::Codec for Codec {
    type Encode = Canned;
    type Decode = Canned;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Codec {
    type Item = Canned;
    type Error = Status;

    fn encode(&mut self, item: Canned, to: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(to, &item.0);
        Ok(())
    }
}

impl tonic::codec::Decoder for Codec {
    type Item = Canned;
    type Error = Status;

    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Canned>, Status> {
        let mut bytes = vec![0; bytes::Buf::remaining(from)];
        bytes::Buf::copy_to_slice(from, &mut bytes);
        Ok(Some(Canned(bytes)))
    }
}

/// Calls an RPC with such a message; the error it ends with, if it does.
async fn call(clients: &Clients, path: &str, message: Vec<u8>) -> Option<Status> {
    let mut request = Request::new(Canned(message));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    // What goes on for ever does so for a moment.
    request.set_timeout(Duration::from_secs(1));
    let mut grpc = tonic::client::Grpc::new(clients.keyed.clone());
    grpc.ready().await.unwrap();
    let stream = grpc.server_streaming(request, path.parse().unwrap(), Codec);
    let mut stream = match stream.await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return Some(status),
    };
    // A watch ends with its time, or is left.
    let all = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3), all)
        .await
        .unwrap_or(None)
}

fn page(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Where probes are served, as the log has it.
fn admin_address(serving: &Serving<'_>) -> String {
    let log = serving.log();
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let line = lines
        .find(|line| line["message"] == "server listens")
        .unwrap();
    line["admin_address"].as_str().unwrap().to_owned()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_leaves_by_any_output(#[case] kind: Kind) {
    let collector = Collector::start().await;
    let redis = (kind == Kind::Redis).then(|| Options::new().password(PASSWORD).start());
    let store = match &redis {
        Some(redis) => format!("redis: {{url: '{}'}}", redis.url()),
        None => "store: {path: ./data}".to_owned(),
    };
    let folder = Folder::new();
    let master = BASE64.encode(MASTER);
    let settings = format!(
        "persistence:\n  {store}\n  auth: {{admin_key: '{ADMIN}'}}\n  encryption: {{master_keys: 'one:{master}'}}\n  \
         log: {{filter: trace, access: all}}\n  trace: {{otlp_endpoint: '{}', sample_ratio: 1}}\n",
        collector.url()
    );
    folder.write("persistence.yml", settings);
    let mut serving = folder.serve(&[]);
    let admin = client(&serving.address, ADMIN);

    // What goes well: an encrypted tenant with entries, and a session of one of its users.
    let create = CreateTenantRequest {
        tenant_id: "acme".into(),
        encryption_enabled: true,
        ..Default::default()
    };
    let created = admin
        .tenant
        .clone()
        .create_tenant(create)
        .await
        .unwrap()
        .into_inner();
    let mut acme = client(&serving.address, &created.secret);
    let set = SetRequest {
        key: "canary-key".into(),
        value: "canary-value".into(),
        tags: vec!["canary-tags".into()],
        ..Default::default()
    };
    acme.cache.set(set).await.unwrap();
    for _ in 0..3 {
        let get = GetRequest {
            key: "canary-key".into(),
            ..Default::default()
        };
        let entry = acme
            .cache
            .get(get)
            .await
            .unwrap()
            .into_inner()
            .entry
            .unwrap();
        assert_eq!(entry.value, "canary-value");
    }
    let get = BatchGetRequest {
        keys: vec!["canary-key".into(), "canary-keys".into()],
        ..Default::default()
    };
    acme.cache.batch_get(get).await.unwrap();
    let text = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.into())),
    };
    let session = CreateSessionRequest {
        user_id: "canary-user_id".into(),
        data: Some(prost_types::Struct {
            fields: [("canary-data".into(), text("canary-data"))].into(),
        }),
        attributes: [("a".into(), "canary-attributes".into())].into(),
        ..Default::default()
    };
    acme.state.create_session(session).await.unwrap();
    let tags = Tags {
        tags: vec!["canary-tags".into()],
    };
    let invalidate = InvalidateCacheRequest {
        target: Some(Target::Tags(tags)),
        ..Default::default()
    };
    acme.cache.invalidate_cache(invalidate).await.unwrap();

    // Every RPC there is, by an admin, by a tenant, and by one whose key is none. What ends
    // the tenant comes last, so that all others meet it.
    let protos = Protos::read();
    let ends = |name: &str| {
        [
            "DeleteTenant",
            "PurgeTenant",
            "SuspendTenant",
            "RevokeApiKey",
        ]
        .contains(&name)
    };
    let (last, first): (Vec<_>, Vec<_>) = METHODS.iter().partition(|method| ends(method.name));
    let stranger = client(&serving.address, "rtp_canaryid_canary-wrong-secret");
    let mut errors = Vec::new();
    let mut calls = tokio::task::JoinSet::new();
    for method in first {
        let message = protos.canned(&protos.input(method.service, method.name), 0);
        for clients in [&admin, &acme, &stranger] {
            let (clients, message) = (clients.clone(), message.clone());
            calls.spawn(async move { call(&clients, method.path, message).await });
        }
    }
    while let Some(ended) = calls.join_next().await {
        errors.extend(ended.unwrap());
    }
    for method in last {
        let message = protos.canned(&protos.input(method.service, method.name), 0);
        for clients in [&stranger, &acme, &admin] {
            errors.extend(call(clients, method.path, message.clone()).await);
        }
    }
    let config = admin
        .state
        .clone()
        .get_config(GetConfigRequest::default())
        .await
        .unwrap();
    let config = format!("{config:?}");
    let address = admin_address(&serving);
    let pages =
        ["/metrics", "/figures", "/healthz", "/readyz", "/"].map(|path| page(&address, path));
    // Something that the framework alone sees.
    let _ = raw_call::<()>(acme.keyed.clone(), "/another.Service/Nope?canary-value", ()).await;

    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0), "{}", serving.log());
    let log = serving.log();
    let (told, spans) = (
        serving.told().to_owned(),
        format!("{:?}", collector.requests()),
    );
    for method in METHODS {
        let name = method.path.trim_start_matches('/');
        for (what, text) in [("log", &log), ("spans", &spans)] {
            assert!(text.contains(name), "{name} is not in the {what}");
        }
    }
    // Lines of ours are there down to TRACE, so what is looked for would have been told.
    assert!(log.contains("\"level\":\"TRACE\""), "nothing of TRACE");

    // `rtp_<key id>_<secret>`: the id may be told, and the secret may have such signs itself.
    let secret = created.secret.splitn(3, '_').nth(2).unwrap();
    assert!(secret.len() > 30);
    let mut canaries = vec!["canary-".to_owned(), secret.to_owned(), master];
    canaries.push(
        format!("{:?}", MASTER.as_slice())
            .trim_matches(['[', ']'])
            .to_owned(),
    );
    let mut outputs = vec![
        ("log", log),
        ("stdout", told),
        ("spans", spans),
        ("GetConfig", config),
    ];
    outputs.extend(pages.map(|page| ("a page", page)));
    for (what, output) in &outputs {
        for canary in &canaries {
            if let Some(at) = output.find(canary.as_str()) {
                let from = output.floor_char_boundary(at.saturating_sub(300));
                let to = output.floor_char_boundary(at + 200);
                panic!("{canary} is in {what}: {}", &output[from..to]);
            }
        }
    }
    // A caller may be told of its own key or prefix, and of nothing else it sent.
    for status in &errors {
        let told = format!("{status:?}");
        for canary in [
            "canary-value",
            "canary-data",
            "canary-attributes",
            "canary-wrong",
            secret,
            PASSWORD,
            ADMIN,
        ] {
            assert!(!told.contains(canary), "{canary} is in {told}");
        }
    }
}
