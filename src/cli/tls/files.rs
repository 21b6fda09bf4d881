//! Files that belong together, written all or none, and over others only where that is
//! asked for. It does not know what they hold.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::certificates::File;
use crate::cli::failure::{Exit, Failure};

/// Writes the files into a folder, which is made where there is none.
pub(super) fn write(folder: &Path, files: &[File], force: bool) -> Result<(), Failure> {
    let there: Vec<_> = files
        .iter()
        .filter(|file| folder.join(&file.name).exists())
        .map(|file| &*file.name)
        .collect();
    if !there.is_empty() && !force {
        let message = format!(
            "{} has {} already, and nothing was written; --force replaces them",
            folder.display(),
            there.join(", ")
        );
        return Err(Failure::new(Exit::Failed, message));
    }
    let written = aside(folder, files).and_then(|asides| {
        let mut named = asides.iter().zip(files);
        let renamed =
            named.try_for_each(|(aside, file)| fs::rename(aside, folder.join(&file.name)));
        asides.iter().for_each(|aside| drop(fs::remove_file(aside)));
        renamed
    });
    written.map_err(|error| {
        let message = format!("--out: {}: {error}", folder.display());
        Failure::new(Exit::Failed, message)
    })
}

/// Writes each beside its place; none is left where one fails.
fn aside(folder: &Path, files: &[File]) -> io::Result<Vec<PathBuf>> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let some = crate::random::BASE32.encode(&crate::random::bytes::<10>());
    let mut asides = Vec::new();
    for file in files {
        let path = folder.join(format!(".{}.{some}", file.name));
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(if file.secret { 0o600 } else { 0o644 })
            .open(&path);
        asides.push(path);
        let written = opened.and_then(|mut open| {
            open.write_all(file.text.as_bytes())?;
            open.sync_all()
        });
        if let Err(error) = written {
            asides.iter().for_each(|aside| drop(fs::remove_file(aside)));
            return Err(error);
        }
    }
    Ok(asides)
}
