//! `state checkpoint download` and `upload`: a checkpoint as a file. It does not know
//! what is in it.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use futures::stream;
use serde_json::json;

use super::progress::Bar;
use crate::{
    cli::{
        client::{Client, Global},
        failure::{Exit, Failure},
        output::show,
        resume,
    },
    proto::v1::{DownloadCheckpointRequest, GetCheckpointRequest, UploadCheckpointRequest},
};

/// Bytes sent at once.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Args, Debug)]
pub(in crate::cli) struct Download {
    /// The checkpoint.
    checkpoint_id: String,
    /// The file to write; by default the id, with `.rcka`.
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct Upload {
    /// A file that `download` wrote.
    file: PathBuf,
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(Exit::Failed, format!("{path}: {error}"))
}

impl Download {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let get = client.request(GetCheckpointRequest {
            checkpoint_id: self.checkpoint_id.clone(),
        });
        let found = client.states().get_checkpoint(get).await?.into_inner();
        let size = found.checkpoint.map_or(0, |found| found.size_bytes);
        let named = || PathBuf::from(format!("{}.rcka", self.checkpoint_id));
        let file = self.file.clone().unwrap_or_else(named);
        let request = client.lasting(DownloadCheckpointRequest {
            checkpoint_id: self.checkpoint_id.clone(),
        });
        let mut pieces = client
            .states()
            .download_checkpoint(request)
            .await?
            .into_inner();
        // Beside it until it is whole, so that what has the name is an archive.
        let part = resume::beside(&file, ".part");
        let mut out = File::create(&part).map_err(unwritable(&part))?;
        let bar = Bar::bytes(size.unsigned_abs());
        let mut bytes = 0_u64;
        let received = async {
            while let Some(piece) = pieces.message().await? {
                out.write_all(&piece.chunk).map_err(unwritable(&part))?;
                bytes += piece.chunk.len() as u64;
                bar.at(bytes);
            }
            out.sync_all().map_err(unwritable(&part))
        };
        let received = received.await;
        bar.clear();
        if let Err(failure) = received {
            let _ = fs::remove_file(&part);
            return Err(failure);
        }
        fs::rename(&part, &file).map_err(unwritable(&file))?;
        let told = json!({ "file": file.display().to_string(), "bytes": bytes });
        show(global.output, &told, || {
            format!("{} bytes in {}", bytes, file.display())
        })
    }
}

impl Upload {
    pub(super) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let unreadable = unwritable(&self.file);
        let file = File::open(&self.file).map_err(&unreadable)?;
        let size = file.metadata().map_err(&unreadable)?.len();
        let bar = Bar::bytes(size);
        let pieces = stream::unfold(
            (file, bar.clone(), 0_u64),
            |(mut file, bar, sent)| async move {
                let mut chunk = vec![0; PIECE_BYTES];
                let mut filled = 0;
                // What cannot be read is missed by the server, which tells so.
                while let Some(room) = chunk.get_mut(filled..).filter(|room| !room.is_empty()) {
                    match file.read(room) {
                        Ok(0) | Err(_) => break,
                        Ok(read) => filled += read,
                    }
                }
                chunk.truncate(filled);
                let sent = sent + filled as u64;
                bar.at(sent);
                (filled > 0).then_some((UploadCheckpointRequest { chunk }, (file, bar, sent)))
            },
        );
        let mut states = client.states();
        let answer = states.upload_checkpoint(client.lasting(pieces)).await;
        bar.clear();
        let taken = answer?.into_inner().checkpoint.unwrap_or_default();
        let told = json!({
            "checkpoint_id": taken.checkpoint_id,
            "tenants": taken.tenants,
            "size_bytes": taken.size_bytes,
        });
        show(global.output, &told, || {
            format!(
                "{}: verified, {} tenants",
                taken.checkpoint_id, taken.tenants
            )
        })
    }
}
