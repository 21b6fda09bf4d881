//! Takes checkpoints, looks whether they are whole, and removes them. It does not know
//! what goes on meanwhile.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use riptide_persistence::proto::v1::{
    Checkpoint, CheckpointState, Component, CreateCheckpointRequest, CreateCheckpointResponse,
    DeleteCheckpointRequest, VerifyCheckpointRequest, create_checkpoint_response::Event,
    state_service_client::StateServiceClient,
};
use serde::Serialize;
use tonic::{Request, transport::Channel};

use crate::process::ADMIN_KEY;

/// A checkpoint.
#[derive(Serialize)]
pub struct Taken {
    #[serde(skip)]
    id: String,
    pub seconds: f64,
    /// Of its records, before compression.
    pub bytes: i64,
    /// Of its objects.
    pub objects_bytes: i64,
}

/// Takes checkpoints of all that is there, until it has gone on for so long: one at least.
pub fn take_all(address: SocketAddr, entries: usize, time: Duration) -> Result<Vec<Taken>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let begun = Instant::now();
    let mut taken = Vec::new();
    while taken.is_empty() || begun.elapsed() < time {
        taken.push(runtime.block_on(take(address, entries))?);
    }
    Ok(taken)
}

/// Takes a checkpoint of all that is there.
async fn take(address: SocketAddr, entries: usize) -> Result<Taken> {
    let mut client = client(address).await?;
    let begun = Instant::now();
    let request = CreateCheckpointRequest {
        components: vec![Component::Tenants.into(), Component::Cache.into()],
        ..CreateCheckpointRequest::default()
    };
    let mut told = client
        .create_checkpoint(admin(request)?)
        .await?
        .into_inner();
    let checkpoint: Checkpoint = loop {
        let message = told.message().await?;
        let CreateCheckpointResponse { event } = message.context("no checkpoint was told")?;
        if let Some(Event::Checkpoint(checkpoint)) = event {
            break checkpoint;
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(
        checkpoint.state == CheckpointState::Complete as i32 && checkpoint.missed.is_empty(),
        "the checkpoint is not whole: {checkpoint:?}"
    );
    let counts = checkpoint.counts.iter();
    let mut cached = counts.filter(|count| count.component == Component::Cache as i32);
    let records = cached.next().map_or(0, |count| count.records);
    ensure!(
        usize::try_from(records)? == entries,
        "the checkpoint has {records} entries, not {entries}"
    );
    Ok(Taken {
        id: checkpoint.checkpoint_id,
        seconds,
        bytes: checkpoint.counts.iter().map(|count| count.bytes).sum(),
        objects_bytes: checkpoint.size_bytes,
    })
}

/// Removes checkpoints; the first of them is read and opened before, where that is asked.
pub async fn remove(address: SocketAddr, taken: &[Taken], verified: bool) -> Result<()> {
    let mut client = client(address).await?;
    if let Some(first) = taken.first().filter(|_| verified) {
        let request = VerifyCheckpointRequest {
            checkpoint_id: first.id.clone(),
        };
        let found = client
            .verify_checkpoint(admin(request)?)
            .await?
            .into_inner();
        ensure!(found.valid, "{}: {}", found.damaged_part, found.problem);
    }
    for one in taken {
        let request = DeleteCheckpointRequest {
            checkpoint_id: one.id.clone(),
            ..DeleteCheckpointRequest::default()
        };
        client.delete_checkpoint(admin(request)?).await?;
    }
    Ok(())
}

async fn client(address: SocketAddr) -> Result<StateServiceClient<Channel>> {
    let channel = Channel::from_shared(format!("http://{address}"))?;
    Ok(StateServiceClient::new(channel.connect().await?))
}

fn admin<T>(message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    let authorization = format!("Bearer {ADMIN_KEY}").parse()?;
    request
        .metadata_mut()
        .insert("authorization", authorization);
    Ok(request)
}
