//! Compares the counters of a space with its records. It does not know what made
//! them differ.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    Redis, fault,
    keys::{self, Name},
    scan::{Place, STEP},
    wire::Head,
};
use crate::store::{Audit, Result, Space, Usage};

impl Redis {
    /// See [`crate::store::Store::audit`].
    pub(super) async fn audit_space(&self, space: &Space) -> Result<Audit> {
        let pattern = keys::pattern(&keys::all(space));
        let mut place = Place::default();
        let mut seen = HashSet::new();
        // Bytes, end of bucket, and the generation of each metered record.
        let mut records = Vec::new();
        loop {
            let server = place.server.clone();
            let (names, end) = self.step(space, &pattern, STEP, &mut place).await?;
            if !server.is_empty() && server != place.server {
                return Err(fault::unavailable("the server changed during the audit"));
            }
            let mut metered = Vec::new();
            for name in names {
                let (generation, path_bytes) = match keys::read(space, &name) {
                    Some(Name::Entry {
                        generation,
                        path_bytes,
                    }) => (Some(generation), path_bytes),
                    Some(Name::Record { table, path_bytes }) if table.metered() => {
                        (None, path_bytes)
                    }
                    _ => continue,
                };
                if seen.insert(name.clone()) {
                    metered.push((name, generation, path_bytes));
                }
            }
            let names: Vec<Bytes> = metered.iter().map(|(name, ..)| name.clone()).collect();
            let (_, shown) = self.show(space, &names, 0).await?;
            for ((_, generation, path_bytes), shown) in metered.into_iter().zip(shown) {
                let Some(shown) = shown else { continue };
                let head = Head::read(&shown.stored)?;
                records.push((
                    shown.stored_bytes + path_bytes as u64,
                    head.bucket_end_ms,
                    generation,
                ));
            }
            if end {
                break;
            }
        }
        // What has ended since it was seen is uncounted here, and the watermark
        // says what that was.
        let state = self.reap(space).await?;
        let mut found = Usage {
            exact: true,
            ..Usage::default()
        };
        for (bytes, bucket_end_ms, generation) in records {
            if state.removed
                || generation.is_some_and(|generation| generation != state.view.generation)
            {
                found.orphaned_bytes += bytes;
            } else if bucket_end_ms == 0 || bucket_end_ms > state.watermark_ms {
                found.entries += 1;
                found.bytes += bytes;
            }
        }
        Ok(Audit {
            counted: state.usage(self.shared.exact()),
            found,
        })
    }
}
