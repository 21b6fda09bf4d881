//! The tenants that were purged, noted beside the checkpoints: an object each, so that
//! no copy of a checkpoint that was carried away and comes back brings them back. It
//! does not know what checkpoints hold of them.

use std::collections::HashSet;

use bytes::Bytes;
use futures::{TryStreamExt, future::ready};
use object_store::{ObjectStoreExt, path::Path};

use super::{Fault, Objects};
use crate::store::Incarnation;

/// The folder of the notes, which is no id of a checkpoint.
const FOLDER: &str = "purged";

impl Objects {
    /// Notes that this life of a tenant was purged, for good.
    ///
    /// # Errors
    /// [`Fault`]; then it may be noted or not.
    pub async fn note_purged(&self, life: Incarnation) -> Result<(), Fault> {
        self.made()?;
        let path = self.notes().join(life.to_string());
        let put = self.driver.put(&path, Bytes::from_static(b"1\n").into());
        self.patiently(put).await?.map_err(|e| self.fault(e))?;
        Ok(())
    }

    /// All lives of tenants that were purged while this was their object store.
    /// Whatever else lies there is passed over.
    ///
    /// # Errors
    /// [`Fault`].
    pub async fn purged(&self) -> Result<HashSet<Incarnation>, Fault> {
        let notes = self.notes();
        let list = self.driver.list(Some(&notes));
        let lives = list
            .try_filter_map(|meta| ready(Ok(meta.location.filename().and_then(Incarnation::parse))))
            .try_collect();
        match self.patiently(lives).await? {
            Ok(lives) => Ok(lives),
            Err(error) => self.absent(error).map(|()| HashSet::new()),
        }
    }

    fn notes(&self) -> Path {
        self.root.clone().join(FOLDER)
    }
}
