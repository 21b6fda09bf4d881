//! `audit verify`: reads all events, and tells what is wrong with their chains. It does
//! not know how a chain is checked.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::Args;
use prost_types::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    chains::{Chain, Chains, End},
    page,
};
use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        output::{self, show},
        resume,
        tenant::PAGE,
    },
    proto::v1::ListAuditEventsRequest,
};

/// Breaks that are printed; there are mostly as many as events where there are more.
const SHOWN: usize = 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct Verify {
    /// Where it is kept how far each chain went. What it says must still be so; where all
    /// is well it is written anew.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

/// What is kept between verifications.
#[derive(Default, Deserialize, Serialize)]
struct Heads {
    chains: Vec<KeptEnd>,
}

#[derive(Deserialize, Serialize)]
struct KeptEnd {
    replica: String,
    sequence: i64,
    hash: String,
    expire_ms: i64,
}

impl Verify {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let kept = self.heads.as_deref().map(read).transpose()?;
        let kept = kept.unwrap_or_default().chains.into_iter();
        let mut ends: Vec<End> = kept
            .map(|kept| End {
                replica: kept.replica,
                sequence: kept.sequence,
                hash: kept.hash,
                expire_ms: kept.expire_ms,
            })
            .collect();
        let mut request = ListAuditEventsRequest {
            page_size: PAGE,
            ..Default::default()
        };
        let mut listed = page(client, &request).await?;
        let told: Vec<End> = listed.chains.drain(..).map(End::from).collect();
        let mut known: BTreeSet<String> = told.iter().map(|end| end.replica.clone()).collect();
        ends.extend(told);
        let mut chains = Chains::ending(ends);
        loop {
            let now_ms = now_ms();
            for event in &listed.events {
                chains.add(event, now_ms);
            }
            request.page_token = listed.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
            listed = page(client, &request).await?;
        }
        if chains.found.keys().any(|replica| !known.contains(replica)) {
            // One that has begun meanwhile has its end by now.
            let request = ListAuditEventsRequest {
                page_size: 1,
                ..Default::default()
            };
            let told = page(client, &request).await?.chains;
            known.extend(told.into_iter().map(|chain| chain.replica));
        }
        chains.end(&known, now_ms());
        self.tell(global, &chains)
    }

    fn tell(&self, global: &Global, chains: &Chains) -> Result<(), Failure> {
        let valid = chains.breaks.is_empty();
        if valid && let Some(heads) = &self.heads {
            write(heads, chains)?;
        }
        let shown: Vec<Value> = chains.found.iter().map(shown).collect();
        let result = json!({
            "valid": valid,
            "events": chains.events,
            "chains": shown,
            "breaks": chains.breaks,
        });
        show(global.output, &result, || {
            let fields = ["replica", "first", "last", "expire_time", "hash"];
            let mut lines = output::list(&shown, &fields);
            if valid {
                let (events, chains) = (chains.events, shown.len());
                lines += &format!("\n{events} events in {chains} chains, none of them changed");
            }
            lines
        })?;
        if valid {
            return Ok(());
        }
        let Some((first, rest)) = chains.breaks.split_first() else {
            return Ok(());
        };
        let mut failure = Failure::new(Exit::Failed, output::clean(first));
        for more in rest.iter().take(SHOWN) {
            failure = failure.with(output::clean(more));
        }
        if rest.len() > SHOWN {
            failure = failure.with(format!("and {} more", rest.len() - SHOWN));
        }
        Err(failure)
    }
}

fn shown((replica, chain): (&String, &Chain)) -> Value {
    let expire_time = Timestamp {
        seconds: chain.expire_ms / 1000,
        nanos: 0,
    };
    json!({
        "replica": replica,
        "first": chain.first,
        "last": chain.last,
        "expire_time": expire_time.to_string(),
        "hash": chain.hash,
    })
}

/// What a file says of chains' ends; nothing where there is no file yet.
fn read(at: &Path) -> Result<Heads, Failure> {
    let failed =
        |cause: String| Failure::new(Exit::Failed, format!("--heads {}: {cause}", at.display()));
    match fs::read(at) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| failed(format!("not what this command wrote: {error}"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Heads::default()),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn write(at: &Path, chains: &Chains) -> Result<(), Failure> {
    let ends = chains.found.iter().map(|(replica, chain)| KeptEnd {
        replica: replica.clone(),
        sequence: chain.last,
        hash: chain.hash.clone(),
        expire_ms: chain.expire_ms,
    });
    let heads = Heads {
        chains: ends.collect(),
    };
    resume::keep(at, &heads)
        .map_err(|error| Failure::new(Exit::Failed, format!("--heads {}: {error}", at.display())))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}
