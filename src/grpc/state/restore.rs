//! Restores as messages, and checkpoints that are carried away or brought. It does not
//! know how either is done.

use std::pin::Pin;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::{
    Api,
    checkpoint::{checkpoint, components, counts, parse},
};
use crate::{
    error::{Error, Result, Violations},
    grpc::{Context, Stage, convert::int64, status},
    proto::v1::{
        self, DownloadCheckpointResponse, RestoreCheckpointResponse,
        restore_checkpoint_response::Event, restore_step,
    },
    state::restore::{Action, Asked, Conflict, Failure, Outcome, Plan, Progress, Told},
};

/// A stream that tells how far a restore is.
pub(in crate::grpc) type Restoring =
    stream::BoxStream<'static, std::result::Result<RestoreCheckpointResponse, Status>>;

/// A stream of the pieces of an archive.
pub(in crate::grpc) type Pieces =
    stream::BoxStream<'static, std::result::Result<DownloadCheckpointResponse, Status>>;

/// Tenants that a restore can be asked for by name.
const MAX_TENANTS: usize = 10_000;

/// Pieces of an upload that wait to be taken.
const WAITING: usize = 2;

impl Api {
    pub(super) async fn restore(
        &self,
        context: &Context,
        request: v1::RestoreCheckpointRequest,
    ) -> Result<Restoring> {
        let mut violations = Violations::default();
        let named = components(&request.components, &mut violations);
        let conflict = match v1::RestoreConflict::try_from(request.conflict) {
            Ok(v1::RestoreConflict::Unspecified | v1::RestoreConflict::Fail) => Conflict::Fail,
            Ok(v1::RestoreConflict::Replace) => Conflict::Replace,
            Ok(v1::RestoreConflict::Skip) => Conflict::Skip,
            Err(_) => {
                violations.add("conflict", "not known: FAIL, REPLACE and SKIP are allowed");
                Conflict::Fail
            }
        };
        violations.require(
            request.tenant_ids.len() <= MAX_TENANTS,
            "tenant_ids",
            "more than 10000: leave them empty to restore all",
        );
        if let Err(Error::Invalid(found)) = parse(&request.checkpoint_id) {
            for violation in found {
                violations.add(violation.field, violation.description);
            }
        }
        violations.check()?;
        let asked = Asked {
            checkpoint_id: request.checkpoint_id.clone(),
            tenant_ids: request.tenant_ids,
            components: named.into_iter().collect(),
            conflict,
        };
        let told = self
            .restores
            .begin(asked, request.request_id, request.validate_only);
        let listening = Listening {
            first: None,
            told,
            checkpoint_id: request.checkpoint_id,
            leaving: self.leaving(),
            context: context.clone(),
        };
        listening.begin().await
    }

    /// Resolves when the server leaves.
    fn leaving(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let health = self.health.clone();
        Box::pin(async move { health.reached(Stage::Leaving).await })
    }

    pub(super) async fn download(&self, context: &Context, id: &str) -> Result<Pieces> {
        let mut pieces = self.restores.send(parse(id)?);
        let first = pieces.recv().await.transpose()?;
        let context = context.clone();
        let leaving = self.leaving();
        let state = (first, pieces, leaving, context);
        let messages = stream::unfold(Some(state), |state| async {
            let (first, mut pieces, mut leaving, context) = state?;
            let next = match first {
                Some(first) => Some(Ok(first)),
                None => tokio::select! {
                    biased;
                    () = &mut leaving => Some(Err(Error::Draining)),
                    next = pieces.recv() => next,
                },
            };
            match next? {
                Ok(piece) => {
                    let chunk = piece.into();
                    let message = DownloadCheckpointResponse { chunk };
                    Some((Ok(message), Some((None, pieces, leaving, context))))
                }
                Err(error) => Some((Err(status::status(&error, &context)), None)),
            }
        });
        Ok(messages.boxed())
    }

