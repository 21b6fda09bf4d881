//! `state checkpoint restore`: the plan, and once it was agreed to, the restore as it
//! goes. It does not know what a checkpoint holds but by what the server says.

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::progress::Bar;
use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        json,
        output::{self, show},
    },
    proto::v1::{
        Component, ComponentCount, RestoreCheckpointRequest, RestoreConflict, RestorePlan,
        RestoreResult, RestoreStep, restore_checkpoint_response::Event, restore_step::Action,
    },
};

#[derive(Args, Debug)]
pub(in crate::cli) struct Restore {
    /// The checkpoint.
    checkpoint_id: String,
    /// Only these tenants.
    #[arg(long = "only", value_name = "TENANT_ID", value_delimiter = ',')]
    tenants: Vec<String>,
    /// Only these components of what it holds.
    #[arg(long, value_enum, value_delimiter = ',')]
    components: Vec<Part>,
    /// What becomes of tenants that are there already.
    #[arg(long, value_enum, default_value_t = Conflict::Fail)]
    conflict: Conflict,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    plan: bool,
    /// A UUID: the same command goes on with a restore that was cut off.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    request_id: String,
    /// Do not ask before what is there is replaced.
    #[arg(long)]
    yes: bool,
}

/// What a checkpoint can hold.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    Tenants,
    Cache,
    Sessions,
    Config,
    Usage,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Conflict {
    /// Nothing is restored.
    Fail,
    /// They are replaced, and kept in a checkpoint of their own.
    Replace,
    /// They stay.
    Skip,
}

impl Restore {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let components = self.components.iter().map(|part| match part {
            Part::Tenants => Component::Tenants,
            Part::Cache => Component::Cache,
            Part::Sessions => Component::Sessions,
            Part::Config => Component::Config,
            Part::Usage => Component::Usage,
        });
        let conflict = match self.conflict {
            Conflict::Fail => RestoreConflict::Fail,
            Conflict::Replace => RestoreConflict::Replace,
            Conflict::Skip => RestoreConflict::Skip,
        };
        let request = RestoreCheckpointRequest {
            checkpoint_id: self.checkpoint_id.clone(),
            tenant_ids: self.tenants.clone(),
            components: components.map(Into::into).collect(),
            validate_only: true,
            conflict: conflict.into(),
            request_id: String::new(),
        };
        let asks = matches!(self.conflict, Conflict::Replace) && !self.yes;
        if self.plan || asks {
            let plan = plan(client, request.clone()).await?;
            if self.plan {
                return show(global.output, &planned(&plan), || plan_lines(&plan));
            }
            if plan.replaces > 0 {
                agree(&plan)?;
            }
        }
        let request = RestoreCheckpointRequest {
            validate_only: false,
            request_id: self.request_id,
            ..request
        };
        let result = restore(client, request).await?;
        show(global.output, &restored(&result), || result_lines(&result))?;
        if result.failures.is_empty() {
            Ok(())
        } else {
            Err(Failure::told(Exit::Failed))
        }
    }
}

async fn plan(client: &Client, request: RestoreCheckpointRequest) -> Result<RestorePlan, Failure> {
    let mut states = client.states();
    let answer = states.restore_checkpoint(client.lasting(request)).await?;
    let mut told = answer.into_inner();
    while let Some(message) = told.message().await? {
        if let Some(Event::Plan(plan)) = message.event {
            return Ok(plan);
        }
    }
    Err(Failure::new(Exit::Failed, "the server told no plan"))
}

async fn restore(
    client: &Client,
    request: RestoreCheckpointRequest,
) -> Result<RestoreResult, Failure> {
    let mut states = client.states();
    let answer = states.restore_checkpoint(client.lasting(request)).await?;
    let mut told = answer.into_inner();
    let bar = Bar::records();
    while let Some(message) = told.message().await? {
        match message.event {
            Some(Event::Progress(progress)) => bar.told(&progress),
            Some(Event::Result(result)) => {
                bar.clear();
                return Ok(result);
            }
            Some(Event::Plan(_)) | None => {}
        }
    }
    Err(Failure::new(
        Exit::Failed,
        "the server did not tell what it did; ask again with the same --request-id",
    ))
}

