//! Checkpoints when the master key is rotated: their keys are wrapped anew, and nothing
//! of them needs the old master key then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use riptide_persistence::proto::v1::{
    CheckpointKeysReport, Component as Named, CreateTenantRequest, LostCheckpointKey,
    RestoreConflict, RewrapCheckpointKeysRequest,
};
use rstest::rstest;
use tempfile::TempDir;
use tonic::{Code, Status};

use super::{Vault, list, set, take_of, tenant_by, verify, verify_by};
use crate::{
    cli::Folder,
    process::client,
    redis::Redis,
    rpc::{
        encryption::{master, value},
        restore::{asked, restored},
        tenant::assert_refused,
    },
    server::{ADMIN_KEY, Backend, Clients, Kind, Server, fields, reason},
};

/// A store and an object store that outlive the servers on them.
struct Stage {
    vault: Vault,
    store: TempDir,
    redis: Option<Redis>,
}

impl Stage {
    fn new(kind: Kind) -> Self {
        Self {
            vault: Vault::new(),
            store: tempfile::tempdir().unwrap(),
            redis: (kind == Kind::Redis).then(Redis::start),
        }
    }

    async fn serve(&self, masters: &[&str]) -> Server {
        let backend = match &self.redis {
            Some(redis) => Backend::Redis(redis),
            None => Backend::Embedded,
        };
        let masters: Vec<_> = masters.iter().map(|id| master(id)).collect();
        let set = self.vault.set();
        Server::start_with(backend, |config| {
            set(config);
            config.store.ephemeral = false;
            config.store.path = self.store.path().into();
            if !masters.is_empty() {
                config.encryption.master_keys = Some(masters.join(",").into());
            }
        })
        .await
    }

    /// Takes all from the store.
    fn empty(&self) {
        match &self.redis {
            Some(redis) => {
                redis.cli(&["flushall"]);
            }
            None => {
                for file in fs::read_dir(self.store.path()).unwrap() {
                    let _ = fs::remove_file(file.unwrap().path());
                }
            }
        }
    }
}

async fn vault(server: &Server, tenant_id: &str) -> (String, Clients) {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        encryption_enabled: true,
        ..Default::default()
    };
    let created = server.admin().tenant.create_tenant(request).await.unwrap();
    let secret = created.into_inner().secret;
    let clients = server.with_key(&secret);
    (secret, clients)
}

/// What all pages told, by checkpoint.
#[derive(Debug, Default)]
struct Told {
    master_key_id: String,
    checkpoints: BTreeSet<String>,
    keys: i64,
    rewrapped: i64,
    master_keys: BTreeMap<String, i64>,
    lost: Vec<(String, LostCheckpointKey)>,
    pages: usize,
}

impl Told {
    fn add(&mut self, report: CheckpointKeysReport) {
        assert!(!report.being_taken);
        self.pages += 1;
        self.master_key_id = report.master_key_id;
        self.keys += report.keys;
        self.rewrapped += report.rewrapped;
        for (id, count) in report.master_keys {
            *self.master_keys.entry(id).or_default() += count;
        }
        let id = report.checkpoint_id;
        let lost = report.lost.into_iter().map(|lost| (id.clone(), lost));
        self.lost.extend(lost);
        if !id.is_empty() {
            self.checkpoints.insert(id);
        }
    }

    fn counts(&self) -> BTreeMap<&str, i64> {
        let counts = self.master_keys.iter();
        counts.map(|(id, count)| (id.as_str(), *count)).collect()
    }
}

fn page(page_size: i32, validate_only: bool) -> RewrapCheckpointKeysRequest {
    RewrapCheckpointKeysRequest {
        page_size,
        validate_only,
        ..Default::default()
    }
}

async fn rewrap(admin: &Clients, mut request: RewrapCheckpointKeysRequest) -> Result<Told, Status> {
    let mut told = Told::default();
    loop {
        let mut client = admin.state.clone();
        let answer = client.rewrap_checkpoint_keys(request.clone()).await?;
        let answer = answer.into_inner();
        told.add(answer.report.unwrap());
        request.page_token = answer.next_page_token;
        if request.page_token.is_empty() {
            return Ok(told);
        }
    }
}

