//! `key generate-master` and `key rotate-master`: the keys that wrap tenants' data
//! keys, and the keys of checkpoints. It makes one, and never sees one that is in use.

mod checkpoints;

use std::collections::BTreeMap;

use clap::Args;
use data_encoding::BASE64;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        output::{self, Format, show},
    },
    config::{MASTER_KEY_BYTES, is_master_key_id},
    proto::v1::{LostDataKey, RewrapDataKeysRequest, RewrapReport},
};

/// Passes over all tenants. A further one is needed only where replicas that still
/// write with the old key make tenants meanwhile.
const PASSES: usize = 10;

#[derive(Args, Debug)]
pub(in crate::cli) struct Generate {
    /// The key's name: letters, digits, `.`, `_` and `-` [default: master- and some
    /// random letters].
    #[arg(value_name = "ID")]
    id: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Rotate {
    /// Tell what would be done, and which master keys are in use; write nothing.
    #[arg(long)]
    validate_only: bool,
    /// Tenants, or keys of a checkpoint, asked for at a time, up to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 200, value_parser = clap::value_parser!(i32).range(1..=1000))]
    page_size: i32,
}

impl Generate {
    /// Needs no server.
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let id = self.id.unwrap_or_else(|| {
            let some = crate::random::BASE32.encode(&crate::random::bytes::<5>());
            format!("master-{some}")
        });
        if !is_master_key_id(&id) {
            return Err(Failure::usage(
                "ID: 1 to 63 letters, digits, `.`, `_` and `-` are allowed, the first a letter or digit",
            ));
        }
        let key: Zeroizing<[u8; MASTER_KEY_BYTES]> = Zeroizing::new(crate::random::bytes());
        let text = Zeroizing::new(format!("{id}:{}", BASE64.encode(key.as_slice())));
        match global.output {
            Format::Json => show(global.output, &json!({ "master_key": *text }), String::new),
            // Not through a table: it goes into a file or a variable as it is.
            Format::Table => output::write(format!("{}\n", *text).as_bytes()),
        }
    }
}

/// What a pass over all tenants came to.
#[derive(Default)]
struct Pass {
    master_key_id: String,
    tenants: i64,
    rewrapped: i64,
    data_keys: BTreeMap<String, i64>,
    lost: Vec<LostDataKey>,
}

impl Pass {
    fn add(&mut self, report: RewrapReport) {
        self.master_key_id = report.master_key_id;
        self.tenants += report.tenants;
        self.rewrapped += report.rewrapped;
        for (id, count) in report.data_keys {
            *self.data_keys.entry(id).or_default() += count;
        }
        self.lost.extend(report.lost);
    }

    /// Data keys that another master key than the first wraps.
    fn others(&self) -> i64 {
        let first = &self.master_key_id;
        let others = self.data_keys.iter().filter(|(id, _)| *id != first);
        others.map(|(_, count)| count).sum()
    }

    /// What there is left to do, in a line.
    fn verdict(&self) -> String {
        let first = &self.master_key_id;
        let others = self.others();
        if others == 0 {
            format!("No data key needs another master key than {first}.")
        } else if self.lost.is_empty() {
            format!("{others} data keys need another master key than {first}: keep them all.")
        } else {
            format!(
                "{others} data keys need another master key than {first}, and {} of them cannot be opened: \
                 what they sealed can be read once their master key is back in encryption.master_keys.",
                self.lost.len()
            )
        }
    }
}

impl Rotate {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let bar = bar();
        let mut rewrapped = 0;
        let mut last = Pass::default();
        for _ in 0..PASSES {
            last = self.pass(client, &bar, rewrapped).await?;
            rewrapped += last.rewrapped;
            if self.validate_only || last.rewrapped == 0 {
                break;
            }
        }
        let checkpoints = self.checkpoints(client).await?;
        bar.finish_and_clear();
        let lost: Vec<Value> = last.lost.iter().map(lost).collect();
        let result = json!({
            "master_key_id": last.master_key_id,
            "tenants": last.tenants,
            "rewrapped": rewrapped,
            "data_keys": last.data_keys,
            "others": last.others(),
            "lost": lost,
            "checkpoints": checkpoints.told(),
            "lost_checkpoint_keys": checkpoints.lost(),
        });
        let needed = last.others() > 0 || checkpoints.needs_others();
        show(global.output, &result, || {
            let listed = |lost: &[Value], fields: &[&str]| match lost.is_empty() {
                true => String::new(),
                false => format!("\n\n{}", output::list(lost, fields)),
            };
            let reasons = ["master_key_id", "reason"];
            let keys = listed(
                &lost,
                &[&["tenant_id", "data_key_id"], &reasons[..]].concat(),
            );
            let lost = checkpoints.lost();
            let parts = listed(&lost, &[&["checkpoint_id", "part"], &reasons[..]].concat());
            let mut result = result.clone();
            if let Some(fields) = result.as_object_mut() {
                fields.remove("lost");
                fields.remove("lost_checkpoint_keys");
            }
            let first = &last.master_key_id;
            let removed = match needed {
                true => String::new(),
                false => format!(
                    "\nOnce {first} is the first of encryption.master_keys on every replica, and this \
                     still says so, the others can be removed."
                ),
            };
            format!(
                "{}{keys}{parts}\n\n{}\n{}{removed}",
                output::record(&result),
                last.verdict(),
                checkpoints.verdict()
            )
        })?;
        match needed && !self.validate_only {
            true => Err(Failure::told(Exit::Failed)),
            false => Ok(()),
        }
    }

    async fn pass(&self, client: &Client, bar: &ProgressBar, before: i64) -> Result<Pass, Failure> {
        let mut pass = Pass::default();
        let mut request = RewrapDataKeysRequest {
            page_size: self.page_size,
            page_token: String::new(),
            validate_only: self.validate_only,
        };
        bar.set_position(0);
        loop {
            let mut tenants = client.tenants();
            let answer = tenants.rewrap_data_keys(client.request(request.clone()));
            let answer = answer.await.map_err(|status| {
                Failure::from(status)
                    .with("what was wrapped anew stays so; run the same command again")
            })?;
            let answer = answer.into_inner();
            pass.add(answer.report.unwrap_or_default());
            bar.set_position(u64::try_from(pass.tenants).unwrap_or(0));
            bar.set_message((before + pass.rewrapped).to_string());
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                return Ok(pass);
            }
        }
    }
}

fn lost(key: &LostDataKey) -> Value {
    json!({
        "tenant_id": key.tenant_id,
        "data_key_id": key.data_key_id,
        "master_key_id": key.master_key_id,
        "reason": key.reason,
    })
}

/// On standard error, and only where that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    let template = "{spinner} {pos} tenants looked at, {msg} data keys wrapped anew, {elapsed}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
