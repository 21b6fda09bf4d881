//! What a process writes to standard error of the calls it serves: one line each, whose
//! fields a machine can read, and only of those that are asked for. It does not know how
//! a line is made.

use std::{thread, time::Duration};

use futures::stream;
use riptide_persistence::proto::v1::{
    BatchSetRequest, CreateApiKeyRequest, CreateTenantRequest, GetRequest, SetEntry, SetRequest,
    WarmCacheRequest, WatchInvalidationsRequest,
};
use rstest::rstest;
use serde_json::Value;
use tonic::{Code, Request};

use super::client;
use crate::{
    cli::{Folder, Serving},
    redis::Redis,
    server::{ADMIN_KEY, Clients, Kind, empty_call, raw_call},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A folder whose server logs like this, and its Redis where it has one.
fn folder(kind: Kind, log: &str) -> (Folder, Option<Redis>) {
    let redis = (kind == Kind::Redis).then(Redis::start);
    let folder = Folder::new();
    write(&folder, redis.as_ref(), log);
    (folder, redis)
}

fn write(folder: &Folder, redis: Option<&Redis>, log: &str) {
    let store = match redis {
        Some(redis) => format!("redis: {{url: '{}'}}", redis.url()),
        None => "store: {ephemeral: true}".to_owned(),
    };
    let settings = format!(
        "persistence:\n  {store}\n  auth: {{admin_key: '{ADMIN_KEY}'}}\n  reload: {{watch_file: false}}\n  \
         server: {{max_in_flight: 2}}\n  log: {log}\n"
    );
    folder.write("persistence.yml", settings);
}

/// A message with an id, as part of a trace.
fn call<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-request-id", id.parse().unwrap());
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    metadata.insert("traceparent", parent.parse().unwrap());
    request
}

/// The lines that tell of the call with this id.
fn told(serving: &Serving<'_>, id: &str) -> Vec<Value> {
    let log = serving.log();
    // The last one may be on its way.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    lines
        .filter(|line| line["target"] == "access" && line["request_id"] == id)
        .collect()
}

/// The one line that tells of a call, once it is there.
fn line(serving: &Serving<'_>, id: &str) -> Value {
    for _ in 0..600 {
        match &*told(serving, id) {
            [] => thread::sleep(Duration::from_millis(20)),
            [line] => return line.clone(),
            more => panic!("more than one: {more:?}"),
        }
    }
    panic!("nothing of {id}: {}", serving.log());
}

async fn tenant(serving: &Serving<'_>) -> Clients {
    let admin = client(&serving.address, ADMIN_KEY);
    let request = CreateTenantRequest {
        tenant_id: "acme".into(),
        ..Default::default()
    };
    let created = admin.tenant.clone().create_tenant(request).await;
    client(&serving.address, &created.unwrap().into_inner().secret)
}

fn set(key: &str) -> SetRequest {
    SetRequest {
        key: key.into(),
        value: vec![7; 300].into(),
        ..Default::default()
    }
}