const ALL: [Named; 3] = [Named::Tenants, Named::Cache, Named::Usage];

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rotation_the_old_master_key_is_not_needed(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["old"]).await;
    let mut secrets = BTreeMap::new();
    for tenant_id in ["one", "two", "three"] {
        let (secret, clients) = vault(&server, tenant_id).await;
        set(&clients, "key", format!("of {tenant_id}")).await;
        secrets.insert(tenant_id, secret);
    }
    let plain = server.tenant("plain").await;
    set(&plain.clients, "key", "of plain").await;
    secrets.insert("plain", plain.secret.clone());
    let taken = take_of(&server, &ALL).await;
    // One of entries alone has no record of a tenant.
    let entries = take_of(&server, &[Named::Cache]).await;
    server.stop().await;

    let server = stage.serve(&["new", "old"]).await;
    let admin = server.admin();
    // Taken since, of data keys that the old one still wraps.
    let between = take_of(&server, &ALL).await;
    let before = rewrap(&admin, page(2, true)).await.unwrap();
    assert_eq!(before.counts(), [("new", 5), ("old", 5 + 5 + 3 + 3)].into());
    assert_eq!((before.keys, before.rewrapped), (21, 16));
    assert_eq!(before.checkpoints.len(), 3);
    // Two pages of each: of two tenants, and two.
    assert_eq!(before.pages, 6);

    let done = rewrap(&admin, page(1, false)).await.unwrap();
    assert_eq!(done.master_key_id, "new");
    assert_eq!((done.counts(), done.rewrapped), ([("new", 21)].into(), 16));
    let again = rewrap(&admin, page(0, false)).await.unwrap();
    assert_eq!((again.counts(), again.rewrapped), ([("new", 21)].into(), 0));
    // Nothing that the manifest vouches for is another.
    let listed = list(&server).await;
    for checkpoint in [&taken, &entries, &between] {
        assert!(listed.contains(checkpoint), "{listed:?}");
    }
    server.stop().await;

    // The old one is gone, and so is the store.
    stage.empty();
    let server = stage.serve(&["new"]).await;
    let admin = server.admin();
    for checkpoint in [&taken, &entries, &between] {
        let told = verify(&server, &checkpoint.checkpoint_id).await.unwrap();
        assert!(told.valid, "{told:?}");
    }
    let request = asked(&taken.checkpoint_id, RestoreConflict::Fail);
    assert_eq!(restored(&admin, request).await.created, 4);
    for (tenant_id, secret) in &secrets {
        let clients = server.with_key(secret);
        let found = value(&clients, "", "key").await.unwrap();
        assert_eq!(found, format!("of {tenant_id}").as_str());
    }
    // And in place of what is there.
    set(&server.with_key(&secrets["one"]), "key", "another").await;
    let request = asked(&between.checkpoint_id, RestoreConflict::Replace);
    assert_eq!(restored(&admin, request).await.replaced, 4);
    let clients = server.with_key(&secrets["one"]);
    assert_eq!(value(&clients, "", "key").await.unwrap(), "of one");
    server.stop().await;
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn what_still_needs_another_master_key_is_named(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&[]).await;
    server.tenant("acme").await;
    let clear = take_of(&server, &[Named::Tenants]).await.checkpoint_id;
    let none = rewrap(&server.admin(), page(0, false)).await;
    assert_refused(none, Code::FailedPrecondition, "CONDITION_NOT_MET");
    server.stop().await;

    let server = stage.serve(&["lost"]).await;
    let of_lost = take_of(&server, &[Named::Tenants]).await.checkpoint_id;
    server.stop().await;
    let server = stage.serve(&["old"]).await;
    let damaged = take_of(&server, &[Named::Tenants]).await.checkpoint_id;
    server.stop().await;
    let path = stage.vault.part(&damaged, "key-store");
    let mut bytes = fs::read(&path).unwrap();
    bytes[30] ^= 1;
    fs::write(&path, bytes).unwrap();

    let server = stage.serve(&["new", "old"]).await;
    let told = rewrap(&server.admin(), page(0, false)).await.unwrap();
    // What lay in the clear is wrapped too.
    assert_eq!(told.counts(), [("lost", 1), ("new", 2)].into());
    assert_eq!(told.rewrapped, 2);
    let text = fs::read_to_string(stage.vault.part(&clear, "key-store")).unwrap();
    assert!(!text.contains("\"clear\""), "{text}");
    assert_eq!(told.lost.len(), 2, "{told:?}");
    let of = |id: &str| told.lost.iter().find(|(of, _)| of == id).unwrap();
    let ((_, broken), (_, lost)) = (of(&damaged), of(&of_lost));
    assert_eq!((&*broken.part, &*broken.master_key_id), ("key-store", ""));
    assert_eq!((&*lost.part, &*lost.master_key_id), ("key-store", "lost"));
    assert!(lost.reason.contains("not in encryption.master_keys"));
    assert!(verify(&server, &clear).await.unwrap().valid);

    let negative = rewrap(&server.admin(), page(-1, false)).await;
    let negative = assert_refused(negative, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(fields(&negative), ["page_size"]);
    let forged = RewrapCheckpointKeysRequest {
        page_token: "forged".into(),
        ..Default::default()
    };
    let forged = rewrap(&server.admin(), forged).await;
    assert_refused(forged, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
    let tenant = server.tenant("other").await;
    let denied = rewrap(&tenant.clients, page(0, true)).await;
    assert_refused(denied, Code::PermissionDenied, "SCOPE_MISSING");
    server.stop().await;

    // With the key that was lost it goes on.
    let server = stage.serve(&["new", "lost"]).await;
    let told = rewrap(&server.admin(), page(0, false)).await.unwrap();
    assert_eq!(told.counts(), [("new", 4)].into());
    assert!(verify(&server, &of_lost).await.unwrap().valid);
}

/// A key of a purged tenant does not come back by a rotation, however it came there.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_rotation_brings_no_purged_tenant_back(#[case] kind: Kind) {
    let stage = Stage::new(kind);
    let server = stage.serve(&["old"]).await;
    server.tenant("acme").await;
    server.tenant("other").await;
    let id = take_of(&server, &[Named::Tenants]).await.checkpoint_id;
    let keys = || -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(stage.vault.part(&id, "")).unwrap();
        let files = files.map(|file| file.unwrap());
        let named = files.map(|file| (file.file_name().into_string().unwrap(), file.path()));
        let keys = named.filter(|(name, _)| name.starts_with("key-"));
        keys.map(|(name, path)| (name, fs::read(path).unwrap()))
            .collect()
    };
    let before = keys();
    server.purge("acme").await;
    let left = keys();
    assert_eq!((before.len(), left.len()), (3, 2));
    for (name, bytes) in &before {
        fs::write(stage.vault.part(&id, name), bytes).unwrap();
    }
    server.stop().await;
    let server = stage.serve(&["new", "old"]).await;
    let told = rewrap(&server.admin(), page(0, false)).await.unwrap();
    assert_eq!((told.counts(), told.keys), ([("new", 2)].into(), 2));
    assert!(keys().keys().eq(left.keys()));
    let told = verify(&server, &id).await.unwrap();
    assert_eq!(
        (told.valid, told.purged_tenants),
        (true, vec!["acme".into()])
    );
}

