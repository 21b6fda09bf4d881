//! The keys of checkpoints, as `key rotate-master` has them wrapped anew. It sees none,
//! and does not know what lies in a checkpoint.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{PASSES, Rotate};
use crate::{
    cli::{client::Client, failure::Failure},
    proto::v1::{CheckpointKeysReport, LostCheckpointKey, RewrapCheckpointKeysRequest},
};

/// What a pass over all checkpoints came to.
#[derive(Default)]
pub(super) struct Pass {
    master_key_id: String,
    checkpoints: BTreeSet<String>,
    /// Those of which a key was wrapped anew.
    rewrapped: BTreeSet<String>,
    keys: i64,
    keys_rewrapped: i64,
    being_taken: BTreeSet<String>,
    master_keys: BTreeMap<String, i64>,
    /// How many keys of which checkpoints another master key than the first wraps, or
    /// cannot be looked at.
    others: BTreeMap<String, i64>,
    lost: Vec<(String, LostCheckpointKey)>,
}

impl Pass {
    fn add(&mut self, report: CheckpointKeysReport) {
        self.master_key_id = report.master_key_id;
        let id = report.checkpoint_id;
        if id.is_empty() {
            return;
        }
        self.checkpoints.insert(id.clone());
        if report.rewrapped > 0 {
            self.rewrapped.insert(id.clone());
        }
        self.keys += report.keys;
        self.keys_rewrapped += report.rewrapped;
        if report.being_taken {
            self.being_taken.insert(id.clone());
        }
        for (master_key, count) in report.master_keys {
            if master_key != self.master_key_id {
                *self.others.entry(id.clone()).or_default() += count;
            }
            *self.master_keys.entry(master_key).or_default() += count;
        }
        for _ in report
            .lost
            .iter()
            .filter(|key| key.master_key_id.is_empty())
        {
            *self.others.entry(id.clone()).or_default() += 1;
        }
        let lost = report.lost.into_iter();
        self.lost.extend(lost.map(|key| (id.clone(), key)));
    }

    /// Whether a checkpoint needs another master key than the first, or may.
    pub(super) fn needs_others(&self) -> bool {
        !self.others.is_empty() || !self.being_taken.is_empty()
    }

    pub(super) fn told(&self) -> Value {
        json!({
            "checkpoints": self.checkpoints.len(),
            "rewrapped": self.rewrapped.len(),
            "keys": self.keys,
            "keys_rewrapped": self.keys_rewrapped,
            "being_taken": self.being_taken,
            "master_keys": self.master_keys,
            "others": self.others,
        })
    }

    pub(super) fn lost(&self) -> Vec<Value> {
        let lost = self.lost.iter().map(|(checkpoint_id, key)| {
            json!({
                "checkpoint_id": checkpoint_id,
                "part": key.part,
                "master_key_id": key.master_key_id,
                "reason": key.reason,
            })
        });
        lost.collect()
    }

    /// What there is left to do, in a line.
    pub(super) fn verdict(&self) -> String {
        let first = &self.master_key_id;
        if let Some(id) = self.being_taken.first() {
            return format!(
                "The checkpoint {id} is being taken, and may need another master key than {first}: \
                 run this again when it is whole."
            );
        }
        if self.others.is_empty() {
            return format!("No checkpoint needs another master key than {first}.");
        }
        let ids: Vec<&str> = self.others.keys().map(String::as_str).collect();
        let lost = match self.lost.is_empty() {
            true => "",
            false => ", or delete those that cannot be opened",
        };
        format!(
            "{} checkpoints need another master key than {first}: keep them all{lost}. They are {}.",
            ids.len(),
            ids.join(", ")
        )
    }
}

impl Rotate {
    /// Passes over all checkpoints, until one finds nothing to do.
    pub(super) async fn checkpoints(&self, client: &Client) -> Result<Pass, Failure> {
        let mut rewrapped = BTreeSet::new();
        let mut keys_rewrapped = 0;
        let mut last = Pass::default();
        for _ in 0..PASSES {
            last = self.over_checkpoints(client).await?;
            let idle = last.keys_rewrapped == 0;
            rewrapped.append(&mut last.rewrapped);
            keys_rewrapped += last.keys_rewrapped;
            if self.validate_only || idle {
                break;
            }
        }
        last.rewrapped = rewrapped;
        last.keys_rewrapped = keys_rewrapped;
        Ok(last)
    }

    async fn over_checkpoints(&self, client: &Client) -> Result<Pass, Failure> {
        let mut pass = Pass::default();
        let mut request = RewrapCheckpointKeysRequest {
            page_size: self.page_size,
            page_token: String::new(),
            validate_only: self.validate_only,
        };
        loop {
            let mut states = client.states();
            let answer = states.rewrap_checkpoint_keys(client.request(request.clone()));
            let answer = answer.await.map_err(|status| {
                Failure::from(status).with(
                    "checkpoints still need the other master keys; what was wrapped anew stays so: \
                     run the same command again",
                )
            })?;
            let answer = answer.into_inner();
            pass.add(answer.report.unwrap_or_default());
            request.page_token = answer.next_page_token;
            if request.page_token.is_empty() {
                return Ok(pass);
            }
        }
    }
}
