//! S3, as moto's server speaks it on loopback: a server of its own, and one that never
//! answers. Credentials and endpoint come by the environment, so the service is a process.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use riptide_persistence::proto::v1::{
    CheckpointState, Component as Named, CreateCheckpointRequest, DeleteCheckpointRequest,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    cli::Folder,
    process::client,
    rpc::checkpoint::{list_by, of, set, take, tenant_by, until, verify_by},
    server::{ADMIN_KEY, reason},
};

/// A server that speaks S3; killed when it is dropped.
struct Moto {
    child: Child,
    address: SocketAddr,
}

impl Moto {
    fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        Self::start_at(address)
    }

    fn start_at(address: SocketAddr) -> Self {
        let interpreter = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
        assert!(
            interpreter.exists(),
            "this test needs Python with moto in target/python; `make test` installs it, and so does `tests/tools moto`"
        );
        let child = Command::new(&interpreter)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p"])
            .arg(address.port().to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut moto = Self { child, address };
        let end = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            let ended = moto.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "moto's server ended ({ended:?}): is moto installed? `tests/tools moto` does it"
            );
            assert!(Instant::now() < end, "moto's server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        moto.bucket();
        moto
    }

    /// Makes the bucket.
    fn bucket(&self) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let host = self.address;
        write!(
            stream,
            "PUT /bucket HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder whose server keeps its checkpoints there.
fn folder(address: SocketAddr, url: &str) -> Folder {
    let mut folder = Folder::new();
    folder.env("AWS_ENDPOINT_URL", &format!("http://{address}"));
    folder.env("AWS_ACCESS_KEY_ID", "key");
    folder.env("AWS_SECRET_ACCESS_KEY", "secret");
    folder.env("AWS_REGION", "us-east-1");
    let settings = format!(
        "persistence: {{auth: {{admin_key: '{ADMIN_KEY}'}}, checkpoint: {{url: '{url}'}}}}"
    );
    folder.write("persistence.yml", settings);
    folder
}

async fn health(address: &str) -> ServingStatus {
    let channel = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
    let request = HealthCheckRequest {
        service: "checkpoints".into(),
    };
    let answer = HealthClient::new(channel.connect_lazy())
        .check(request)
        .await;
    answer.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_live_in_a_bucket() {
    let moto = Moto::start();
    let folder = folder(moto.address, "s3://bucket/deep/prefix");
    let serving = folder.serve(&["--ephemeral"]);
    let admin = client(&serving.address, ADMIN_KEY);
    let acme = client(&serving.address, &tenant_by(&admin, "acme").await);
    for n in 0..6 {
        let mut noise = vec![0; 1 << 20];
        riptide_persistence::random::fill(&mut noise);
        set(&acme, &format!("key-{n}"), noise).await;
    }
    until("the bucket serves", async || {
        health(&serving.address).await == ServingStatus::Serving
    })
    .await;
    let request = CreateCheckpointRequest {
        description: "in a bucket".into(),
        ..of(&[Named::Tenants, Named::Cache, Named::Usage])
    };
    let taken = take(&admin, request).await.unwrap();
    assert_eq!(taken.state(), CheckpointState::Complete);
    assert!(taken.size_bytes > 6 << 20);
    let told = verify_by(&admin, &taken.checkpoint_id).await.unwrap();
    assert!(told.valid, "{told:?}");
    let second = take(&admin, of(&[Named::Tenants])).await.unwrap();
    let listed = list_by(&admin).await;
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&taken) && listed.contains(&second));
    let delete = DeleteCheckpointRequest {
        checkpoint_id: taken.checkpoint_id.clone(),
        allow_missing: false,
    };
    admin.state.clone().delete_checkpoint(delete).await.unwrap();
    assert_eq!(list_by(&admin).await, [second]);
    let missing = verify_by(&admin, &taken.checkpoint_id).await.unwrap_err();
    assert_eq!(reason(&missing), "CHECKPOINT_NOT_FOUND");

    // Gone, and back without what was in it.
    let address = moto.address;
    drop(moto);
    until("it is told of", async || {
        health(&serving.address).await == ServingStatus::NotServing
    })
    .await;
    let status = take(&admin, of(&[Named::Tenants])).await.unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    let _moto = Moto::start_at(address);
    until("it is back", async || {
        health(&serving.address).await == ServingStatus::Serving
    })
    .await;
    until("one is taken again", async || {
        take(&admin, of(&[Named::Tenants])).await.is_ok()
    })
    .await;
}

/// The bucket of a typing error is no empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_not_there_is_told_of() {
    let moto = Moto::start();
    let folder = folder(moto.address, "s3://bukcet");
    let serving = folder.serve(&["--ephemeral"]);
    let admin = client(&serving.address, ADMIN_KEY);
    tenant_by(&admin, "acme").await;
    let status = take(&admin, of(&[Named::Tenants])).await.unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
    assert!(status.message().contains("NoSuchBucket"), "{status:?}");
    assert_eq!(health(&serving.address).await, ServingStatus::NotServing);
}

/// It takes connections, and never answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = folder(silent.local_addr().unwrap(), "s3://bucket");
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept() {
            held.push(stream);
        }
    });
    let serving = folder.serve(&["--ephemeral"]);
    let admin = client(&serving.address, ADMIN_KEY);
    let acme = client(&serving.address, &tenant_by(&admin, "acme").await);
    until("it is told of", async || {
        health(&serving.address).await == ServingStatus::NotServing
    })
    .await;
    let taking = tokio::spawn({
        let admin = admin.clone();
        async move { take(&admin, of(&[Named::Tenants])).await }
    });
    // Calls do not wait for it.
    set(&acme, "key", "value").await;
    let status = taking.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "STORE_UNAVAILABLE");
}