/// Wherever a rotation is killed, the checkpoint verifies, and the next one ends it.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_killed_is_gone_on_with(#[case] kind: Kind) {
    const TENANTS: usize = 12;
    let vault = Vault::new();
    let redis = (kind == Kind::Redis).then(Redis::start);
    let folder = Folder::new();
    let serve = |masters: &[&str]| {
        let store = match &redis {
            Some(redis) => format!("redis: {{url: '{}'}}, ", redis.url()),
            None => String::new(),
        };
        let masters: Vec<_> = masters.iter().map(|id| master(id)).collect();
        let settings = format!(
            "persistence: {{{store}auth: {{admin_key: '{ADMIN_KEY}'}}, checkpoint: {{url: '{}'}}, \
             encryption: {{enabled: true, master_keys: '{}'}}}}",
            vault.url(),
            masters.join(",")
        );
        folder.write("persistence.yml", settings);
        folder.serve(&[])
    };
    let serving = serve(&["old"]);
    let admin = client(&serving.address, ADMIN_KEY);
    for n in 0..TENANTS {
        tenant_by(&admin, &format!("tenant-{n}")).await;
    }
    let taken = super::take(&admin, super::of(&ALL)).await.unwrap();
    let id = taken.checkpoint_id.clone();
    drop(serving);

    let mut found = BTreeMap::new();
    for killed_at in [1, 4, 9] {
        let serving = serve(&["new", "old"]);
        let admin = client(&serving.address, ADMIN_KEY);
        let (sent, mut told) = tokio::sync::mpsc::unbounded_channel();
        let caller = admin.clone();
        let rotating = tokio::spawn(async move {
            let mut request = page(1, false);
            loop {
                let mut client = caller.state.clone();
                match client.rewrap_checkpoint_keys(request.clone()).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        request.page_token = answer.next_page_token;
                        let _ = sent.send(());
                        if request.page_token.is_empty() {
                            return;
                        }
                    }
                    // For as long as the turn of one that was killed lasts.
                    Err(status) if status.code() == Code::Aborted => {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                    Err(_) => return,
                }
            }
        });
        for _ in 0..killed_at {
            told.recv().await.unwrap();
        }
        // While the next page is under way.
        drop(serving);
        rotating.await.unwrap();
        let serving = serve(&["new", "old"]);
        let admin = client(&serving.address, ADMIN_KEY);
        let told = verify_by(&admin, &id).await.unwrap();
        assert!(told.valid, "{told:?}");
        assert_eq!(told.checkpoint.unwrap(), taken);
        let told = rewrap(&admin, page(0, true)).await.unwrap();
        let new = told.master_keys.get("new").copied().unwrap_or(0);
        assert!(new as usize >= 2 * killed_at, "{told:?}");
        found.insert(killed_at, new);
        drop(serving);
    }
    eprintln!("{kind:?}: keys wrapped anew after each kill: {found:?}");

    let serving = serve(&["new", "old"]);
    let admin = client(&serving.address, ADMIN_KEY);
    let mut done = rewrap(&admin, page(0, false)).await;
    while done
        .as_ref()
        .is_err_and(|status| reason(status) == "REQUEST_IN_PROGRESS")
    {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        done = rewrap(&admin, page(0, false)).await;
    }
    let keys = 1 + 2 * TENANTS as i64;
    assert_eq!(done.unwrap().counts(), [("new", keys)].into());
    drop(serving);
    let serving = serve(&["new"]);
    let admin = client(&serving.address, ADMIN_KEY);
    assert!(verify_by(&admin, &id).await.unwrap().valid);
}
