//! Checkpoints as messages: asked for, told of as they are taken, listed, verified and
//! removed. It does not know what is in them.

use std::{pin::Pin, time::Duration};

use futures::{StreamExt, stream};
use tokio::time::sleep;
use tonic::Status;

use super::Api;
use crate::{
    error::{Error, Result, Violations},
    grpc::{
        Context, Stage,
        convert::{int64, timestamp},
        status,
    },
    proto::v1::{self, CreateCheckpointResponse, create_checkpoint_response::Event},
    state::checkpoint::{
        Begun, Cause, Checkpoint, CheckpointId, Checkpoints, Component, Counts, Created, LostKey,
        Progress, Rewrapped,
    },
    tenant::page,
};

/// How often a caller is told how far a checkpoint is, at least and at most.
const TELL: Duration = Duration::from_secs(1);

/// A stream that tells how far a checkpoint is.
pub(in crate::grpc) type Taking =
    stream::BoxStream<'static, std::result::Result<CreateCheckpointResponse, Status>>;

impl Api {
    pub(super) async fn take_checkpoint(
        &self,
        context: &Context,
        request: v1::CreateCheckpointRequest,
    ) -> Result<Taking> {
        let mut violations = Violations::default();
        let components = components(&request.components, &mut violations);
        let mut wanted = Checkpoints::components(components);
        wanted.tenant_ids = request.tenant_ids;
        wanted.description = request.description;
        let created = self
            .checkpoints
            .create(wanted, &request.request_id, violations)
            .await?;
        let begun = match created {
            Created::Before(before) => {
                let last = told(Event::Checkpoint(checkpoint(*before)));
                return Ok(stream::once(async { Ok(last) }).boxed());
            }
            Created::Begun(begun) => begun,
        };
        let health = self.health.clone();
        let telling = Telling {
            begun,
            first: true,
            leaving: Box::pin(async move { health.reached(Stage::Leaving).await }),
            context: context.clone(),
        };
        // A message is made when the connection has room for it.
        let messages = stream::unfold(Some(telling), |telling| async {
            let mut telling = telling?;
            match telling.next().await {
                Ok(event @ Event::Checkpoint(_)) => Some((Ok(told(event)), None)),
                Ok(event) => Some((Ok(told(event)), Some(telling))),
                Err(error) => Some((Err(status::status(&error, &telling.context)), None)),
            }
        });
        Ok(messages.boxed())
    }

    pub(super) async fn checkpoints_page(
        &self,
        request: v1::ListCheckpointsRequest,
    ) -> Result<v1::ListCheckpointsResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        violations.check()?;
        let listed = self.checkpoints.list(size, &request.page_token).await?;
        Ok(v1::ListCheckpointsResponse {
            checkpoints: listed.checkpoints.into_iter().map(checkpoint).collect(),
            next_page_token: listed.next_page_token,
        })
    }

    pub(super) async fn checkpoint(&self, id: &str) -> Result<v1::GetCheckpointResponse> {
        let found = self.checkpoints.get(parse(id)?).await?;
        Ok(v1::GetCheckpointResponse {
            checkpoint: Some(checkpoint(found)),
        })
    }

    pub(super) async fn remove_checkpoint(
        &self,
        request: v1::DeleteCheckpointRequest,
    ) -> Result<v1::DeleteCheckpointResponse> {
        let found = self
            .checkpoints
            .delete(parse(&request.checkpoint_id)?)
            .await?;
        if found.is_none() && !request.allow_missing {
            return Err(Error::no_checkpoint(request.checkpoint_id));
        }
        Ok(v1::DeleteCheckpointResponse {
            checkpoint: found.map(checkpoint),
        })
    }

    pub(super) async fn verified(&self, id: &str) -> Result<v1::VerifyCheckpointResponse> {
        let verified = self.checkpoints.verify(parse(id)?).await?;
        let valid = verified.damaged.is_none();
        let (damaged_part, problem) = verified.damaged.unwrap_or_default();
        Ok(v1::VerifyCheckpointResponse {
            valid,
            damaged_part,
            problem,
            checkpoint: Some(checkpoint(verified.checkpoint)),
            purged_tenants: verified.purged,
        })
    }

    pub(super) async fn rewrap_keys(
        &self,
        request: v1::RewrapCheckpointKeysRequest,
    ) -> Result<v1::RewrapCheckpointKeysResponse> {
        let mut violations = Violations::default();
        let size = page::size(request.page_size, &mut violations);
        violations.check()?;
        let done = self
            .checkpoints
            .rewrap(size, &request.page_token, request.validate_only)
            .await?;
        let next_page_token = done.next_page_token.clone();
        Ok(v1::RewrapCheckpointKeysResponse {
            report: Some(keys_report(done)),
            next_page_token,
        })
    }
}

