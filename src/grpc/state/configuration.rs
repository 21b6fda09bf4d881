//! GetConfig, ReloadConfig and WatchConfig: the configuration in force as messages.
//! It does not know how one is read.

use std::{pin::Pin, sync::Arc};

use futures::{StreamExt, stream};
use http::HeaderMap;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::Api;
use crate::{
    config::{Change, Effect, Problem, Setting, effect},
    error::{Error, Result},
    grpc::{Context, Stage, deadline, status},
    proto::v1::{
        ConfigChange, ConfigProblem, ConfigValue, GetConfigResponse, Reload as ReloadMessage,
        ReloadConfigRequest, ReloadConfigResponse, ReloadOutcome, WatchConfigResponse,
    },
    state::{Asked, InForce, Outcome, Reload, Trigger, Watch},
};

/// A stream of configurations.
pub(in crate::grpc) type Configurations =
    stream::BoxStream<'static, std::result::Result<WatchConfigResponse, Status>>;

impl Api {
    pub(super) fn config(&self) -> GetConfigResponse {
        let in_force = self.configuration.in_force();
        let value = |setting: &Setting| ConfigValue {
            path: setting.path.clone(),
            value: setting.value.clone(),
            source: setting.source.to_string(),
            requires_restart: effect(&setting.path) != Some(Effect::Reload),
        };
        GetConfigResponse {
            values: in_force.loaded.settings.iter().map(value).collect(),
            version: in_force.version,
            load_time: Some(in_force.load_time.into()),
            last_reload: in_force.last_reload.as_deref().map(message),
        }
    }

    pub(super) async fn reload(
        &self,
        request: &ReloadConfigRequest,
    ) -> Result<ReloadConfigResponse> {
        let expected = request.expected_version;
        if expected < 0 {
            let allowed = "must be a version, 1 or more, or 0 for any";
            return Err(Error::invalid("expected_version", allowed));
        }
        let asked = Asked {
            validate_only: request.validate_only,
            expected_version: (expected > 0).then_some(expected),
        };
        let reload = self.configuration.reload(Trigger::Rpc, asked).await?;
        Ok(ReloadConfigResponse {
            reload: Some(message(&reload)),
        })
    }

    pub(super) fn watch(&self, context: &Context, headers: &HeaderMap) -> Result<Configurations> {
        let health = self.health.clone();
        let watching = Watching {
            watch: self.configuration.watch(),
            until: deadline::asked(headers)?.map(|timeout| Instant::now() + timeout),
            leaving: Box::pin(async move { health.reached(Stage::Leaving).await }),
            context: context.clone(),
        };
        // A message is made when the connection has room for it.
        let messages = stream::unfold(Some(watching), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(message) => Some((Ok(message), Some(watching))),
                Err(error) => Some((Err(status::status(&error, &watching.context)), None)),
            }
        });
        Ok(messages.boxed())
    }
}

/// A call that watches.
struct Watching {
    watch: Watch,
    /// When the caller's own deadline ends the call.
    until: Option<Instant>,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
    context: Context,
}

impl Watching {
    async fn next(&mut self) -> Result<WatchConfigResponse> {
        let until = self.until.unwrap_or_else(Instant::now);
        let next = tokio::select! {
            biased;
            () = &mut self.leaving => return Err(Error::Draining),
            () = sleep_until(until), if self.until.is_some() => return Err(Error::DeadlineExceeded),
            next = self.watch.next() => next,
        };
        // A configuration outlives the calls of its server.
        let in_force: Arc<InForce> = next.ok_or(Error::Draining)?;
        // What it tells of may be that the caller is no admin any more.
        self.context.caller.lasting()?;
        Ok(WatchConfigResponse {
            version: in_force.version,
            reload: in_force.last_reload.as_deref().map(message),
        })
    }
}

fn message(reload: &Reload) -> ReloadMessage {
    let changes = |changes: &[Change]| changes.iter().map(change).collect();
    let outcome = match reload.outcome {
        Outcome::Applied => ReloadOutcome::Applied,
        Outcome::Unchanged => ReloadOutcome::Unchanged,
        Outcome::Rejected => ReloadOutcome::Rejected,
    };
    ReloadMessage {
        time: Some(reload.time.into()),
        trigger: reload.trigger.name().to_owned(),
        outcome: outcome.into(),
        version: reload.version,
        changes: changes(&reload.changes),
        requires_restart: changes(&reload.requires_restart),
        problems: reload.problems.iter().map(problem).collect(),
    }
}

fn change(change: &Change) -> ConfigChange {
    ConfigChange {
        path: change.path.clone(),
        old: change.old.clone(),
        new: change.new.clone(),
    }
}

fn problem(problem: &Problem) -> ConfigProblem {
    ConfigProblem {
        path: problem.path.clone(),
        source: problem.source.to_string(),
        description: problem.message.clone(),
    }
}
