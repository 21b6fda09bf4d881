//! Where a warming stands, kept beside its file: `FILE.progress`. It does not know
//! how the file is read.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::source::Place;
use crate::cli::{
    failure::{Exit, Failure},
    resume::{self, beside},
};

/// What is warmed from the file: the progress of another warming is not gone on
/// with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) tenant_id: String,
    pub(super) namespace: String,
}

/// What the lines came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) pulled: u64,
    #[serde(default)]
    pub(super) not_kept: u64,
    pub(super) missing: u64,
    pub(super) failed: u64,
    pub(super) bad_lines: u64,
}

impl Counts {
    /// Items that came to something.
    pub(super) fn items(&self) -> u64 {
        self.stored + self.pulled + self.not_kept + self.missing + self.failed
    }
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct State {
    format: u32,
    target: Target,
    lines: u64,
    bytes: u64,
    /// Of these bytes of the file.
    sha256: String,
    counts: Counts,
}

/// The version of the stored form.
const FORMAT: u32 = 1;

/// Where the warming of a file stands; nobody else warms from it meanwhile.
pub(super) struct Progress {
    at: PathBuf,
    /// Holds the lock, also when all of the file has been read.
    _locked: File,
    target: Target,
}

/// A file to be warmed from, as it was left.
pub(super) struct Opened {
    pub(super) progress: Progress,
    /// Reads from `place` on.
    pub(super) file: File,
    pub(super) place: Place,
    pub(super) counts: Counts,
}

impl Progress {
    pub(super) fn open(path: &Path, target: Target) -> Result<Opened, Failure> {
        let mut file = File::open(path).map_err(|error| failed("read", path, &error))?;
        if !resume::lock(&file) {
            let message = format!("another warming reads {}", path.display());
            return Err(Failure::new(Exit::Failed, message));
        }
        let locked = file.try_clone();
        let progress = Self {
            _locked: locked.map_err(|error| failed("read", path, &error))?,
            at: beside(path, ".progress"),
            target,
        };
        let (place, counts) = match progress.state()? {
            None => (Place::default(), Counts::default()),
            Some(state) => {
                let verified = resume::verified(&mut file, state.bytes, &state.sha256);
                let digest = verified.map_err(|error| failed("read", path, &error))?;
                let digest = digest.ok_or_else(|| {
                    let what = format!(
                        "{} does not begin with what was warmed from it before",
                        path.display()
                    );
                    progress.useless(what)
                })?;
                let place = Place {
                    lines: state.lines,
                    bytes: state.bytes,
                    digest,
                };
                (place, state.counts)
            }
        };
        let seek = file.seek(SeekFrom::Start(place.bytes));
        seek.map_err(|error| failed("read", path, &error))?;
        Ok(Opened {
            progress,
            file,
            place,
            counts,
        })
    }

    fn state(&self) -> Result<Option<State>, Failure> {
        let text = resume::kept(&self.at).map_err(|error| failed("read", &self.at, &error))?;
        let Some(text) = text else { return Ok(None) };
        let state = match serde_json::from_slice::<State>(&text) {
            Ok(state) if state.format == FORMAT => state,
            _ => {
                let what = "is not the progress of a warming of this version";
                return Err(self.useless(format!("{} {what}", self.at.display())));
            }
        };
        if state.target != self.target {
            let Target {
                address,
                tenant_id,
                namespace,
            } = &state.target;
            let what = format!(
                "{} is of a warming of tenant {tenant_id:?}, namespace {namespace:?}, at {address}",
                self.at.display()
            );
            return Err(self.useless(what));
        }
        Ok(Some(state))
    }

    /// Notes that all before this place is done, and came to this.
    pub(super) fn keep(&self, place: &Place, counts: Counts) -> Result<(), Failure> {
        let state = State {
            format: FORMAT,
            target: self.target.clone(),
            lines: place.lines,
            bytes: place.bytes,
            sha256: HEXLOWER.encode(&place.digest.clone().finalize()),
            counts,
        };
        resume::keep(&self.at, &state).map_err(|error| failed("write", &self.at, &error))
    }

    /// Notes that all is done.
    pub(super) fn end(self) -> Result<(), Failure> {
        resume::remove(&self.at).map_err(|error| failed("remove", &self.at, &error))
    }

    fn useless(&self, what: String) -> Failure {
        let remedy = format!("remove {} to begin anew", self.at.display());
        Failure::new(Exit::Failed, what).with(remedy)
    }
}

pub(super) fn failed(what: &str, at: &Path, error: &io::Error) -> Failure {
    let message = format!("cannot {what} {}: {error}", at.display());
    Failure::new(Exit::Failed, message)
}
