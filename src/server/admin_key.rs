//! The admin key: given, found from an earlier start, or made at the first. It
//! does not know what the key opens.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use data_encoding::BASE64URL_NOPAD;
use secrecy::SecretString;

use super::{Error, Result};
use crate::{config::Config, random};

/// The key of `auth.admin_key`, or the one in the store's folder, which is made
/// where there is none and never overwritten.
pub(super) fn obtain(config: &Config) -> Result<SecretString> {
    if let Some(key) = &config.auth.admin_key {
        return Ok(key.clone());
    }
    let path = config.store.admin_key_file();
    find_or_make(&path).map_err(|cause| Error::AdminKey { path, cause })
}

fn find_or_make(path: &Path) -> io::Result<SecretString> {
    if let Some(key) = find(path)? {
        return Ok(key);
    }
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let key = format!("rta_{}", BASE64URL_NOPAD.encode(&random::bytes::<32>()));
    // Written aside and then linked, so that whoever starts at the same time
    // reads a whole key or makes it first.
    let aside = path.with_extension(random::BASE32.encode(&random::bytes::<10>()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    let linked = file
        .write_all(format!("{key}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::hard_link(&aside, path));
    fs::remove_file(&aside)?;
    match linked {
        Ok(()) => {
            tracing::info!(path = %path.display(), "admin key made");
            Ok(key.into())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            find(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
        }
        Err(error) => Err(error),
    }
}

fn find(path: &Path) -> io::Result<Option<SecretString>> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() < 16 => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds no key; remove the file to have a new one made",
        )),
        Ok(text) => Ok(Some(text.trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/admin.key");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| find_or_make(&path).unwrap()))
                .collect();
            starts
                .into_iter()
                .map(|start| start.join().unwrap())
                .collect()
        });
        let key = keys.first().unwrap().expose_secret().to_owned();
        assert!(key.starts_with("rta_") && key.len() == 47, "{key}");
        assert!(keys.iter().all(|other| other.expose_secret() == key));
        assert_eq!(find_or_make(&path).unwrap().expose_secret(), key);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_file_is_an_error_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        fs::write(&path, "\n").unwrap();
        assert!(find_or_make(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "\n");
    }
}