    pub(super) async fn upload(
        &self,
        mut messages: Streaming<v1::UploadCheckpointRequest>,
    ) -> std::result::Result<Result<v1::UploadCheckpointResponse>, Status> {
        let (to, pieces) = mpsc::channel::<Option<Bytes>>(WAITING);
        let taken = self.restores.receive(pieces);
        let mut leaving = self.leaving();
        loop {
            // Where this is dropped, or fails, the end is not told: nothing stays.
            let message = tokio::select! {
                biased;
                () = &mut leaving => return Ok(Err(Error::Draining)),
                message = messages.message() => message?,
            };
            let ended = message.is_none();
            let refused = to.send(message.map(|m| m.chunk.into())).await.is_err();
            if ended || refused {
                break;
            }
        }
        let finished = async {
            let taken = taken.await;
            let id =
                taken.map_err(|e| Error::Internal(format!("an upload was cut off: {e}")))??;
            let found = self.checkpoints.get(id).await?;
            Ok(v1::UploadCheckpointResponse {
                checkpoint: Some(checkpoint(found)),
            })
        };
        Ok(finished.await)
    }
}

/// A call that is told how far its restore is.
struct Listening {
    first: Option<Told>,
    told: mpsc::Receiver<Result<Told>>,
    checkpoint_id: String,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    context: Context,
}

impl Listening {
    /// The stream, once there is something to tell.
    async fn begin(mut self) -> Result<Restoring> {
        self.first = self.told.recv().await.transpose()?;
        let messages = stream::unfold(Some(self), |listening| async {
            let mut listening = listening?;
            match listening.next().await? {
                Ok(told) => {
                    let event = Some(event(&listening.checkpoint_id, told));
                    Some((Ok(RestoreCheckpointResponse { event }), Some(listening)))
                }
                Err(error) => Some((Err(status::status(&error, &listening.context)), None)),
            }
        });
        Ok(messages.boxed())
    }

    async fn next(&mut self) -> Option<Result<Told>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        tokio::select! {
            biased;
            () = &mut self.leaving => Some(Err(Error::Draining)),
            told = self.told.recv() => told,
        }
    }
}

fn event(checkpoint_id: &str, told: Told) -> Event {
    match told {
        Told::Plan(plan) => Event::Plan(planned(plan)),
        Told::Progress(progress) => Event::Progress(told_of(checkpoint_id, &progress)),
        Told::Done(outcome) => Event::Result(result(outcome)),
    }
}

fn planned(plan: Plan) -> v1::RestorePlan {
    let (creates, replaces, skips) = (
        plan.count(Action::Create),
        plan.count(Action::Replace),
        plan.count(Action::Skip),
    );
    let step = |step: crate::state::restore::Planned| {
        let action = match step.action {
            Action::Create => restore_step::Action::Create,
            Action::Replace => restore_step::Action::Replace,
            Action::Skip => restore_step::Action::Skip,
        };
        v1::RestoreStep {
            tenant_id: step.tenant_id,
            action: action.into(),
            why: step.why,
            counts: counts(&step.counts),
        }
    };
    let difference = |difference: crate::state::restore::Difference| v1::ConfigDifference {
        path: difference.path,
        checkpoint: difference.there,
        here: difference.here,
    };
    v1::RestorePlan {
        steps: plan.steps.into_iter().map(step).collect(),
        creates: int64(creates),
        replaces: int64(replaces),
        skips: int64(skips),
        config: plan.differences.into_iter().map(difference).collect(),
    }
}

fn told_of(checkpoint_id: &str, progress: &Progress) -> v1::CheckpointProgress {
    v1::CheckpointProgress {
        checkpoint_id: checkpoint_id.to_owned(),
        tenants_done: int64(progress.tenants_done),
        tenants: int64(progress.tenants),
        records_done: int64(progress.records_done),
        records: int64(progress.records),
        bytes_done: int64(progress.bytes_done),
        phase: progress.phase.to_owned(),
    }
}

fn result(outcome: Outcome) -> v1::RestoreResult {
    let failure = |Failure { tenant_id, why }| v1::RestoreFailure {
        tenant_id,
        status: Some(tonic_types::Status {
            code: tonic::Code::FailedPrecondition.into(),
            message: why,
            details: Vec::new(),
        }),
    };
    v1::RestoreResult {
        created: int64(outcome.created),
        replaced: int64(outcome.replaced),
        skipped: int64(outcome.skipped),
        counts: counts(&outcome.counts),
        safety_checkpoint_id: outcome.safety,
        failures: outcome.failures.into_iter().map(failure).collect(),
    }
}
