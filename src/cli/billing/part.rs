//! A file that is written in steps and can be gone on with after any of them,
//! whatever ended the process. It does not know what is written.
//!
//! The bytes go to `FILE.part`, and are on disk before `FILE.part.state` says so:
//! what lies behind the length it tells is cut off when the export goes on. The
//! state is replaced in one step, the part becomes `FILE` in one step.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::rows::Format;
use crate::{
    cli::{
        failure::{Exit, Failure},
        resume::{self, beside},
    },
    proto::v1::ListStatementsResponse,
};

/// What is exported: a part of another one is not gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Export {
    pub(super) period: String,
    pub(super) format: Format,
    /// Whether there may be more statements later.
    pub(super) partial: bool,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The page that is next; empty at the beginning and at the end.
    pub(super) page_token: String,
    /// Whether there is no page more.
    pub(super) whole: bool,
    /// Statements written.
    pub(super) statements: u64,
    /// Lines of statements written.
    pub(super) rows: u64,
    /// Bytes written.
    pub(super) bytes: u64,
    /// The digest of those bytes.
    pub(super) sha256: String,
    /// Statements there were when this process took over.
    #[serde(skip)]
    pub(super) resumed_from: u64,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    export: Export,
    progress: Progress,
}

/// The version of the stored form.
const FORMAT: u32 = 1;

/// What an export finds.
pub(super) enum Opened {
    /// A part to be written.
    Part(Part),
    /// The file, whole.
    Whole(Progress),
}

/// A part that is written; nobody else writes it meanwhile.
pub(super) struct Part {
    out: PathBuf,
    file: File,
    export: Export,
    progress: Progress,
    digest: Sha256,
}

impl Part {
    /// Opens the part of a file, where it was left or at its beginning.
    pub(super) fn open(out: &Path, export: Export, force: bool) -> Result<Opened, Failure> {
        let (at, state_at) = (beside(out, ".part"), beside(out, ".part.state"));
        let left = fs::exists(&at).map_err(|error| failed("read", &at, &error))?;
        if !left
            && !force
            && let Some(done) = ended(out, &state_at, &export)?
        {
            remove(&state_at)?;
            return Ok(Opened::Whole(done));
        }
        if out.is_dir() {
            return Err(refused(format!("{} is a folder", out.display())));
        }
        if !force && fs::exists(out).map_err(|error| failed("read", out, &error))? {
            let message = format!("{} exists; replace it with --force", out.display());
            return Err(refused(message));
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&at)
            .map_err(|error| failed("write", &at, &error))?;
        if !resume::lock(&file) {
            let message = format!("another export is writing {}", at.display());
            return Err(refused(message));
        }
        let length = file
            .metadata()
            .map_err(|error| failed("read", &at, &error))?
            .len();
        let begun = state(&state_at)?.filter(|state| state.progress.bytes > 0);
        let (progress, digest) = match begun {
            Some(state) if length > 0 => {
                same(&at, &state.export, &export)?;
                let digest = verified(&mut file, &at, &state.progress)?;
                (state.progress, digest)
            }
            None if length > 0 && !fs::exists(&state_at).unwrap_or(false) => {
                let message = format!("{} is of no export, or of one that is lost", at.display());
                return Err(refused(message).with("remove it, or choose another --out"));
            }
            // Nothing is in it that counts.
            _ => (Progress::default(), Sha256::new()),
        };
        let mut part = Self {
            out: out.to_owned(),
            file,
            export,
            progress,
            digest,
        };
        part.cut().map_err(|error| failed("write", &at, &error))?;
        if part.progress.bytes == 0 {
            // From here what is in the part is known to be an export's.
            part.keep()?;
        }
        Ok(Opened::Part(part))
    }

