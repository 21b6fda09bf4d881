//! What can be asked of the writer, and what it answers. It does not know how
//! any of it is done.

use tokio::sync::oneshot;

use super::super::{
    Action, Add, Batch, Commit, Cursor, Error, Lease, Leased, Reclaim, Reclaimed, Space, Tallied,
    Tally, Write,
};

/// What is asked of the writer.
pub(super) enum Work {
    Commit(Space, Batch),
    Reclaim {
        space: Space,
        what: Reclaim,
        after: Option<Cursor>,
        limit: usize,
    },
    Tally(Space, Tally),
    Lease(Space, Lease),
    Close,
}

impl Work {
    /// Bytes it holds, about.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Commit(_, batch) => batch.writes.iter().map(weight).sum::<usize>() + 256,
            Self::Tally(_, tally) => tally.adds.iter().map(added).sum::<usize>() + 256,
            Self::Reclaim { .. } | Self::Lease(..) | Self::Close => 256,
        }
    }

    /// Whether it must be durable when it is acknowledged.
    pub(super) fn strict(&self) -> bool {
        match self {
            Self::Commit(_, batch) => {
                batch.step.is_some() || batch.writes.iter().any(|write| write.key.table.lasting())
            }
            Self::Reclaim { .. } | Self::Lease(..) => false,
            Self::Tally(..) | Self::Close => true,
        }
    }

    /// Whether it wrote anything, by its answer.
    pub(super) fn wrote(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Lease(_, lease), Answer::Leased(leased)) => {
                leased.granted > 0 || lease.forced > 0 || lease.settle.is_some()
            }
            (_, Answer::Commit(Commit::Applied(_)) | Answer::Reclaimed(_)) => true,
            (_, Answer::Tallied(Tallied::Added(_))) => true,
            _ => false,
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

fn added(add: &Add) -> usize {
    let counts = add.counts.iter().map(|count| 64 + count.name.len());
    64 + add.row.len() + counts.sum::<usize>()
}

/// What the writer answers.
#[derive(Debug)]
pub(super) enum Answer {
    Commit(Commit),
    Reclaimed(Reclaimed),
    Tallied(Tallied),
    Leased(Leased),
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
    work: &Work,
    answer: std::result::Result<Answer, Error>,
) -> std::result::Result<Answer, Error> {
    match answer {
        Ok(answer) if work.wrote(&answer) => Err(Error::OutcomeUnknown(
            "the disk failed while it was written".into(),
        )),
        answer => answer,
    }
}
