//! What can be asked of the writer, and what it answers. It does not know how
//! any of it is done.

use tokio::sync::oneshot;

use super::super::{Action, Batch, Commit, Cursor, Error, Reclaim, Reclaimed, Space, Table, Write};

/// What is asked of the writer.
pub(super) enum Work {
    Commit(Space, Batch),
    Reclaim {
        space: Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    },
    Close,
}

impl Work {
    /// Bytes it holds, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Commit(_, batch) => batch.writes.iter().map(weight).sum::<usize>() + 256,
            Self::Reclaim { .. } | Self::Close => 256,
        }
    }

    /// Whether it must be durable when it is acknowledged.
    pub(super) fn strict(&self) -> bool {
        match self {
            Self::Commit(_, batch) => {
                batch.step.is_some()
                    || batch
                        .writes
                        .iter()
                        .any(|write| write.key.table != Table::Entry)
            }
            Self::Reclaim { .. } => false,
            Self::Close => true,
        }
    }
}

fn weight(write: &Write) -> usize {
    let value = match &write.action {
        Action::Put { value, .. } => value.len(),
        _ => 0,
    };
    64 + write.key.path.len() + value
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Answer {
    Commit(Commit),
    Reclaimed(Reclaimed),
    Closed,
}

/// Something asked, and where to answer.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) weight: usize,
    pub(super) reply: oneshot::Sender<std::result::Result<Answer, Error>>,
}

/// What is said of a request whose transaction may or may not last.
pub(super) fn left_open(
    answer: std::result::Result<Answer, Error>,
) -> std::result::Result<Answer, Error> {
    match answer {
        Ok(Answer::Commit(Commit::Applied(_)) | Answer::Reclaimed(_)) => Err(
            Error::OutcomeUnknown("the disk failed while it was written".into()),
        ),
        answer => answer,
    }
}
