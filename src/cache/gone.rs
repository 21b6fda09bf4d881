//! What is gone of a cache that is read from outside, entry by entry, as it was at one
//! moment. It does not know who reads, nor what for.

use super::floors::Floors;
use crate::{
    error::Result,
    store::{Key, Record},
};

/// What a space's floors hide.
#[derive(Debug)]
pub struct Gone(Floors);

impl Gone {
    /// The control record that tells.
    pub fn key() -> Key {
        Floors::key()
    }

    /// What this control record hides.
    ///
    /// # Errors
    /// [`Error::Internal`](crate::error::Error::Internal) where it cannot be read.
    pub fn read(record: Option<&Record>) -> Result<Self> {
        Ok(Self(Floors::decode(record)?))
    }

    /// Whether an entry of this path is gone. One of which that cannot be told, because
    /// it is damaged or of a later format, is there.
    pub fn includes(&self, path: &[u8], record: &Record) -> bool {
        let colon = path.iter().position(|&byte| byte == b':');
        let (namespace, key) = path.split_at(colon.unwrap_or(path.len()));
        let (Ok(namespace), Some(key)) = (str::from_utf8(namespace), key.get(1..)) else {
            return false;
        };
        self.0.hide_record(namespace, key, record) == Ok(Some(true))
    }
}
