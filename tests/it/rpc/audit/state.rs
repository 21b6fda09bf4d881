//! What is told of calls that change the state of the service: checkpoints taken,
//! wrapped anew, restored and removed, and reloads. It does not know what they do.

use riptide_persistence::proto::v1::{
    CreateCheckpointRequest, DeleteCheckpointRequest, ReloadConfigRequest, RestoreConflict,
    RewrapCheckpointKeysRequest, create_checkpoint_response::Event,
};

use super::*;
use crate::rpc::{checkpoint::Vault, encryption::master, restore::asked};

/// Outcomes of the events of a request, the first one first; all are the admin's, of this
/// RPC.
fn outcomes<'a>(events: &'a [AuditEvent], request_id: &str, rpc: &str) -> Vec<&'a str> {
    let of = events.iter().filter(|event| event.request_id == request_id);
    of.map(|event| {
        assert_eq!((&*event.actor, &*event.rpc), ("admin", rpc), "{event:?}");
        assert_eq!((event.count, &*event.tenant_id), (1, ""), "{event:?}");
        &*event.outcome
    })
    .collect()
}

#[rstest]
#[case::embedded(Kind::Embedded)]
#[case::redis(Kind::Redis)]
#[tokio::test]
async fn changes_of_the_state_of_the_service_are_told(#[case] kind: Kind) {
    let vault = Vault::new();
    let server = kind
        .start_with(|config| {
            vault.set()(config);
            config.encryption.master_keys = Some(master("one").into());
        })
        .await;
    server.tenant("acme").await;
    let mut state = server.admin().state;

    let request = named("create", CreateCheckpointRequest::default());
    let mut messages = state.create_checkpoint(request).await.unwrap().into_inner();
    let mut id = String::new();
    while let Some(message) = messages.message().await.unwrap() {
        if let Some(Event::Checkpoint(taken)) = message.event {
            id = taken.checkpoint_id;
        }
    }
    let request = named("rewrap", RewrapCheckpointKeysRequest::default());
    state.rewrap_checkpoint_keys(request).await.unwrap();
    let request = named("reload", ReloadConfigRequest::default());
    state.reload_config(request).await.unwrap();
    for (name, conflict) in [
        ("replace", RestoreConflict::Replace),
        ("fail", RestoreConflict::Fail),
    ] {
        let request = named(name, asked(&id, conflict));
        if let Ok(messages) = state.restore_checkpoint(request).await {
            let mut messages = messages.into_inner();
            while messages.message().await.unwrap().is_some() {}
        }
    }
    let delete = |checkpoint_id: &str| DeleteCheckpointRequest {
        checkpoint_id: checkpoint_id.into(),
        ..Default::default()
    };
    let request = named("delete", delete(&id));
    state.delete_checkpoint(request).await.unwrap();
    let request = named("again", delete(&id));
    state.delete_checkpoint(request).await.unwrap_err();

    // A stream is told when it begins, so that one that never ends is told of too.
    let expected: [(&str, &str, &[&str]); 7] = [
        ("create", "CreateCheckpoint", &["STARTED", "OK"]),
        ("rewrap", "RewrapCheckpointKeys", &["OK"]),
        ("reload", "ReloadConfig", &["OK"]),
        ("replace", "RestoreCheckpoint", &["STARTED", "OK"]),
        ("fail", "RestoreCheckpoint", &["TENANT_EXISTS"]),
        ("delete", "DeleteCheckpoint", &["OK"]),
        ("again", "DeleteCheckpoint", &["CHECKPOINT_NOT_FOUND"]),
    ];
    let count: usize = expected.iter().map(|(.., outcomes)| outcomes.len()).sum();
    let ids = expected.map(|(request_id, ..)| request_id);
    let events = until(&server, |events| {
        let of = events
            .iter()
            .filter(|event| ids.contains(&&*event.request_id));
        of.count() >= count
    })
    .await;
    for (request_id, rpc, expected) in expected {
        assert_eq!(outcomes(&events, request_id, rpc), expected, "{request_id}");
    }
}
