//! `state reload`: a reload of one replica, and what became of it. It does not know
//! what a setting means.

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        json,
        output::{self, show},
    },
    proto::v1::{
        ConfigChange, ConfigProblem, Reload as Message, ReloadConfigRequest, ReloadOutcome,
    },
};

#[derive(Args, Debug)]
pub(crate) struct Reload {
    /// Only check, and show what would change.
    #[arg(long)]
    validate_only: bool,
    /// Only if this version is in force; 0 means any.
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 0,
        hide_default_value = true
    )]
    expected_version: i64,
}

impl Reload {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect(global).await?;
        let request = client.request(ReloadConfigRequest {
            validate_only: self.validate_only,
            expected_version: self.expected_version,
        });
        let answer = client.states().reload_config(request).await?.into_inner();
        let reload = answer.reload.unwrap_or_default();
        show(global.output, &reloaded(&reload), || {
            lines(&reload, self.validate_only)
        })?;
        match reload.outcome() {
            ReloadOutcome::Rejected => Err(Failure::told(Exit::Failed)),
            _ => Ok(()),
        }
    }
}

/// The reload as JSON.
fn reloaded(reload: &Message) -> Value {
    let change = |change: &ConfigChange| {
        json!({
            "path": change.path,
            "old": change.old,
            "new": change.new,
        })
    };
    let problem = |problem: &ConfigProblem| {
        json!({
            "path": problem.path,
            "source": problem.source,
            "description": problem.description,
        })
    };
    let changes = |all: &[ConfigChange]| all.iter().map(change).collect::<Vec<_>>();
    let outcome = ReloadOutcome::try_from(reload.outcome).map(|outcome| outcome.as_str_name());
    json!({
        "time": json::time(reload.time),
        "trigger": reload.trigger,
        "outcome": json::name(outcome, "RELOAD_OUTCOME_"),
        "version": reload.version,
        "changes": changes(&reload.changes),
        "requires_restart": changes(&reload.requires_restart),
        "problems": reload.problems.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn lines(reload: &Message, validate_only: bool) -> String {
    let version = reload.version;
    let head = match (reload.outcome(), validate_only) {
        (ReloadOutcome::Applied, false) => format!("applied: version {version} is in force"),
        (ReloadOutcome::Applied, true) => {
            format!("valid; nothing is changed yet, version {version} is in force")
        }
        (ReloadOutcome::Rejected, _) => format!("rejected: version {version} stays in force"),
        (ReloadOutcome::Unchanged | ReloadOutcome::Unspecified, _) => {
            format!("unchanged: version {version} is in force")
        }
    };
    if reload.outcome() == ReloadOutcome::Rejected {
        let problem = |problem: &ConfigProblem| {
            json!({
                "setting": problem.path,
                "source": problem.source,
                "problem": problem.description,
            })
        };
        let problems: Vec<_> = reload.problems.iter().map(problem).collect();
        let fields = ["setting", "source", "problem"];
        return format!("{head}\n\n{}", output::list(&problems, &fields));
    }
    let at_once = if validate_only { "reload" } else { "now" };
    let row = |(change, in_force): (&ConfigChange, &str)| {
        json!({
            "setting": change.path,
            "old": change.old,
            "new": change.new,
            "in_force": in_force,
        })
    };
    let changes = reload.changes.iter().map(|change| (change, at_once));
    let waits = reload.requires_restart.iter();
    let waits = waits.map(|change| (change, "after a restart"));
    let rows: Vec<_> = changes.chain(waits).map(row).collect();
    if rows.is_empty() {
        return head;
    }
    let fields = ["setting", "old", "new", "in_force"];
    format!("{head}\n\n{}", output::list(&rows, &fields))
}