/// Asks a person whether what is there may be replaced.
fn agree(plan: &RestorePlan) -> Result<(), Failure> {
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "{}", plan_lines(plan));
    let tenants = match plan.replaces {
        1 => "1 tenant".to_owned(),
        replaces => format!("{replaces} tenants"),
    };
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "{tenants} would be replaced: say --yes"
        )));
    }
    let _ = write!(stderr, "Replace {tenants}? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was restored")),
    }
}

fn counts(counts: &[ComponentCount]) -> Value {
    let count = |count: &ComponentCount| {
        let name = Component::try_from(count.component).map(|name| name.as_str_name());
        json!({
            "component": json::name(name, "COMPONENT_"),
            "records": count.records,
            "bytes": count.bytes,
        })
    };
    counts.iter().map(count).collect()
}

fn planned(plan: &RestorePlan) -> Value {
    let step = |step: &RestoreStep| {
        let action = Action::try_from(step.action).map(|action| action.as_str_name());
        json!({
            "tenant_id": step.tenant_id,
            "action": json::name(action, "ACTION_"),
            "why": step.why,
            "counts": counts(&step.counts),
        })
    };
    let difference = |of: &crate::proto::v1::ConfigDifference| json!({ "path": of.path, "checkpoint": of.checkpoint, "here": of.here });
    json!({
        "steps": plan.steps.iter().map(step).collect::<Vec<_>>(),
        "creates": plan.creates,
        "replaces": plan.replaces,
        "skips": plan.skips,
        "config": plan.config.iter().map(difference).collect::<Vec<_>>(),
    })
}

fn plan_lines(plan: &RestorePlan) -> String {
    let row = |step: &RestoreStep| {
        let action = Action::try_from(step.action).map(|action| action.as_str_name());
        let of = |component: Component| {
            let count = step.counts.iter().find(|c| c.component() == component);
            count.map_or(0, |count| count.records)
        };
        json!({
            "tenant_id": step.tenant_id,
            "action": json::name(action, "ACTION_"),
            "entries": of(Component::Cache),
            "sessions": of(Component::Sessions),
            "why": step.why,
        })
    };
    let rows: Vec<_> = plan.steps.iter().map(row).collect();
    let fields = ["tenant_id", "action", "entries", "sessions", "why"];
    let mut lines = output::list(&rows, &fields);
    if !plan.config.is_empty() {
        let differs: Vec<_> = plan
            .config
            .iter()
            .map(|of| json!({ "setting": of.path, "checkpoint": of.checkpoint, "here": of.here }))
            .collect();
        let fields = ["setting", "checkpoint", "here"];
        lines = format!("{lines}\n\n{}", output::list(&differs, &fields));
    }
    lines
}

fn restored(result: &RestoreResult) -> Value {
    let failure = |failure: &crate::proto::v1::RestoreFailure| {
        let why = failure.status.as_ref().map(|status| status.message.clone());
        json!({ "tenant_id": failure.tenant_id, "why": why.unwrap_or_default() })
    };
    json!({
        "created": result.created,
        "replaced": result.replaced,
        "skipped": result.skipped,
        "counts": counts(&result.counts),
        "safety_checkpoint_id": result.safety_checkpoint_id,
        "failures": result.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

fn result_lines(result: &RestoreResult) -> String {
    let mut lines = format!(
        "created {}, replaced {}, skipped {}",
        result.created, result.replaced, result.skipped
    );
    for count in &result.counts {
        let name = Component::try_from(count.component).map(|name| name.as_str_name());
        let name = json::name(name, "COMPONENT_");
        let name = name.as_str().unwrap_or_default().to_lowercase();
        lines += &format!("\n{name}: {} records, {} bytes", count.records, count.bytes);
    }
    if !result.safety_checkpoint_id.is_empty() {
        let id = &result.safety_checkpoint_id;
        lines += &format!("\nwhat was replaced is in checkpoint {id}");
    }
    for failure in &result.failures {
        let why = failure
            .status
            .as_ref()
            .map_or("", |status| status.message.as_str());
        lines += &format!("\nnot restored: {}: {why}", failure.tenant_id);
    }
    lines
}
