//! `audit`: what was asked for, by whom, and how it ended. It does not know who is told
//! of, nor how that is kept.

mod chains;
mod verification;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use prost_types::Timestamp;
use serde_json::json;
use tokio::time::sleep;

use self::verification::Verify;
use super::{
    client::{self, Client, Global},
    failure::Failure,
    json,
    output::{self, Format, show},
    tenant::PAGE,
};
use crate::proto::v1::{AuditEvent, ListAuditEventsRequest, ListAuditEventsResponse};

/// How often `follow` looks for more.
const LOOK: Duration = Duration::from_secs(1);

/// How far back it looks: an event is listed a moment after its time.
const OVERLAP_S: i64 = 60;

/// What a table shows of an event.
const FIELDS: [&str; 8] = [
    "time",
    "actor",
    "rpc",
    "tenant_id",
    "outcome",
    "count",
    "peer",
    "request_id",
];

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List events in the order of time, the oldest first; with --tenant only those
    /// about a tenant.
    List(List),
    /// Print events as they come, until it is interrupted.
    Follow(Follow),
    /// Read all events and check their chains: whether any was changed, removed or
    /// moved since it was written. Exit code 1 where one was.
    #[command(after_help = VERIFY_HELP)]
    Verify(Verify),
}

const VERIFY_HELP: &str = "\
Who can write to the store can write whole chains anew, with hashes that fit. With
--heads FILE that is found as well, from the second time on: the file keeps where each
chain ended, and what stood there must stand there still. Keep it where those who can
write to the store cannot.";

#[derive(Args, Debug)]
pub(super) struct Which {
    /// Only events from this time on: 2h (ago), 2026-11-24 or 2026-11-24T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = ago)]
    since: Option<Timestamp>,
    /// Only events of this actor: a key_id, or `admin`.
    #[arg(long, value_name = "KEY_ID")]
    actor: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    /// Only events before this time, likewise.
    #[arg(long, value_name = "TIME", value_parser = ago)]
    until: Option<Timestamp>,
    /// At most so many.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,
}

#[derive(Args, Debug)]
pub(super) struct Follow {
    #[command(flatten)]
    which: Which,
}

/// Reads a time, or how long ago it was.
fn ago(text: &str) -> Result<Timestamp, String> {
    let Ok(span) = client::duration(text) else {
        let allowed = "a time, or how long ago it was: 2h, 2026-11-24, 2026-11-24T10:00:00Z";
        return client::moment(text).map_err(|_| allowed.to_owned());
    };
    let then = SystemTime::now().checked_sub(span);
    Ok(then.map_or_else(Timestamp::default, Timestamp::from))
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect(global).await?;
        match self {
            Self::List(list) => list.run(global, &client).await,
            Self::Follow(follow) => follow.run(global, &client).await,
            Self::Verify(verify) => verify.run(global, &client).await,
        }
    }
}

impl Which {
    fn request(&self, global: &Global) -> ListAuditEventsRequest {
        ListAuditEventsRequest {
            tenant_id: global.tenant_id(),
            start_time: self.since,
            page_size: PAGE,
            ..Default::default()
        }
    }

    fn includes(&self, event: &AuditEvent) -> bool {
        self.actor
            .as_ref()
            .is_none_or(|actor| *actor == event.actor)
    }
}

/// A page of events.
async fn page(
    client: &Client,
    request: &ListAuditEventsRequest,
) -> Result<ListAuditEventsResponse, Failure> {
    let mut tenants = client.tenants();
    let page = tenants.list_audit_events(client.request(request.clone()));
    Ok(page.await?.into_inner())
}

impl List {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut request = self.which.request(global);
        request.end_time = self.until;
        let mut found = Vec::new();
        loop {
            let page = page(client, &request).await?;
            let events = page.events.iter();
            let events = events.filter(|event| self.which.includes(event));
            found.extend(events.map(json::audit_event));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || found.len() > self.limit {
                break;
            }
        }
        let more = found.len() > self.limit || !request.page_token.is_empty();
        found.truncate(self.limit);
        let result = json!({ "events": found, "more": more });
        show(global.output, &result, || {
            output::list(&found, &FIELDS) + output::more(more)
        })
    }
}

impl Follow {
    async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let mut request = self.which.request(global);
        let now = || Timestamp::from(SystemTime::now());
        request.start_time.get_or_insert_with(now);
        // What was printed of the time that is looked at again: the last place of each
        // chain, as events of one come in its order.
        let mut printed: BTreeMap<String, i64> = BTreeMap::new();
        let mut times: VecDeque<i64> = VecDeque::new();
        loop {
            request.page_token.clear();
            loop {
                let page = page(client, &request).await?;
                for event in &page.events {
                    let last = printed.entry(event.replica.clone()).or_default();
                    if event.sequence <= *last {
                        continue;
                    }
                    *last = event.sequence;
                    times.extend(event.time.map(|time| time.seconds));
                    if self.which.includes(event) {
                        print(global.output, event)?;
                    }
                }
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            if let (Some(latest), Some(start)) = (times.drain(..).max(), &mut request.start_time) {
                start.seconds = start.seconds.max(latest - OVERLAP_S);
            }
            sleep(LOOK).await;
        }
    }
}

/// One event in a line.
fn print(format: Format, event: &AuditEvent) -> Result<(), Failure> {
    let event = json::audit_event(event);
    let line = match format {
        Format::Json => event.to_string(),
        Format::Table => {
            let shown = FIELDS.iter().filter_map(|field| event.get(field));
            let words = shown.map(|value| match value.as_str() {
                Some("") => "-".to_owned(),
                Some(text) => output::clean(text),
                None => value.to_string(),
            });
            words.collect::<Vec<_>>().join("  ")
        }
    };
    output::write((line + "\n").as_bytes())
}
