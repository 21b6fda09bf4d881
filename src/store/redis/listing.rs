//! Pages of tables: ordered ones by their index, entries by SCAN. It does not know
//! what is done with them.

use std::collections::HashSet;

use bytes::Bytes;

use super::{
    Redis, fault,
    fault::Fault,
    keys, reply,
    scan::{self, Place, STEP, Shown},
    state::State,
    wire,
};
use crate::store::{Cursor, HEAD_BYTES, Listed, Page, Query, Result, Space, Table};

/// SCANs of one call, at most.
const STEPS: usize = 96;

impl Redis {
    /// A page of an ordered table.
    pub(super) async fn list_ordered(&self, space: &Space, query: &Query) -> Result<Page> {
        let after = query.after.as_ref().map(|cursor| &cursor.0[..]);
        let (from, to) = keys::lex_range(&query.prefix, after);
        let records = keys::records(space, query.table, 0);
        let last = (HEAD_BYTES as usize - 1)
            .saturating_add(query.value_bytes)
            .min(i32::MAX as usize);
        let index = keys::index(space, query.table);
        let number = |number: usize| Bytes::from(number.to_string());
        let args = [records.clone(), from, to, number(query.limit), number(last)];
        let answer = self
            .pool
            .script(
                &self.shared.scripts.list,
                vec![keys::state(space), index.clone()],
                args,
            )
            .await;
        let mut parts = reply::array(answer.map_err(Fault::of_read)?)?.into_iter();
        let state = State::read(parts.next().and_then(reply::bulk).as_deref())?;
        let now_ms = self.shared.clock.now_ms();
        let (mut items, mut ended) = (Vec::new(), Vec::new());
        let (mut paths, mut next) = (0, None);
        while let (Some(path), Some(stored), Some(length)) =
            (parts.next(), parts.next(), parts.next())
        {
            let path = reply::bulk(path).ok_or_else(|| fault::corrupt("an index holds no text"))?;
            paths += 1;
            next = Some(Cursor(path.clone()));
            if reply::number(&length) == Some(0) {
                ended.push(path);
            } else {
                items.extend(match scan::shown(stored, &length) {
                    Some(shown) => listed(path, &shown, now_ms)?,
                    None => None,
                });
            }
        }
        if !ended.is_empty() {
            let names = ended
                .iter()
                .map(|path| [&records[..], path].concat().into());
            let all = std::iter::once(index).chain(names).collect();
            if let Err(fault) = self
                .pool
                .script(&self.shared.scripts.sweep, all, ended)
                .await
            {
                tracing::debug!(error = %fault.of_read(), "index keeps paths of expired records");
            }
        }
        if state.removed {
            (items, next) = (Vec::new(), None);
        }
        Ok(Page {
            view: state.seen(),
            items,
            next: next.filter(|_| paths >= query.limit),
        })
    }

    /// A page of entries, in no order.
    pub(super) async fn list_entries(&self, space: &Space, query: &Query) -> Result<Page> {
        let records = keys::records(space, Table::Entry, query.generation);
        let beginning: Bytes = [&records[..], &query.prefix].concat().into();
        let pattern = keys::pattern(&beginning);
        let mut place = query
            .after
            .as_ref()
            .map(Place::read)
            .transpose()?
            .unwrap_or_default();
        let mut found = std::mem::take(&mut place.pending);
        let mut seen: HashSet<Bytes> = found.iter().cloned().collect();
        // Only a walk that has begun can be at its end.
        let mut end = query.after.is_some() && place.cursor == 0;
        let (mut looked, mut matched) = (0, 0);
        for _ in 0..STEPS {
            if end || found.len() >= query.limit {
                break;
            }
            // Keys lie in the order of their hashes, so the share that matches is
            // much the same everywhere, and a page is filled without running over.
            let want = query.limit - found.len();
            let count = if looked == 0 {
                want
            } else {
                want.saturating_mul(looked) / (matched + 1)
            };
            let count = count.clamp(10, STEP);
            let (names, ended) = self.step(space, &pattern, count, &mut place).await?;
            looked += count;
            matched += names.len();
            end = ended;
            for name in names {
                if !name.starts_with(&beginning) {
                    continue;
                }
                if let Some(path) = keys::path(&name, &records)
                    && seen.insert(path.clone())
                {
                    found.push(path);
                }
            }
        }
        place.pending = found.split_off(query.limit.min(found.len()));
        let names: Vec<Bytes> = found
            .iter()
            .map(|path| [&records[..], path].concat().into())
            .collect();
        let (state, shown) = self.show(space, &names, query.value_bytes).await?;
        if state.removed {
            return Ok(Page {
                view: state.seen(),
                items: Vec::new(),
                next: None,
            });
        }
        let now_ms = self.shared.clock.now_ms();
        let mut items = Vec::with_capacity(found.len());
        for (path, shown) in found.into_iter().zip(shown) {
            let Some(shown) = shown else { continue };
            items.extend(listed(path, &shown, now_ms)?);
        }
        let next = (!end || !place.pending.is_empty()).then(|| place.write());
        Ok(Page {
            view: state.seen(),
            items,
            next,
        })
    }
}

/// A record of a page; `None` if its time is over.
fn listed(path: Bytes, shown: &Shown, now_ms: u64) -> Result<Option<Listed>> {
    let value_bytes = shown.stored_bytes.saturating_sub(HEAD_BYTES);
    Ok(wire::record(&shown.stored, now_ms)?.map(|record| Listed {
        path,
        record,
        value_bytes,
    }))
}
