//! Page tokens: opaque, and good for one listing under one filter only. It does
//! not know what is listed.

use data_encoding::BASE64URL_NOPAD;
use subtle::ConstantTimeEq;

use super::Tenants;
use crate::{
    error::{Error, Result, Violations},
    store::Cursor,
};

/// Items of a page where the request asks for none.
pub const DEFAULT_SIZE: usize = 50;

/// Items of a page at most; a greater request gets so many.
pub const MAX_SIZE: usize = 1000;

/// The format of a token, its first byte.
const FORMAT: u8 = 1;
const TAG_BYTES: usize = 16;
/// No token of ours is longer: a cursor holds a path of little over 1 KiB.
const MAX_TOKEN_CHARS: usize = 8192;

/// What a token belongs to: a listing and everything that selects its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing<'a> {
    /// Which listing, such as `ListTenants`.
    pub name: &'a str,
    /// What selects its items, part by part.
    pub filter: &'a [&'a [u8]],
}

/// The page size a request asks for: [`DEFAULT_SIZE`] for 0, [`MAX_SIZE`] at
/// most; a negative one is a violation.
pub fn size(requested: i32, violations: &mut Violations) -> usize {
    match usize::try_from(requested) {
        Ok(0) => DEFAULT_SIZE,
        Ok(size) => size.min(MAX_SIZE),
        Err(_) => {
            violations.add("page_size", "negative; 0 means 50, and 1000 is the most");
            DEFAULT_SIZE
        }
    }
}

impl Tenants {
    /// The token of the page that follows this place.
    ///
    /// # Errors
    /// Those of the store, where its secret has yet to be read.
    pub async fn seal_page(&self, listing: &Listing<'_>, cursor: &Cursor) -> Result<String> {
        let tag = self.page_tag(listing, &cursor.0).await?;
        let mut token = Vec::with_capacity(1 + cursor.0.len() + TAG_BYTES);
        token.push(FORMAT);
        token.extend_from_slice(&cursor.0);
        token.extend_from_slice(&tag);
        Ok(BASE64URL_NOPAD.encode(&token))
    }

    /// The place a token stands for; `None` for the empty token, which begins.
    ///
    /// # Errors
    /// [`Error::InvalidPageToken`] for one that was not made for this listing
    /// under this filter; those of the store.
    pub async fn open_page(&self, listing: &Listing<'_>, token: &str) -> Result<Option<Cursor>> {
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > MAX_TOKEN_CHARS {
            return Err(Error::InvalidPageToken);
        }
        let bytes = BASE64URL_NOPAD
            .decode(token.as_bytes())
            .map_err(|_| Error::InvalidPageToken)?;
        let Some((&FORMAT, rest)) = bytes.split_first() else {
            return Err(Error::InvalidPageToken);
        };
        let (cursor, tag) = rest
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(Error::InvalidPageToken)?;
        let expected = self.page_tag(listing, cursor).await?;
        if bool::from(expected.ct_eq(tag)) {
            Ok(Some(Cursor(cursor.to_vec().into())))
        } else {
            Err(Error::InvalidPageToken)
        }
    }

    async fn page_tag(&self, listing: &Listing<'_>, cursor: &[u8]) -> Result<[u8; TAG_BYTES]> {
        let pepper = self.pepper().await?;
        let mut parts: Vec<&[u8]> = Vec::with_capacity(listing.filter.len() + 2);
        parts.push(listing.name.as_bytes());
        parts.extend_from_slice(listing.filter);
        parts.push(cursor);
        let tag = pepper.page_tag(&parts);
        tag.first_chunk()
            .copied()
            .ok_or_else(|| Error::Internal("a tag is 32 bytes".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_clamped_and_negative_ones_named() {
        for (requested, size, valid) in [
            (0, 50, true),
            (1, 1, true),
            (1000, 1000, true),
            (i32::MAX, 1000, true),
            (-1, 50, false),
        ] {
            let mut violations = Violations::default();
            assert_eq!(super::size(requested, &mut violations), size);
            assert_eq!(violations.check().is_ok(), valid, "{requested}");
        }
    }
}
