//! A process that runs out of file descriptors: it rests, serves those it has,
//! and takes connections again when it can.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use riptide_persistence::proto::v1::GetServerInfoRequest;
use tonic::transport::Endpoint;

use crate::server::{ADMIN_KEY, Bearer, Clients};

/// A server process that may have so many files open; killed when dropped.
struct Starved {
    child: Child,
    address: SocketAddr,
    lines: std::io::Lines<BufReader<std::process::ChildStderr>>,
    _folder: tempfile::TempDir,
}

impl Starved {
    fn start(files: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binary = env!("CARGO_BIN_EXE_riptide-persistence");
        let free = "--listen 127.0.0.1:0 --admin-listen 127.0.0.1:0";
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "ulimit -n {files}; exec {binary} serve --ephemeral {free}"
            ))
            .current_dir(folder.path())
            .env("PERSISTENCE_AUTH__ADMIN_KEY", ADMIN_KEY)
            .env("PERSISTENCE_SERVER__THREADS", "1")
            .env("PERSISTENCE_LOG__FORMAT", "json")
            .env_remove("REDIS_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut starved = Self {
            child,
            address: ([127, 0, 0, 1], 0).into(),
            lines,
            _folder: folder,
        };
        starved.address = starved.said("server listens")["address"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        starved
    }

    /// Waits for a log line with this message.
    fn said(&mut self, message: &str) -> serde_json::Value {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if event["message"] == message {
                return event;
            }
        }
        panic!("the process ended and never said {message:?}");
    }

    fn clients(&self) -> Clients {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Clients::new(endpoint.connect_lazy(), Bearer::new(ADMIN_KEY))
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_process_without_file_descriptors_serves_those_it_has_and_recovers() {
    let mut starved = Starved::start(64);
    let mut here = starved.clients().state;
    here.get_server_info(GetServerInfoRequest {}).await.unwrap();

    let crowd: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(starved.address).unwrap())
        .collect();
    let refused = starved.said("connection not accepted");
    assert!(
        refused["error"].as_str().unwrap().contains("files"),
        "{refused}"
    );
    here.get_server_info(GetServerInfoRequest {}).await.unwrap();

    drop(crowd);
    let mut later = starved.clients().state;
    later
        .get_server_info(GetServerInfoRequest {})
        .await
        .unwrap();
}
