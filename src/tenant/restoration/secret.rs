//! The secret that API keys are compared by, brought from a copy. It does not know whose
//! keys they are.

use bytes::Bytes;

use crate::{
    error::Result,
    store::{Batch, Check, Commit, Query, Space, Table, Write},
    tenant::{Tenants, admission::pepper_key},
};

impl Tenants {
    /// Makes API keys work here that were compared by this secret: false where the store
    /// has another one, and keys of its own that work by that.
    ///
    /// # Errors
    /// The store's.
    pub async fn restore_secret(&self, secret: &Bytes, dry: bool) -> Result<bool> {
        let registry = Space::registry();
        loop {
            let read = self.store.read(&registry, 0, &[pepper_key()]).await?;
            let check = match read.records.into_iter().next().flatten() {
                None => Check::Absent,
                Some(found) if found.value == *secret => return Ok(true),
                Some(found) => {
                    let query = Query {
                        table: Table::ApiKey,
                        generation: 0,
                        prefix: Bytes::new(),
                        after: None,
                        limit: 1,
                        value_bytes: 0,
                    };
                    if !self.store.list(&registry, query).await?.items.is_empty() {
                        return Ok(false);
                    }
                    // Whoever issues a key now checks the secret in the same commit.
                    Check::Version(found.version)
                }
            };
            if dry {
                return Ok(true);
            }
            let put = Write::put(pepper_key(), secret.clone()).when(check);
            if let Commit::Applied(_) = self.store.commit(&registry, Batch::of([put])).await? {
                self.directory.drop_pepper();
                return Ok(true);
            }
        }
    }
}
