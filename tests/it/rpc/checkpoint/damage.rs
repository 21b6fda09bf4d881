//! Checkpoints whose parts were changed, lost or exchanged: each is refused, by the name
//! of the first part that is wrong. Keys of other masters, and formats of later versions,
//! are told apart from damage.

use std::{fs, path::Path};

use riptide_persistence::{
    proto::v1::{Checkpoint, Component as Named, GetCheckpointRequest},
    state::checkpoint::{CheckpointId, ChunkKey, Manifest, Owner, manifest::FORMAT},
    tenant::Masters,
};
use rstest::rstest;
use tonic::Code;

use super::{Vault, set, take_of, verify};
use crate::{
    rpc::encryption::master,
    server::{Backend, Kind, Server, reason},
};

/// A server, and a checkpoint of several chunks.
async fn taken(kind: Kind, vault: &Vault) -> (Server, Checkpoint) {
    let server = kind.start_with(vault.set()).await;
    let acme = server.tenant("acme").await;
    let mut noise = vec![0; 1 << 20];
    for n in 0..6 {
        riptide_persistence::random::fill(&mut noise);
        set(&acme.clients, &format!("key-{n}"), noise.clone()).await;
    }
    let taken = take_of(&server, &[Named::Tenants, Named::Cache, Named::Usage]).await;
    assert!(verify(&server, &taken.checkpoint_id).await.unwrap().valid);
    (server, taken)
}

/// What verifying tells while a file is changed so.
async fn told(
    server: &Server,
    id: &str,
    path: &Path,
    change: impl FnOnce(&mut Vec<u8>),
) -> (String, String) {
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
    let told = verify(server, id).await.unwrap();
    fs::write(path, before).unwrap();
    assert!(!told.valid);
    assert!(!told.problem.is_empty());
    (told.damaged_part, told.problem)
}

