//! Listing a namespace's keys: one list of the store a page. It does not know
//! how a page's token looks.

use super::{
    Cache, MAX_KEY_BYTES,
    hidden::{Looked, TAGGED_BYTES},
    rules,
    snapshot::ATTEMPTS,
};
use crate::{
    codec::{HEAD_BYTES, Head},
    error::{Error, Result, Violations},
    store::{Cursor, Key, Listed, Query, Table},
    tenant::{Counts, Tenancy, page},
};

/// A page of keys.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The keys.
    pub keys: Vec<KeyInfo>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A listed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// The key.
    pub key: String,
    /// Bytes of the value as it was set; of one that is damaged, those stored.
    pub size_bytes: u64,
    /// When it expires, in milliseconds since 1970 by the store's clock.
    pub expire_ms: Option<u64>,
}

/// What is listed, and how much of it at once. Its namespace and prefix are what
/// a page's token is bound to.
#[derive(Clone, Copy, Debug)]
pub struct Range<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The beginning of the keys.
    pub prefix: &'a str,
    limit: usize,
}

impl<'a> Range<'a> {
    /// The range that a request asks for, within the caller's reach.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::ScopeMissing`].
    pub fn new(
        tenancy: &Tenancy,
        namespace: &'a str,
        prefix: &'a str,
        page_size: i32,
    ) -> Result<Self> {
        let mut violations = Violations::default();
        let namespace = rules::namespace(namespace, &mut violations);
        if prefix.len() > MAX_KEY_BYTES {
            violations.add(
                "prefix",
                format!(
                    "{} bytes, at most {MAX_KEY_BYTES} are allowed",
                    prefix.len()
                ),
            );
        }
        let limit = page::size(page_size, &mut violations);
        violations.check()?;
        tenancy.reach_prefix(namespace, prefix)?;
        Ok(Self {
            namespace,
            prefix,
            limit,
        })
    }
}

impl Cache {
    /// A page of the keys in a range.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_keys(
        &self,
        tenancy: &Tenancy,
        range: &Range<'_>,
        after: Option<Cursor>,
    ) -> Result<Listing> {
        let mut snapshot = self.snapshot(tenancy).await?;
        for _ in 0..ATTEMPTS {
            let asked = snapshot.view.generation;
            let query = Query {
                table: Table::Entry,
                generation: asked,
                prefix: Key::entry(range.namespace, range.prefix).path,
                after: after.clone(),
                limit: range.limit,
                value_bytes: match snapshot.floors.above_tagged(range.namespace) {
                    0 => HEAD_BYTES,
                    _ => TAGGED_BYTES,
                },
            };
            let page = self.store.list(&tenancy.space, query).await?;
            if page.view != snapshot.view {
                snapshot = self.reload(tenancy).await?;
            }
            if page.view == snapshot.view && page.view.generation == asked {
                let mut keys = Vec::with_capacity(page.items.len());
                for listed in page.items {
                    let looked = Looked {
                        store: &self.store,
                        space: &tenancy.space,
                        generation: asked,
                        floors: &snapshot.floors,
                    };
                    // One that is damaged is listed all the same, so that it can be
                    // found and removed.
                    if looked.hidden(&listed).await?.ok() != Some(Some(true)) {
                        keys.extend(key_info(listed, range.namespace));
                    }
                }
                tenancy.account.meter.count(Counts {
                    operations: 1,
                    bytes_out: keys.iter().map(|listed| listed.key.len() as u64).sum(),
                    ..Counts::default()
                });
                let next = page.next;
                return Ok(Listing { keys, next });
            }
        }
        Err(Error::RequestInProgress)
    }
}

/// A listed entry; `None` where a newer version of this service wrote it.
fn key_info(listed: Listed, namespace: &str) -> Option<KeyInfo> {
    let size_bytes = match Head::decode(&listed.record.value) {
        Ok(head) => head?.size_bytes,
        // It is listed all the same, so that it can be found and removed.
        Err(_) => listed.value_bytes,
    };
    let key = listed.path.get(namespace.len() + 1..)?;
    Some(KeyInfo {
        key: String::from_utf8(key.to_vec()).ok()?,
        size_bytes,
        expire_ms: listed.record.expire_ms,
    })
}
