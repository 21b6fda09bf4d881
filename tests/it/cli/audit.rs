//! `audit`: what a person reads of the log, and what of tampering with it is found. It
//! does not know how events come about.

use serde_json::Value;

use super::{Folder, Ran, Serving};
use crate::{
    redis::Redis,
    server::{ADMIN_KEY, Backend, Server},
};

/// The binary beside servers of the test's own.
struct Beside<'a> {
    folder: Folder,
    server: &'a Server,
}

impl<'a> Beside<'a> {
    fn new(server: &'a Server) -> Self {
        let folder = Folder::new();
        Self { folder, server }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let address = format!("http://{}", self.server.address);
        let mut all = vec!["--address", &address, "--key", ADMIN_KEY, "audit"];
        all.extend(arguments);
        self.folder.run(&all)
    }

    /// What is wrong, as `audit verify` says.
    fn breaks(&self, more: &[&str]) -> Vec<String> {
        let ran = self.run(&[&["verify", "-o", "json"], more].concat());
        let found = ran.json();
        let breaks = found["breaks"].as_array().unwrap().iter();
        let breaks: Vec<_> = breaks.map(|b| b.as_str().unwrap().to_owned()).collect();
        assert_eq!(found["valid"], breaks.is_empty());
        assert_eq!(ran.code, i32::from(!breaks.is_empty()), "{ran:?}");
        if let Some(first) = breaks.first() {
            assert!(
                ran.stderr.starts_with(&format!("error: {first}")),
                "{ran:?}"
            );
        }
        breaks
    }
}

/// The keys of events in Redis, in the order of their chain.
fn keys(redis: &Redis) -> Vec<String> {
    let found = redis.cli(&["keys", "v1:{audit}:g:e:*"]);
    let mut keys: Vec<_> = found.lines().map(str::to_owned).collect();
    keys.sort();
    keys
}

/// Runs a script on keys.
fn script(redis: &Redis, script: &str, keys: &[&str]) {
    let count = keys.len().to_string();
    let answer = redis.cli(&[&["eval", script, &count], keys].concat());
    assert!(!answer.contains("ERR"), "{answer}");
}

