//! What a command leaves beside a file, so that it can be gone on with after
//! whatever ended the process. It does not know what is done with the file.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The file of this name and ending.
pub(super) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(ending);
    name.into()
}

/// Whether nobody else works on the file; nobody will, as long as it is open.
pub(super) fn lock(file: &File) -> bool {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => false,
        // Where the file system has no locks there is none to respect.
        Err(TryLockError::Error(_)) | Ok(()) => true,
    }
}

/// Writes a state, in one step that outlasts a loss of power.
pub(super) fn keep(at: &Path, state: &impl Serialize) -> io::Result<()> {
    let fresh = beside(at, ".fresh");
    let mut file = File::create(&fresh)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_data()?;
    fs::rename(&fresh, at)?;
    sync_folder(at)
}

/// The text of a state; `None` where there is none.
pub(super) fn kept(at: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(at) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file, if there is one.
pub(super) fn remove(at: &Path) -> io::Result<()> {
    match fs::remove_file(at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// So that a new name outlasts a loss of power.
pub(super) fn sync_folder(of: &Path) -> io::Result<()> {
    let folder = of.parent().filter(|path| !path.as_os_str().is_empty());
    match File::open(folder.unwrap_or(Path::new("."))) {
        // A folder that cannot be read can be written all the same.
        Err(_) => Ok(()),
        Ok(folder) => folder.sync_all(),
    }
}

/// The digest of the first bytes of a file, if it is this one; they have been read
/// then.
pub(super) fn verified(file: &mut File, bytes: u64, sha256: &str) -> io::Result<Option<Sha256>> {
    let mut digest = Sha256::new();
    let length = io::copy(&mut file.take(bytes), &mut digest)?;
    let found = HEXLOWER.encode(&digest.clone().finalize());
    Ok((length == bytes && found == sha256).then_some(digest))
}