fn get() -> GetRequest {
    GetRequest {
        key: "k".into(),
        ..Default::default()
    }
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_leaves_one_line(#[case] kind: Kind) {
    let (folder, _redis) = folder(kind, "{access: all}");
    let mut serving = folder.serve(&[]);
    let mut acme = tenant(&serving).await;
    let is = |id: &str, method: &str, code: &str| {
        let line = line(&serving, id);
        let method = format!("riptide.persistence.v1.{method}");
        assert_eq!(
            (&line["method"], &line["code"]),
            (&method.into(), &code.into()),
            "{line}"
        );
        assert_eq!(
            (&line["trace_id"], &line["level"]),
            (&TRACE.into(), &"INFO".into()),
            "{line}"
        );
        let peer = line["peer"].as_str().unwrap_or_default();
        assert!(
            peer.starts_with("127.0.0.1:") && line["latency_us"].is_u64(),
            "{line}"
        );
        line
    };

    acme.cache.set(call("set", set("k"))).await.unwrap();
    let line = is("set", "CacheService/Set", "OK");
    assert_eq!(line["tenant_id"], "acme");
    assert!(
        line["key_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{line}"
    );
    let messages = |line: &Value| {
        (
            line["received_messages"].clone(),
            line["sent_messages"].clone(),
        )
    };
    assert_eq!(messages(&line), (1.into(), 1.into()));
    assert!(
        (300..400).contains(&line["received_bytes"].as_u64().unwrap()),
        "{line}"
    );
    acme.cache.get(call("get", get())).await.unwrap();
    let line = is("get", "CacheService/Get", "OK");
    assert!(
        (300..500).contains(&line["sent_bytes"].as_u64().unwrap()),
        "{line}"
    );
    assert_eq!(messages(&line), (1.into(), 1.into()));

    // By the framework, and streams in both directions.
    let batch = BatchSetRequest {
        entries: vec![SetEntry {
            key: "b".into(),
            value: vec![7; 300].into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    acme.cache.batch_set(call("batch", batch)).await.unwrap();
    let line = is("batch", "CacheService/BatchSet", "OK");
    assert!(
        (300..400).contains(&line["received_bytes"].as_u64().unwrap()),
        "{line}"
    );
    let chunk = WarmCacheRequest {
        keys: vec!["k".into()],
        ..Default::default()
    };
    let chunks = stream::iter(vec![chunk; 3]);
    acme.cache.warm_cache(call("warm", chunks)).await.unwrap();
    assert_eq!(
        messages(&is("warm", "CacheService/WarmCache", "OK")),
        (3.into(), 1.into())
    );
    let watch = WatchInvalidationsRequest::default();
    let watch = acme
        .cache
        .watch_invalidations(call("watch", watch))
        .await
        .unwrap();
    assert!(told(&serving, "watch").is_empty());
    drop(watch);
    is("watch", "CacheService/WatchInvalidations", "CANCELLED");

    // Whom an admin calls for is told too.
    let admin = client(&serving.address, ADMIN_KEY);
    let request = CreateApiKeyRequest {
        tenant_id: "acme".into(),
        scopes: vec!["cache.read".into()],
        ..Default::default()
    };
    let mut tenants = admin.tenant;
    tenants
        .create_api_key(call("admin", request))
        .await
        .unwrap();
    let line = is("admin", "TenantService/CreateApiKey", "OK");
    assert_eq!(
        (&line["tenant_id"], &line["key_id"]),
        (&"acme".into(), &"admin".into())
    );

    // What is refused, by whomever.
    let nobody = client(&serving.address, "rtp_no_such");
    nobody
        .cache
        .clone()
        .get(call("nobody", get()))
        .await
        .unwrap_err();
    let line = is("nobody", "CacheService/Get", "UNAUTHENTICATED");
    assert_eq!(line["reason"], "API_KEY_INVALID");
    assert_eq!(
        (&line["tenant_id"], &line["key_id"]),
        (&Value::Null, &Value::Null)
    );
    let path = "/riptide.persistence.v1.CacheService/Nope";
    raw_call::<()>(acme.keyed.clone(), path, call("unknown", ()))
        .await
        .unwrap_err();
    is("unknown", "CacheService/Nope", "UNIMPLEMENTED");
    let invalid = call("invalid", SetRequest::default());
    acme.cache.set(invalid).await.unwrap_err();
    assert_eq!(
        is("invalid", "CacheService/Set", "INVALID_ARGUMENT")["reason"],
        "VALIDATION_FAILED"
    );

    // Two streams take all the room there is.
    let held: Vec<_> = (0..2)
        .map(|_| {
            let mut acme = acme.clone();
            tokio::spawn(async move {
                // One that a moment's call took the place of tries again.
                while acme.cache.warm_cache(stream::pending()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let shed = loop {
        match acme.cache.get(call("shed", get())).await {
            Err(status) => break status,
            // Of these there may be as many as it takes.
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(shed.code(), Code::Unavailable);
    let shed = || {
        told(&serving, "shed")
            .into_iter()
            .find(|line| line["code"] != "OK")
    };
    while shed().is_none() {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(shed().unwrap()["reason"], "OVERLOADED");
    for held in held {
        held.abort();
    }

    // The last lines are written before it ends.
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    assert!(
        serving
            .log()
            .trim_end()
            .lines()
            .last()
            .unwrap()
            .contains("server ended")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_calls_is_set_while_it_runs() {
    let (folder, _) = folder(Kind::Embedded, "{access: errors}");
    let serving = folder.serve(&[]);
    let mut acme = tenant(&serving).await;
    acme.cache.set(set("k")).await.unwrap();
    let mut round = async |name: &str, well: bool, failed: bool| {
        let ids = [format!("{name}-well"), format!("{name}-failed")];
        acme.cache.get(call(&ids[0], get())).await.unwrap();
        acme.cache
            .get(call(&ids[1], GetRequest::default()))
            .await
            .unwrap_err();
        // The line of a stranger comes after theirs, where there is one.
        let last = format!("{name}-last");
        let nobody = client(&serving.address, "rtp_no_such").keyed;
        let path = "/riptide.persistence.v1.CacheService/Get";
        raw_call::<()>(nobody, path, call(&last, ()))
            .await
            .unwrap_err();
        if failed {
            line(&serving, &last);
        }
        let counts = ids.map(|id| told(&serving, &id).len());
        assert_eq!(counts, [usize::from(well), usize::from(failed)], "{name}");
    };
    let reload = |log: &str| {
        write(&folder, None, log);
        serving.run(&["state", "reload"]).ok();
    };
    round("errors", false, true).await;
    reload("{access: all}");
    round("all", true, true).await;
    reload("{access: 'off'}");
    round("off", false, false).await;
    // The filter has the last word.
    reload("{access: all, filter: 'info,access=off'}");
    round("filtered", false, false).await;
    reload("{access: all, filter: 'warn,access=info'}");
    round("named", true, true).await;

    // One in ten of those that go well.
    reload("{access: all, access_sample: 10}");
    for call_index in 0..400 {
        acme.cache
            .get(call(&format!("sampled-{call_index}"), get()))
            .await
            .unwrap();
    }
    acme.cache
        .get(call("sampled-failed", GetRequest::default()))
        .await
        .unwrap_err();
    line(&serving, "sampled-failed");
    let log = serving.log();
    let sampled = log
        .lines()
        .filter(|line| line.contains("\"sampled-"))
        .count();
    // On each core the tenth is told, counting from wherever it was.
    assert!((35..=45).contains(&sampled), "{sampled}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_as_text_tell_the_same() {
    let (folder, _) = folder(Kind::Embedded, "{access: all, format: text}");
    let serving = folder.serve(&[]);
    let acme = tenant(&serving).await;
    let answer = empty_call(
        acme.keyed.clone(),
        "/riptide.persistence.v1.CacheService/Set",
    )
    .await;
    answer.unwrap_err();
    let of_set = |line: &&str| {
        line.contains("access: call ended method=\"riptide.persistence.v1.CacheService/Set\"")
    };
    while !serving.log().lines().any(|line| of_set(&line)) {
        thread::sleep(Duration::from_millis(20));
    }
    let log = serving.log();
    let line = log.lines().find(of_set).unwrap();
    for part in [
        " INFO ",
        "code=\"INVALID_ARGUMENT\"",
        "reason=\"VALIDATION_FAILED\"",
        "tenant_id=\"acme\"",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(line.matches("request_id=").count(), 1, "{line}");
}