    /// How far it is.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Drops what was written after the state was.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.progress.bytes)?;
        self.file.seek(SeekFrom::Start(self.progress.bytes))?;
        Ok(())
    }

    /// Adds a page: after this the next page is next, whatever happens.
    pub(super) fn append(&mut self, page: &ListStatementsResponse) -> Result<(), Failure> {
        let Progress {
            statements, bytes, ..
        } = self.progress;
        let format = self.export.format;
        let text = format.write(&page.statements, statements, bytes == 0);
        self.put(&text)?;
        let rows: usize = page.statements.iter().map(|s| s.lines.len()).sum();
        self.progress = Progress {
            page_token: page.next_page_token.clone(),
            whole: page.next_page_token.is_empty(),
            statements: self.progress.statements + page.statements.len() as u64,
            rows: self.progress.rows + rows as u64,
            bytes: self.progress.bytes + text.len() as u64,
            sha256: HEXLOWER.encode(&self.digest.clone().finalize()),
            resumed_from: 0,
        };
        self.keep()
    }

    fn put(&mut self, text: &str) -> Result<(), Failure> {
        self.file
            .write_all(text.as_bytes())
            .and_then(|()| self.file.sync_data())
            .map_err(|error| failed("write", &beside(&self.out, ".part"), &error))?;
        self.digest.update(text.as_bytes());
        Ok(())
    }

    /// Writes the state, in one step.
    fn keep(&self) -> Result<(), Failure> {
        let at = beside(&self.out, ".part.state");
        let state = State {
            format: FORMAT,
            export: self.export.clone(),
            progress: self.progress.clone(),
        };
        resume::keep(&at, &state).map_err(|error| failed("write", &at, &error))
    }

    /// Ends the file and gives it its name.
    pub(super) fn finish(mut self) -> Result<Progress, Failure> {
        let end = self.export.format.end(self.progress.statements);
        self.put(end)?;
        let done = Progress {
            bytes: self.progress.bytes + end.len() as u64,
            sha256: HEXLOWER.encode(&self.digest.clone().finalize()),
            ..self.progress.clone()
        };
        fs::rename(beside(&self.out, ".part"), &self.out)
            .and_then(|()| resume::sync_folder(&self.out))
            .map_err(|error| failed("write", &self.out, &error))?;
        remove(&beside(&self.out, ".part.state"))?;
        Ok(done)
    }

    /// Gives up; whether anything is left to be gone on with.
    pub(super) fn leave(self) -> bool {
        let kept = self.progress.bytes > 0;
        if !kept {
            // It is empty, and its loss is none.
            for ending in [".part", ".part.state"] {
                let _ = fs::remove_file(beside(&self.out, ending));
            }
        }
        kept
    }
}

fn state(at: &Path) -> Result<Option<State>, Failure> {
    let text = resume::kept(at).map_err(|error| failed("read", at, &error))?;
    let state = |text: Vec<u8>| match serde_json::from_slice::<State>(&text) {
        Ok(state) if state.format == FORMAT => Ok(state),
        _ => Err(damaged(at, "is not the state of an export of this version")),
    };
    text.map(state).transpose()
}

/// What an export came to that gave the file its name and then ended before it
/// removed its state.
fn ended(out: &Path, state_at: &Path, export: &Export) -> Result<Option<Progress>, Failure> {
    let Some(state) = state(state_at)? else {
        return Ok(None);
    };
    if !state.progress.whole || state.export != *export {
        return Ok(None);
    }
    let end = export.format.end(state.progress.statements);
    let Ok(mut file) = File::open(out) else {
        return Ok(None);
    };
    let mut digest = match verified(&mut file, out, &state.progress) {
        Ok(digest) => digest,
        Err(_) => return Ok(None),
    };
    let mut rest = String::new();
    match file.read_to_string(&mut rest) {
        Ok(_) if rest == end => {}
        _ => return Ok(None),
    }
    digest.update(end.as_bytes());
    Ok(Some(Progress {
        bytes: state.progress.bytes + end.len() as u64,
        sha256: HEXLOWER.encode(&digest.finalize()),
        resumed_from: state.progress.statements,
        ..state.progress
    }))
}

/// The digest of the bytes that are told to be there; they are.
fn verified(file: &mut File, at: &Path, progress: &Progress) -> Result<Sha256, Failure> {
    let found = resume::verified(file, progress.bytes, &progress.sha256);
    let found = found.map_err(|error| failed("read", at, &error))?;
    found.ok_or_else(|| damaged(at, "does not hold what its state says"))
}

fn same(at: &Path, found: &Export, asked: &Export) -> Result<(), Failure> {
    if found == asked {
        return Ok(());
    }
    let told = |export: &Export| {
        let format = match export.format {
            Format::Csv => "csv",
            Format::Json => "json",
        };
        let partial = if export.partial { ", --partial" } else { "" };
        format!("{} as {format}{partial}", export.period)
    };
    let message = format!(
        "{} is of an export of {}, not of {}",
        at.display(),
        told(found),
        told(asked)
    );
    Err(refused(message).with(format!(
        "finish that one, remove {0} and {0}.state, or choose another --out",
        at.display()
    )))
}

fn remove(at: &Path) -> Result<(), Failure> {
    resume::remove(at).map_err(|error| failed("remove", at, &error))
}

fn damaged(at: &Path, what: &str) -> Failure {
    let message = format!("{} {what}", at.display());
    refused(message).with("remove FILE.part and FILE.part.state to begin anew")
}

fn refused(message: String) -> Failure {
    Failure::new(Exit::Failed, message)
}

fn failed(what: &str, at: &Path, error: &io::Error) -> Failure {
    refused(format!("cannot {what} {}: {error}", at.display()))
}