/// A Redis, a replica on it, and another that has left; each has made tenants.
async fn chained() -> (Redis, Server) {
    let redis = Redis::start();
    let left = Server::start(Backend::Redis(&redis)).await;
    let server = Server::start(Backend::Redis(&redis)).await;
    for n in 0..4 {
        left.tenant(&format!("left-{n}")).await;
        server.tenant(&format!("here-{n}")).await;
    }
    left.stop().await;
    (redis, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interleaved_chains_are_whole_and_go_on_after_a_restart() {
    let (redis, server) = chained().await;
    let beside = Beside::new(&server);
    assert_eq!(beside.breaks(&[]), [""; 0]);
    let heads = beside.folder.path("heads.json");
    let heads = ["--heads", heads.to_str().unwrap()];
    assert_eq!(beside.breaks(&heads), [""; 0]);
    server.tenant("more").await;
    let third = Server::start(Backend::Redis(&redis)).await;
    third.tenant("third").await;
    let found = beside.run(&["verify", "-o", "json"]).ok().json();
    assert_eq!(found["chains"].as_array().unwrap().len(), 3);
    assert_eq!(found["events"], 10);
    assert_eq!(beside.breaks(&heads), [""; 0]);
    let table = beside.run(&["verify"]).ok();
    let last = table.text().lines().last().unwrap();
    assert_eq!(last, "10 events in 3 chains, none of them changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_changed_in_the_store_is_found() {
    let change = "redis.call('SET', KEYS[1], (string.gsub(redis.call('GET', KEYS[1]), \
                  'CreateTenant', 'DeleteTenant')), 'KEEPTTL')";
    let garble = "redis.call('SETRANGE', KEYS[1], 30, '}')";
    let swap = "local a, b = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2]) \
                redis.call('SET', KEYS[1], b, 'KEEPTTL') redis.call('SET', KEYS[2], a, 'KEEPTTL')";
    let remove = "for _, key in ipairs(KEYS) do redis.call('DEL', key) end";

    // Keys of the replica that left; it wrote the first event.
    let of = |redis: &Redis| -> (String, Vec<String>) {
        let all = keys(redis);
        let replica = all[0].split(':').nth(5).unwrap().to_owned();
        let of = all.into_iter().filter(|key| key.contains(&replica));
        (replica.clone(), of.collect())
    };
    type Tamper<'a> = &'a dyn Fn(&Redis, &str, &[String]);
    // What is said of it, by the replica's name.
    type Said<'a> = &'a dyn Fn(&str) -> String;
    let cases: [(&str, Tamper<'_>, Said<'_>); 7] = [
        (
            "changed",
            &|redis, _, keys| script(redis, change, &[&keys[1]]),
            &|replica| format!("event 2 of chain {replica} was changed: its hash does not fit"),
        ),
        (
            "garbled",
            &|redis, _, keys| script(redis, garble, &[&keys[1]]),
            &|replica| format!("event 2 of chain {replica} is not what was written there"),
        ),
        (
            "removed",
            &|redis, _, keys| script(redis, remove, &[&keys[1]]),
            &|replica| format!("event 2 of chain {replica} is missing"),
        ),
        (
            "swapped",
            &|redis, _, keys| script(redis, swap, &[&keys[1], &keys[2]]),
            &|replica| format!("event 2 of chain {replica} is not what was written there"),
        ),
        (
            "beheaded",
            &|redis, _, keys| script(redis, remove, &[&keys[0]]),
            &|replica| {
                format!(
                    "chain {replica} begins with event 2, and those before it are missing although \
                     they were to be kept"
                )
            },
        ),
        (
            "cut",
            &|redis, _, keys| script(redis, remove, &[&keys[2], &keys[3]]),
            &|replica| format!("events 3 to 4 of chain {replica} are missing at its end"),
        ),
        (
            "without an end",
            &|redis, replica, _| {
                script(redis, remove, &[&format!("v1:{{audit}}:g:h:{replica}")]);
            },
            &|replica| format!("the end of chain {replica} is missing"),
        ),
    ];
    for (name, tamper, says) in cases {
        let (redis, server) = chained().await;
        let (replica, keys) = of(&redis);
        assert_eq!(keys.len(), 4, "{keys:?}");
        let beside = Beside::new(&server);
        tamper(&redis, &replica, &keys);
        let breaks = beside.breaks(&[]);
        assert_eq!(breaks.first(), Some(&says(&replica)), "{name}: {breaks:?}");
        // It hides nothing else.
        let listed = beside.run(&["list", "-o", "json"]).ok().json();
        assert!(listed["events"].as_array().unwrap().len() >= 6, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_emptied_is_found_by_who_kept_where_it_ended() {
    let (redis, server) = chained().await;
    let beside = Beside::new(&server);
    let heads = beside.folder.path("heads.json");
    let heads = ["--heads", heads.to_str().unwrap()];
    assert_eq!(beside.breaks(&heads), [""; 0]);
    let names = redis.cli(&["keys", "v1:{audit}:*"]);
    let names: Vec<_> = names.lines().collect();
    redis.cli(&[&["del"][..], &names].concat());
    // A replica knows where its own chain ended; of those that left nothing is known.
    assert_eq!(beside.breaks(&[]).len(), 1);
    assert_eq!(beside.breaks(&heads).len(), 2);
    beside.folder.write("heads.json", "nonsense");
    beside
        .run(&[&["verify"], &heads[..]].concat())
        .refused(1, "not what this command wrote");
}

fn list(serving: &Serving<'_>, more: &[&str]) -> Vec<Value> {
    let listed = serving.json(&[&["audit", "list"], more].concat());
    listed["events"].as_array().unwrap().clone()
}

#[test]
fn events_are_listed_by_tenant_time_and_actor() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    for tenant_id in ["acme", "other"] {
        serving.run(&["tenant", "create", tenant_id]).ok();
    }
    serving
        .run(&["--key", "nonsense", "tenant", "list"])
        .refused(4, "API_KEY_INVALID");
    let all = list(&serving, &[]);
    assert_eq!(all.len(), 3, "{all:?}");
    let of_acme = list(&serving, &["--tenant", "acme"]);
    assert_eq!(of_acme, [all[0].clone()]);
    assert_eq!(of_acme[0]["rpc"], "CreateTenant");
    assert_eq!(of_acme[0]["outcome"], "OK");
    assert_eq!(list(&serving, &["--actor", "admin"]), all[..2]);
    assert_eq!(list(&serving, &["--since", "1h"]), all);
    assert!(list(&serving, &["--until", "1h"]).is_empty());
    let one = serving.json(&["audit", "list", "--limit", "1"]);
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    assert_eq!(one["more"], true);
    let table = serving.run(&["audit", "list"]).ok();
    assert!(table.text().starts_with("TIME"), "{}", table.text());
    assert!(table.text().contains("API_KEY_INVALID"), "{}", table.text());
    let wrong = serving.run(&["audit", "list", "--since", "yesterday"]);
    assert_eq!(wrong.code, 2);
}

#[test]
fn events_are_followed_as_they_come() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.run(&["tenant", "create", "before"]).ok();
    let mut command = serving.command(&["audit", "follow", "--since", "1h", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        event["tenant_id"].as_str().unwrap().to_owned()
    };
    assert_eq!(next(), "before");
    for tenant_id in ["one", "two", "three"] {
        serving.run(&["tenant", "create", tenant_id]).ok();
        assert_eq!(next(), tenant_id);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
