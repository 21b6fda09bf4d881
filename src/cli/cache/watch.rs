//! `cache watch`: what changes in a tenant's cache, a line each, until it is
//! interrupted. It does not know why it changes.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tonic::{Code, Status};

use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        output::{Format, clean},
    },
    proto::v1::{
        InvalidationEvent, WatchInvalidationsRequest, WatchInvalidationsResponse,
        invalidation_event::Target,
    },
};

/// How long the server is left alone before it is called again; twice as long each
/// time, up to the longest.
const FIRST_REST: Duration = Duration::from_millis(100);
const LONGEST_REST: Duration = Duration::from_secs(5);

/// How long a server may be silent; it gives a sign of life twice as often.
const SILENCE: Duration = Duration::from_secs(60);

#[derive(Args, Debug)]
pub(in crate::cli) struct Watch {
    /// Go on from where an earlier watch was: a resume_token it told.
    #[arg(
        long,
        value_name = "TOKEN",
        default_value = "",
        hide_default_value = true
    )]
    resume: String,
}

/// Why a watch is over.
enum End {
    /// The server, or the way to it, is gone for a moment.
    Interrupted(Status),
    /// Nobody reads the lines any more.
    Unread,
    Failed(Failure),
}

impl Watch {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Failed, error.to_string());
        let mut interrupted = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut token = self.resume;
        let watched = tokio::select! {
            watched = watch(global, &mut token) => watched,
            _ = interrupted.recv() => Ok(()),
        };
        // JSON has told it in each line.
        if global.output == Format::Table && !token.is_empty() {
            let _ = writeln!(io::stderr(), "to go on from here: --resume {token}");
        }
        watched
    }
}

/// Watches, again and again from where it was, until that is vain.
async fn watch(global: &Global, token: &mut String) -> Result<(), Failure> {
    let client = Client::connect(global).await?;
    let mut rest = FIRST_REST;
    loop {
        let before = token.clone();
        let status = match follow(global, &client, token).await {
            End::Interrupted(status) => status,
            End::Unread => return Ok(()),
            End::Failed(failure) => return Err(failure),
        };
        if *token != before {
            rest = FIRST_REST;
        }
        let message = clean(status.message());
        let _ = writeln!(io::stderr(), "interrupted, trying again: {message}");
        sleep(rest).await;
        rest = LONGEST_REST.min(rest * 2);
    }
}

async fn follow(global: &Global, client: &Client, token: &mut String) -> End {
    let request = WatchInvalidationsRequest {
        tenant_id: global.tenant_id(),
        namespaces: global.namespace.clone().into_iter().collect(),
        resume_token: token.clone(),
    };
    let called = client
        .caches()
        .watch_invalidations(client.lasting(request))
        .await;
    let mut responses = match called {
        Ok(responses) => responses.into_inner(),
        Err(status) => return End::of(status),
    };
    loop {
        let response = match timeout(SILENCE, responses.message()).await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => return End::Interrupted(Status::unavailable("the stream ended")),
            Ok(Err(status)) => return End::of(status),
            Err(_) => return End::Interrupted(Status::unavailable("the server is silent")),
        };
        if let Err(end) = print(global.output, &response) {
            return end;
        }
        *token = response.resume_token;
    }
}

impl End {
    fn of(status: Status) -> Self {
        match status.code() {
            // Of the last, only one that fell behind: it goes on from its token.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::ResourceExhausted => {
                Self::Interrupted(status)
            }
            _ => Self::Failed(status.into()),
        }
    }
}

fn print(format: Format, response: &WatchInvalidationsResponse) -> Result<(), End> {
    let mut text = String::new();
    for event in &response.events {
        text += &match format {
            Format::Table => line(event),
            Format::Json => object(Some(event), &response.resume_token).to_string(),
        };
        text.push('\n');
    }
    if format == Format::Json && response.events.is_empty() {
        text = object(None, &response.resume_token).to_string() + "\n";
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    written
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => End::Unread,
            _ => {
                let message = format!("cannot write the result: {error}");
                End::Failed(Failure::new(Exit::Failed, message))
            }
        })
}

/// An event for eyes.
fn line(event: &InvalidationEvent) -> String {
    let namespace = &event.namespace;
    clean(&match &event.target {
        Some(Target::Tenant(_)) => "tenant".to_owned(),
        None => format!("namespace {namespace}"),
        Some(Target::Keys(keys)) => format!("keys {namespace}: {}", keys.keys.join(", ")),
        Some(Target::Prefix(prefix)) => format!("prefix {namespace}: {prefix}"),
        Some(Target::Tags(tags)) => format!("tags {namespace}: {}", tags.tags.join(", ")),
    })
}

/// An event for machines; nothing but the token in a sign of life. The token of a
/// line is that of all that came with it.
fn object(event: Option<&InvalidationEvent>, resume_token: &str) -> Value {
    let Some(InvalidationEvent { namespace, target }) = event else {
        return json!({ "event": "heartbeat", "resume_token": resume_token });
    };
    match target {
        Some(Target::Tenant(_)) => json!({ "event": "tenant", "resume_token": resume_token }),
        None => json!({
            "event": "namespace", "namespace": namespace, "resume_token": resume_token,
        }),
        Some(Target::Keys(keys)) => json!({
            "event": "keys", "namespace": namespace, "keys": keys.keys,
            "resume_token": resume_token,
        }),
        Some(Target::Prefix(prefix)) => json!({
            "event": "prefix", "namespace": namespace, "prefix": prefix,
            "resume_token": resume_token,
        }),
        Some(Target::Tags(tags)) => json!({
            "event": "tags", "namespace": namespace, "tags": tags.tags,
            "resume_token": resume_token,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_printed() {
        let event = InvalidationEvent {
            namespace: "n".into(),
            target: Some(Target::Prefix("a\x1b[2J\n".into())),
        };
        assert_eq!(line(&event), "prefix n: a\\u{1b}[2J\\n");
    }
}