fn keys_report(done: Rewrapped) -> v1::CheckpointKeysReport {
    let lost = |key: LostKey| v1::LostCheckpointKey {
        part: key.part,
        master_key_id: key.master_key,
        reason: key.why,
    };
    let counts = done.master_keys.into_iter();
    v1::CheckpointKeysReport {
        master_key_id: done.master_key,
        checkpoint_id: done.checkpoint.map(|id| id.to_string()).unwrap_or_default(),
        being_taken: done.being_taken,
        keys: int64(done.keys),
        rewrapped: int64(done.rewrapped),
        master_keys: counts.map(|(id, count)| (id, int64(count))).collect(),
        lost: done.lost.into_iter().map(lost).collect(),
    }
}

/// A call that is told how far its checkpoint is.
struct Telling {
    begun: Begun,
    first: bool,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    context: Context,
}

impl Telling {
    async fn next(&mut self) -> Result<Event> {
        if !std::mem::take(&mut self.first) {
            tokio::select! {
                biased;
                taken = &mut self.begun.outcome => {
                    let taken = taken.unwrap_or_else(|error| {
                        Err(Error::Internal(format!("a checkpoint was cut off: {error}")))
                    });
                    return Ok(Event::Checkpoint(checkpoint(taken?)));
                }
                () = &mut self.leaving => return Err(Error::Draining),
                () = sleep(TELL) => {}
            }
        }
        let progress = *self.begun.progress.borrow();
        Ok(Event::Progress(told_of(&self.begun.id, &progress)))
    }
}

/// The id in a request, before it becomes the name of anything.
pub(super) fn parse(id: &str) -> Result<CheckpointId> {
    CheckpointId::parse(id).map_err(|error| Error::invalid("checkpoint_id", error.to_string()))
}

/// The components that a request names.
pub(super) fn components(named: &[i32], violations: &mut Violations) -> Vec<Component> {
    let mut components = Vec::with_capacity(named.len());
    for (at, number) in named.iter().enumerate() {
        let component = match v1::Component::try_from(*number) {
            Ok(v1::Component::Tenants) => Component::Tenants,
            Ok(v1::Component::Cache) => Component::Cache,
            Ok(v1::Component::Sessions) => Component::Sessions,
            Ok(v1::Component::Config) => Component::Config,
            Ok(v1::Component::Usage) => Component::Usage,
            Ok(v1::Component::Unspecified) | Err(_) => {
                let allowed = "not a component: TENANTS, CACHE, SESSIONS, CONFIG or USAGE";
                violations.add(format!("components[{at}]"), allowed);
                continue;
            }
        };
        components.push(component);
    }
    components
}

pub(super) fn component(component: Component) -> v1::Component {
    match component {
        Component::Tenants => v1::Component::Tenants,
        Component::Cache => v1::Component::Cache,
        Component::Sessions => v1::Component::Sessions,
        Component::Config => v1::Component::Config,
        Component::Usage => v1::Component::Usage,
    }
}

/// Counts as messages, by component.
pub(super) fn counts(counts: &Counts) -> Vec<v1::ComponentCount> {
    let counts = counts.iter().map(|(of, count)| v1::ComponentCount {
        component: component(*of).into(),
        records: int64(count.records),
        bytes: int64(count.bytes),
    });
    counts.collect()
}

fn told(event: Event) -> CreateCheckpointResponse {
    CreateCheckpointResponse { event: Some(event) }
}

fn told_of(id: &CheckpointId, progress: &Progress) -> v1::CheckpointProgress {
    v1::CheckpointProgress {
        checkpoint_id: id.to_string(),
        tenants_done: int64(progress.tenants_done),
        tenants: int64(progress.tenants),
        records_done: int64(progress.records_done),
        records: 0,
        bytes_done: int64(progress.bytes_done),
        phase: progress.phase.to_owned(),
    }
}

/// A checkpoint as a message.
pub(super) fn checkpoint(checkpoint: Checkpoint) -> v1::Checkpoint {
    let state = if checkpoint.complete {
        v1::CheckpointState::Complete
    } else {
        v1::CheckpointState::Incomplete
    };
    let mut message = v1::Checkpoint {
        checkpoint_id: checkpoint.id.to_string(),
        state: state.into(),
        size_bytes: int64(checkpoint.size_bytes),
        sha256: checkpoint.sha256,
        create_time: checkpoint.id.begun_ms().map(timestamp),
        problem: checkpoint.problem,
        ..v1::Checkpoint::default()
    };
    let Some(manifest) = checkpoint.manifest else {
        return message;
    };
    let kind = match manifest.cause {
        Cause::Manual => v1::CheckpointKind::Manual,
        Cause::Scheduled => v1::CheckpointKind::Scheduled,
        Cause::Shutdown => v1::CheckpointKind::Shutdown,
        Cause::Safety => v1::CheckpointKind::Safety,
    };
    message.kind = kind.into();
    let components = manifest.components.iter();
    message.components = components.map(|of| component(*of).into()).collect();
    message.counts = counts(&manifest.counts);
    message.create_time = Some(timestamp(manifest.create_ms));
    message.description = manifest.description;
    message.tenant_ids = manifest.tenant_ids;
    message.tenants = int64(manifest.tenants);
    let missed = manifest.missed.into_iter().map(|missed| v1::MissedTenant {
        tenant_id: missed.tenant_id,
        why: missed.why,
    });
    message.missed = missed.collect();
    message
}