fn parts(vault: &Vault, id: &str) -> Vec<String> {
    let mut parts: Vec<_> = fs::read_dir(vault.part(id, ""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    parts.sort_unstable();
    parts
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn any_part_that_is_flipped_cut_or_missing_is_named(#[case] kind: Kind) {
    let vault = Vault::new();
    let (server, taken) = taken(kind, &vault).await;
    let id = &taken.checkpoint_id;
    let parts = parts(&vault, id);
    let chunks = parts
        .iter()
        .filter(|part| part.starts_with("chunk-"))
        .count();
    assert!(chunks >= 3, "{parts:?}");
    for part in &parts {
        let path = vault.part(id, part);
        let bytes = fs::metadata(&path).unwrap().len() as usize;
        // Of a chunk every 65,521st byte, of what is small a hundred.
        let step = if part.starts_with("chunk-") {
            65_521
        } else {
            bytes / 100 + 1
        };
        for at in (0..bytes).step_by(step).chain([bytes - 1]) {
            let (named, problem) = told(&server, id, &path, |bytes| bytes[at] ^= 4).await;
            assert_eq!(named, *part, "byte {at}: {problem}");
        }
        for keep in [0, 1, bytes / 2, bytes - 1] {
            let (named, problem) = told(&server, id, &path, |bytes| bytes.truncate(keep)).await;
            assert_eq!(named, *part, "cut to {keep}: {problem}");
        }
        let (named, _) = told(&server, id, &path, |bytes| bytes.push(b' ')).await;
        assert_eq!(named, *part);
        let tenants_key = part.starts_with("key-") && part != "key-store";
        if !tenants_key {
            let before = fs::read(&path).unwrap();
            fs::remove_file(&path).unwrap();
            let told = verify(&server, id).await.unwrap();
            assert!(!told.valid);
            assert_eq!(told.damaged_part, *part);
            fs::write(&path, before).unwrap();
        }
    }
    assert!(verify(&server, id).await.unwrap().valid);
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn parts_in_another_order_or_of_another_checkpoint_are_named(#[case] kind: Kind) {
    let vault = Vault::new();
    let (server, one) = taken(kind, &vault).await;
    let other = take_of(&server, &[Named::Tenants, Named::Cache, Named::Usage]).await;
    let (id, other) = (&one.checkpoint_id, &other.checkpoint_id);

    let read = |id: &str, part: &str| fs::read(vault.part(id, part)).unwrap();
    let first = read(id, "chunk-000000");
    let second = read(id, "chunk-000001");
    fs::write(vault.part(id, "chunk-000000"), &second).unwrap();
    fs::write(vault.part(id, "chunk-000001"), &first).unwrap();
    let found = verify(&server, id).await.unwrap();
    assert_eq!((found.valid, &*found.damaged_part), (false, "chunk-000000"));
    fs::write(vault.part(id, "chunk-000000"), &first).unwrap();
    fs::write(vault.part(id, "chunk-000001"), &second).unwrap();

    for part in parts(&vault, id) {
        let foreign = read(other, &part);
        let (named, problem) = told(&server, id, &vault.part(id, &part), |bytes| {
            *bytes = foreign;
        })
        .await;
        assert_eq!(named, part, "{problem}");
    }
    assert!(verify(&server, id).await.unwrap().valid);
}

/// Whoever holds the store's key can write a manifest: one of a later version does.
#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_later_format_is_told_apart(#[case] kind: Kind) {
    let vault = Vault::new();
    let (server, taken) = taken(kind, &vault).await;
    let id = CheckpointId::parse(&taken.checkpoint_id).unwrap();
    let key = fs::read(vault.part(id.as_str(), "key-store")).unwrap();
    let key = ChunkKey::decode(&key, &Masters::default(), &id, Owner::Store).unwrap();
    let path = vault.part(id.as_str(), "manifest.json");
    let mut manifest = Manifest::decode(&fs::read(&path).unwrap(), &id, &key).unwrap();
    let later = FORMAT + 1;
    let format = std::mem::replace(&mut manifest.format, later);
    fs::write(&path, manifest.encode(&key).unwrap()).unwrap();
    let status = verify(&server, id.as_str()).await.unwrap_err();
    assert_eq!(reason(&status), "CHECKPOINT_INCOMPATIBLE");
    let named = format!("format {later}");
    assert!(status.message().contains(&named), "{status:?}");
    // It is listed all the same, with what is wrong.
    let listed = super::list(&server).await;
    assert!(listed[0].problem.contains(&named), "{listed:?}");

    // A count that is changed by whoever has no key is damage.
    manifest.format = format;
    manifest.tenants += 1;
    fs::write(&path, manifest.encode(&ChunkKey::draw()).unwrap()).unwrap();
    let told = verify(&server, id.as_str()).await.unwrap();
    assert_eq!((told.valid, &*told.damaged_part), (false, "manifest.json"));
    // And one that is not what the chunks hold, even with it.
    manifest.tenants -= 1;
    manifest
        .counts
        .values_mut()
        .for_each(|count| count.records += 1);
    fs::write(&path, manifest.encode(&key).unwrap()).unwrap();
    let told = verify(&server, id.as_str()).await.unwrap();
    assert_eq!((told.valid, &*told.damaged_part), (false, "manifest.json"));
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn a_checkpoint_of_another_master_key_is_told_apart(#[case] kind: Kind) {
    let vault = Vault::new();
    let redis = (kind == Kind::Redis).then(crate::redis::Redis::start);
    let backend = || match &redis {
        Some(redis) => Backend::Redis(redis),
        None => Backend::Embedded,
    };
    let with = |masters: String| {
        let set = vault.set();
        move |config: &mut riptide_persistence::config::Config| {
            set(config);
            if !masters.is_empty() {
                config.encryption.master_keys = Some(masters.into());
            }
        }
    };
    let server = Server::start_with(backend(), with(master("one"))).await;
    let acme = server.tenant("acme").await;
    set(&acme.clients, "key", "a value in the clear").await;
    let taken = take_of(&server, &[Named::Tenants, Named::Cache]).await;
    let id = &taken.checkpoint_id;
    assert!(verify(&server, id).await.unwrap().valid);
    // Nothing of it can be read without the master key, of tenants that are not
    // encrypted either.
    for part in parts(&vault, id) {
        let bytes = fs::read(vault.part(id, &part)).unwrap();
        for plain in ["a value in the clear", "\"clear\""] {
            let found = bytes
                .windows(plain.len())
                .any(|part| part == plain.as_bytes());
            assert!(!found, "{part} holds {plain}");
        }
    }
    server.stop().await;

    // After a rotation the old one still opens.
    let both = format!("{},{}", master("two"), master("one"));
    let server = Server::start_with(backend(), with(both)).await;
    assert!(verify(&server, id).await.unwrap().valid);
    server.stop().await;

    let (_, bytes) = master("two")
        .split_once(':')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    for masters in [master("two"), format!("one:{bytes}"), String::new()] {
        let server = Server::start_with(backend(), with(masters)).await;
        let status = verify(&server, id).await.unwrap_err();
        assert_eq!(reason(&status), "CHECKPOINT_INCOMPATIBLE");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains("master key one"), "{status:?}");
        let get = GetCheckpointRequest {
            checkpoint_id: id.clone(),
        };
        let got = server.admin().state.get_checkpoint(get).await.unwrap_err();
        assert_eq!(reason(&got), "CHECKPOINT_INCOMPATIBLE");
        assert_eq!(super::list(&server).await.len(), 1);
        server.stop().await;
    }
}
