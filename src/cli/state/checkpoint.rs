//! `state checkpoint`: checkpoints taken, listed, verified, removed and restored. It
//! does not know what is in them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        json,
        output::{self, show},
    },
    proto::v1::{
        Checkpoint as Message, CheckpointKind, CheckpointProgress, CheckpointState, Component,
        ComponentCount, CreateCheckpointRequest, DeleteCheckpointRequest, ListCheckpointsRequest,
        MissedTenant, VerifyCheckpointRequest, create_checkpoint_response::Event,
    },
};

/// How often a bar that does not move is drawn anew.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take a checkpoint, and show how far it is. It goes on where this is ended.
    Create(Create),
    /// List checkpoints, the newest first.
    List(List),
    /// Read, open and count every part of a checkpoint: exit code 1 where it is damaged.
    Verify(Verify),
    /// Remove a checkpoint.
    Delete(Delete),
    /// Restore tenants from a checkpoint, after a look at the plan.
    Restore(super::restore::Restore),
    /// Write a checkpoint to a file.
    Download(super::archive::Download),
    /// Put a file that `download` wrote among the checkpoints, once it is verified.
    Upload(super::archive::Upload),
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// Only these tenants; can be given many times.
    #[arg(long = "only", value_name = "TENANT")]
    tenant_ids: Vec<String>,
    /// What it holds [default: all but cache].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAMES")]
    components: Vec<Part>,
    /// Why, for whoever reads the list.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// A UUID that makes a retry safe.
    #[arg(
        long,
        value_name = "UUID",
        default_value = "",
        hide_default_value = true
    )]
    request_id: String,
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

impl Part {
    fn component(self) -> Component {
        match self {
            Self::Tenants => Component::Tenants,
            Self::Cache => Component::Cache,
            Self::Sessions => Component::Sessions,
            Self::Config => Component::Config,
            Self::Usage => Component::Usage,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// At most so many; all where it is not given.
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Its id.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint_id: String,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// Its id.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint_id: String,
    /// No failure where there is none.
    #[arg(long)]
    allow_missing: bool,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect(global).await?;
        match self {
            Self::Create(create) => create.run(global, &client).await,
            Self::List(list) => list.run(global, &client).await,
            Self::Verify(verify) => verify.run(global, &client).await,
            Self::Delete(delete) => delete.run(global, &client).await,
            Self::Restore(restore) => restore.run(global, &client).await,
            Self::Download(download) => download.run(global, &client).await,
            Self::Upload(upload) => upload.run(global, &client).await,
        }
    }
}

impl Create {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let components = self.components.iter();
        let request = client.lasting(CreateCheckpointRequest {
            tenant_ids: self.tenant_ids,
            components: components.map(|part| part.component().into()).collect(),
            description: self.description,
            request_id: self.request_id,
        });
        let events = client.states().create_checkpoint(request).await?;
        let mut events = events.into_inner();
        let bar = bar();
        let taken = loop {
            match events.message().await?.and_then(|message| message.event) {
                Some(Event::Progress(progress)) => tell(&bar, &progress),
                Some(Event::Checkpoint(taken)) => break taken,
                None => {
                    let ended = "the server ended the call without a checkpoint";
                    return Err(Failure::new(Exit::Failed, ended));
                }
            }
        };
        bar.finish_and_clear();
        let told = checkpoint(&taken);
        show(global.output, &told, || output::record(&told))
    }
}

impl List {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut found = Vec::new();
        let mut page_token = String::new();
        let wanted = self.limit.unwrap_or(usize::MAX);
        loop {
            let left = wanted.saturating_sub(found.len());
            let request = client.request(ListCheckpointsRequest {
                page_size: i32::try_from(left.min(1000)).unwrap_or(1000),
                page_token,
            });
            let page = client
                .states()
                .list_checkpoints(request)
                .await?
                .into_inner();
            found.extend(page.checkpoints.iter().map(checkpoint).take(left));
            page_token = page.next_page_token;
            if page_token.is_empty() || found.len() >= wanted {
                break;
            }
        }
        let fields = [
            "checkpoint_id",
            "kind",
            "state",
            "tenants",
            "size_bytes",
            "create_time",
            "description",
        ];
        let told = json!({ "checkpoints": found });
        show(global.output, &told, || output::list(&found, &fields))
    }
}

impl Verify {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let bar = bar();
        bar.set_message("verifying");
        let request = client.lasting(VerifyCheckpointRequest {
            checkpoint_id: self.checkpoint_id,
        });
        let found = client.states().verify_checkpoint(request).await;
        bar.finish_and_clear();
        let found = found?.into_inner();
        let told = json!({
            "valid": found.valid,
            "damaged_part": found.damaged_part,
            "problem": found.problem,
            "purged_tenants": found.purged_tenants,
            "checkpoint": found.checkpoint.as_ref().map(checkpoint),
        });
        show(global.output, &told, || output::record(&told))?;
        if found.valid {
            Ok(())
        } else {
            Err(Failure::told(Exit::Failed))
        }
    }
}

impl Delete {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let request = client.request(DeleteCheckpointRequest {
            checkpoint_id: self.checkpoint_id,
            allow_missing: self.allow_missing,
        });
        let gone = client.states().delete_checkpoint(request).await?;
        let gone = gone.into_inner().checkpoint;
        let told = json!({ "checkpoint": gone.as_ref().map(checkpoint) });
        show(global.output, &told, || match &gone {
            Some(gone) => format!("removed {}", gone.checkpoint_id),
            None => "there was none".to_owned(),
        })
    }
}

/// A bar on standard error, where that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_bar} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(TICK);
    bar
}

fn tell(bar: &ProgressBar, progress: &CheckpointProgress) {
    let number = |figure: i64| u64::try_from(figure).unwrap_or(0);
    bar.set_length(number(progress.tenants));
    bar.set_position(number(progress.tenants_done));
    bar.set_message(format!(
        "{} {}/{} tenants, {} records, {} MiB",
        progress.phase,
        progress.tenants_done,
        progress.tenants,
        progress.records_done,
        progress.bytes_done >> 20
    ));
}

/// A checkpoint as JSON.
pub(super) fn checkpoint(message: &Message) -> Value {
    let kind = CheckpointKind::try_from(message.kind).map(|kind| kind.as_str_name());
    let state = CheckpointState::try_from(message.state).map(|state| state.as_str_name());
    let component = |number: i32| {
        let component = Component::try_from(number).map(|component| component.as_str_name());
        json::name(component, "COMPONENT_")
    };
    let count = |count: &ComponentCount| {
        json!({
            "component": component(count.component),
            "records": count.records,
            "bytes": count.bytes,
        })
    };
    let missed = |missed: &MissedTenant| json!({"tenant_id": missed.tenant_id, "why": missed.why});
    let components: Vec<_> = message.components.iter().map(|of| component(*of)).collect();
    json!({
        "checkpoint_id": message.checkpoint_id,
        "kind": json::name(kind, "CHECKPOINT_KIND_"),
        "state": json::name(state, "CHECKPOINT_STATE_"),
        "components": components,
        "counts": message.counts.iter().map(count).collect::<Vec<_>>(),
        "size_bytes": message.size_bytes,
        "sha256": message.sha256,
        "create_time": json::time(message.create_time),
        "description": message.description,
        "tenant_ids": message.tenant_ids,
        "tenants": message.tenants,
        "missed": message.missed.iter().map(missed).collect::<Vec<_>>(),
        "problem": message.problem,
    })
}
