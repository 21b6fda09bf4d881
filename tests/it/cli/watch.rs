//! `cache watch` as a person and a script use it: a line an event, until it is
//! interrupted, over a restart of the server. It does not know how changes travel.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use riptide_persistence::proto::v1::SetRequest;
use serde_json::Value;

use super::Folder;
use crate::{
    redis::Redis,
    server::{Backend, Clients, Server},
};

/// A `cache watch` that runs.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn begin(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn line(&self) -> String {
        let line = self.lines.recv_timeout(Duration::from_secs(30));
        line.expect("no line is printed")
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// Its next line that is no sign of life.
    fn event(&self) -> Value {
        loop {
            let line = self.json();
            if line["event"] != "heartbeat" {
                return line;
            }
        }
    }

    /// Interrupts it; its exit code, and what it said on standard error.
    fn interrupt(mut self) -> (Option<i32>, String) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
        assert!(sent.unwrap().success());
        let code = self.child.wait().unwrap().code();
        let mut said = String::new();
        let stderr = self.child.stderr.take();
        stderr.unwrap().read_to_string(&mut said).unwrap();
        (code, said)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_are_lines_until_it_is_interrupted() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    let created = serving.json(&["tenant", "create", "acme"]);
    let key = created["secret"].as_str().unwrap().to_owned();
    let run = |arguments: &[&str]| {
        let mut command = serving.command(arguments);
        command.env("RIPTIDE_API_KEY", &key);
        command
    };
    let done = |arguments: &[&str]| assert!(run(arguments).output().unwrap().status.success());
    let machine = Watch::begin(run(&["cache", "watch", "--output", "json"]));
    // Its first line tells that it watches.
    let begun = machine.json();
    assert_eq!(begun["event"], "heartbeat");
    let token = begun["resume_token"].as_str().unwrap().to_owned();

    done(&["cache", "set", "a", "v"]);
    done(&["cache", "set", "b", "v", "--namespace", "n"]);
    done(&["cache", "flush", "--namespace", "n"]);
    done(&["cache", "flush", "--whole-tenant", "--yes"]);
    let keys = machine.event();
    assert_eq!(keys["event"], "keys");
    assert_eq!(keys["namespace"], "default");
    assert_eq!(keys["keys"], serde_json::json!(["a"]));
    assert!(keys["resume_token"].is_string());
    assert_eq!(machine.event()["keys"], serde_json::json!(["b"]));
    let whole = machine.event();
    assert_eq!([&whole["event"], &whole["namespace"]], ["namespace", "n"]);
    assert_eq!(machine.event()["event"], "tenant");
    assert_eq!(machine.interrupt().0, Some(0));

    // For eyes, and from where the other began.
    let person = Watch::begin(run(&["cache", "watch", "--resume", &token]));
    let lines = [(); 4].map(|()| person.line());
    let expected = ["keys default: a", "keys n: b", "namespace n", "tenant"];
    assert_eq!(lines, expected);
    let (code, said) = person.interrupt();
    assert_eq!(code, Some(0));
    let (_, token) = said.trim().split_once("--resume ").unwrap();
    let on = Watch::begin(run(&["cache", "watch", "--resume", token]));
    done(&["cache", "set", "c", "v"]);
    assert_eq!(on.line(), "keys default: c");
    drop(on);

    // A token is good for the namespaces it was told of.
    let refused = ["cache", "watch", "--resume", token, "--namespace", "n"];
    let refused = run(&refused).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("INVALID_PAGE_TOKEN"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_goes_on_when_the_server_comes_back() {
    let redis = Redis::start();
    let server = Server::start(Backend::Redis(&redis)).await;
    let tenant = server.tenant("acme").await;
    let address: SocketAddr = server.address;
    let folder = Folder::new();
    let mut command = folder.command(&["cache", "watch", "--output", "json"]);
    command
        .env("RIPTIDE_ADDRESS", format!("http://{address}"))
        .env("RIPTIDE_API_KEY", &tenant.secret);
    let watch = Watch::begin(command);
    let watch = tokio::task::spawn_blocking(move || {
        assert_eq!(watch.json()["event"], "heartbeat");
        watch
    });
    let watch = watch.await.unwrap();
    put(&tenant.clients, "a").await;
    // What is written while nobody serves it comes in its turn.
    let other = Server::start(Backend::Redis(&redis)).await;
    server.stop().await;
    put(&other.with_key(&tenant.secret), "b").await;
    let again = |config: &mut riptide_persistence::config::Config| config.server.listen = address;
    let again = Server::start_with(Backend::Redis(&redis), again).await;
    put(&again.with_key(&tenant.secret), "c").await;
    let heard = tokio::task::spawn_blocking(move || {
        [(); 3].map(|()| watch.event()["keys"][0].as_str().unwrap().to_owned())
    });
    assert_eq!(heard.await.unwrap(), ["a", "b", "c"]);
}

async fn put(clients: &Clients, key: &str) {
    let set = SetRequest {
        key: key.into(),
        value: "v".into(),
        ..Default::default()
    };
    clients.cache.clone().set(set).await.unwrap();
}
