//! `billing export`: the closed statements of all tenants for a period, in one
//! file. It does not compute anything.

mod part;
mod rows;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::{Instant, sleep};

use self::{
    part::{Export as What, Opened, Part},
    rows::Format,
};
use super::{
    client::{self, Client, Global},
    failure::{Exit, Failure},
    output::{self, show},
};
use crate::proto::v1::{ListStatementsRequest, ListStatementsResponse};

/// How often a period that is not complete is looked at again.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write the closed statements of a period, of all tenants, to a file. An
    /// export that was interrupted goes on where it stood when it is run again.
    #[command(after_help = EXPORT_HELP)]
    Export(Export),
}

const EXPORT_HELP: &str = "\
CSV is RFC 4180: a header, then a row for each line of each statement. JSON is one
array of statements, one on each line, as `tenant billing -o json` shows them.
Amounts are in micros, millionths of the currency.

The export is written to FILE.part, with where it stands in FILE.part.state, and
becomes FILE when it is whole. To begin anew, remove both.";

#[derive(Args, Debug)]
pub(super) struct Export {
    /// The period, a month in UTC that is over, such as 2026-10.
    #[arg(long, value_name = "MONTH")]
    period: String,
    /// How it is written.
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// Where to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace FILE if there is one.
    #[arg(long)]
    force: bool,
    /// Export what is closed so far, also while there is more to come.
    #[arg(long, conflicts_with = "wait")]
    partial: bool,
    /// Wait so long for the period to be complete, such as 10m.
    #[arg(long, value_name = "TIME", value_parser = client::duration)]
    wait: Option<Duration>,
    /// Statements asked for at a time, up to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(i32).range(1..=1000))]
    page_size: i32,
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Export(export) => export.run(global).await,
        }
    }
}

impl Export {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let what = What {
            period: self.period.clone(),
            format: self.format,
            partial: self.partial,
        };
        let mut part = match Part::open(&self.out, what, self.force)? {
            Opened::Part(part) => part,
            // It was interrupted after the last step that mattered.
            Opened::Whole(done) => return self.tell(global, &done),
        };
        let begun = part.progress().statements;
        let exported = self.export(global, &mut part).await;
        if let Err(failure) = exported {
            let statements = part.progress().statements;
            return Err(match part.leave() {
                true => failure.with(format!(
                    "{statements} statements are in {}.part; the same command goes on from there",
                    self.out.display()
                )),
                false => failure,
            });
        }
        let mut done = part.finish()?;
        done.resumed_from = begun;
        self.tell(global, &done)
    }

    /// Page by page, from where the part stands to the end.
    async fn export(&self, global: &Global, part: &mut Part) -> Result<(), Failure> {
        if part.progress().whole {
            return Ok(());
        }
        let client = Client::connect(global).await?;
        let bar = bar();
        let mut page = match part.progress().page_token.is_empty() {
            true => self.complete(&client).await?,
            false => self.page(&client, &part.progress().page_token).await?,
        };
        loop {
            let last = page.next_page_token.is_empty();
            if last && !self.partial {
                self.all(part.progress().statements, &page)?;
            }
            part.append(&page)?;
            bar.set_length(u64::try_from(page.total_size).unwrap_or(0));
            bar.set_position(part.progress().statements);
            if last {
                bar.finish_and_clear();
                return Ok(());
            }
            page = self.page(&client, &page.next_page_token).await?;
        }
    }

    /// That with the last page, behind so many statements, all are listed.
    fn all(&self, before: u64, last: &ListStatementsResponse) -> Result<(), Failure> {
        let (listed, total) = (before + last.statements.len() as u64, last.total_size);
        if u64::try_from(total) == Ok(listed) {
            return Ok(());
        }
        let message = format!(
            "the server has {total} statements of {} and listed {listed}",
            self.period
        );
        Err(Failure::new(Exit::Failed, message))
    }

    async fn page(&self, client: &Client, token: &str) -> Result<ListStatementsResponse, Failure> {
        let request = ListStatementsRequest {
            period: self.period.clone(),
            page_size: self.page_size,
            page_token: token.to_owned(),
        };
        let mut tenants = client.tenants();
        let page = tenants.list_statements(client.request(request)).await?;
        Ok(page.into_inner())
    }

    /// The first page, once the period is complete, or where that does not matter.
    async fn complete(&self, client: &Client) -> Result<ListStatementsResponse, Failure> {
        let until = self.wait.and_then(|wait| Instant::now().checked_add(wait));
        loop {
            let page = self.page(client, "").await?;
            if page.complete || self.partial {
                return Ok(page);
            }
            if until.is_none_or(|until| Instant::now() >= until) {
                let message = format!(
                    "{} is not complete: {} statements are closed, and there will be more",
                    self.period, page.total_size
                );
                return Err(Failure::new(Exit::Failed, message)
                    .with("wait for it with --wait 10m, or export what is closed with --partial"));
            }
            sleep(LOOK).await;
        }
    }

    fn tell(&self, global: &Global, done: &part::Progress) -> Result<(), Failure> {
        let result = json!({
            "file": self.out.display().to_string(),
            "period": self.period,
            "statements": done.statements,
            "rows": done.rows,
            "bytes": done.bytes,
            "sha256": done.sha256,
            "resumed_from": done.resumed_from,
        });
        show(global.output, &result, || output::record(&result))
    }
}

/// On standard error, and only where that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{wide_bar} {pos} of {len} statements, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("#>-"));
    }
    bar
}
