//! Turns what Redis or its driver said into the store's errors. It does not know
//! what was being done, but for whether it may have been done.

use fred::error::{Error as Driver, ErrorKind};

use super::tls;
use crate::store::Error;

/// Why a command has no answer that can be read on.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The command was not run, for this reason.
    NotRun(Error),
    /// The server does not have the script.
    NoScript,
    /// The slot is moving between nodes: not run, and soon it can be.
    Moving,
    /// No answer in time; it may have run, or may yet run.
    Timeout,
    /// The connection went away; it may have run.
    Lost(String),
}

impl Fault {
    /// From the text of an error answer. The command was not run.
    pub(super) fn answered(text: &str) -> Self {
        let code = text.split_whitespace().next().unwrap_or_default();
        match code {
            "NOSCRIPT" => Self::NoScript,
            "TRYAGAIN" => Self::Moving,
            _ => match refusal(text) {
                Some(error) => Self::NotRun(error),
                // Nothing known: a script may have failed half way.
                None => Self::Lost(format!("it answered: {text}")),
            },
        }
    }

    /// From an error of the driver.
    pub(super) fn driver(error: &Driver) -> Self {
        let text = error.details();
        match error.kind() {
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Backpressure => {
                Self::NotRun(unavailable("too many commands are waiting for it"))
            }
            // The driver's own words for a command that never left it.
            ErrorKind::Canceled if text.starts_with("Connection closed") => {
                Self::NotRun(unavailable("not connected"))
            }
            ErrorKind::Routing if text.starts_with("Too many redirections") => Self::Moving,
            ErrorKind::Unknown
                if text.contains("not initialized") || text.contains("to router") =>
            {
                Self::NotRun(unavailable("not connected"))
            }
            _ if text.starts_with("TRYAGAIN") => Self::Moving,
            // The driver answers with the server's words where it drops the
            // connection because of them.
            _ => match refusal(text) {
                Some(error) => Self::NotRun(error),
                None => Self::Lost(text.to_owned()),
            },
        }
    }

    /// As an error of a call that changes nothing.
    pub(super) fn of_read(self) -> Error {
        match self {
            Self::NotRun(error) => error,
            Self::NoScript => unavailable("it does not keep scripts"),
            Self::Moving => unavailable("the slot is moving to another node"),
            Self::Timeout => unavailable("no answer in time"),
            Self::Lost(text) => unavailable(text),
        }
    }

    /// As an error of a call that may have changed something.
    pub(super) fn of_commit(self) -> Error {
        match self {
            Self::Timeout => Error::OutcomeUnknown("no answer in time".into()),
            Self::Lost(text) => Error::OutcomeUnknown(text),
            not_run => not_run.of_read(),
        }
    }
}

/// The error behind a server's words, where they say that nothing was run.
fn refusal(text: &str) -> Option<Error> {
    let code = text.split_whitespace().next().unwrap_or_default();
    Some(match code {
        "OOM" => Error::Full("the server has reached maxmemory".into()),
        "WRONGTYPE" => corrupt("it is of another type than a record"),
        "CORRUPT" => corrupt(text),
        "NOAUTH" | "WRONGPASS" => Error::Unusable(format!("it refused the password ({code})")),
        "NOPERM" => Error::Unusable(format!("its user may not do what is needed: {text}")),
        "MISCONF" | "READONLY" | "NOREPLICAS" | "LOADING" | "CLUSTERDOWN" | "BUSY"
        | "MASTERDOWN" | "MOVED" | "ASK" => unavailable(text),
        _ => return None,
    })
}

/// Why a connection could not be made or was lost, `at_connect` telling which.
pub(super) fn connection(error: &Driver, at_connect: bool) -> Error {
    let text = error.details();
    if let Some(error) = tls::failure(text) {
        return error;
    }
    if let Some(words) = text
        .find("WRONGPASS")
        .or_else(|| text.find("NOAUTH"))
        .and_then(|at| text.get(at..))
    {
        return refusal(words).unwrap_or_else(|| unavailable(text));
    }
    if let Some(error) = refusal(text) {
        return error;
    }
    if !at_connect {
        return unavailable(text);
    }
    match error.kind() {
        ErrorKind::Auth => Error::Unusable("it refused the password".into()),
        ErrorKind::Protocol | ErrorKind::Parse if text.contains("cluster state") => {
            unavailable("the cluster is not whole")
        }
        ErrorKind::Protocol | ErrorKind::Parse => {
            Error::Unusable("the peer does not speak Redis' protocol".into())
        }
        ErrorKind::Tls => Error::Unusable(format!("TLS with it failed: {text}")),
        ErrorKind::Config if text.contains("cluster support disabled") => {
            Error::Unusable("it is no Cluster; use redis:// instead of redis-cluster://".into())
        }
        ErrorKind::Config => Error::Unusable(text.to_owned()),
        _ if text.starts_with("ERR unknown command") => {
            Error::Unusable("it is older than Redis 7.0".into())
        }
        _ if text.starts_with("ERR") => Error::Unusable(text.to_owned()),
        ErrorKind::Timeout => unavailable("the connection was not made in time"),
        _ => unavailable(text),
    }
}

/// [`Error::Unavailable`] with these words.
pub(super) fn unavailable(words: impl Into<String>) -> Error {
    Error::Unavailable(words.into())
}

/// What is answered to a count in a space that is gone.
pub(super) fn removed() -> Error {
    Error::Misuse("the space was removed".into())
}

/// [`Error::Corrupt`] with these words.
pub(super) fn corrupt(words: impl Into<String>) -> Error {
    Error::Corrupt(words.into())
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_the_errors_a_caller_can_act_on() {
        for (text, commit) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "full",
            ),
            ("WRONGTYPE Operation against a key", "corrupt"),
            ("CORRUPT the head of a record", "corrupt"),
            (
                "MISCONF Redis is configured to save RDB snapshots",
                "unavailable",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "unavailable",
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                "unavailable",
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                "unavailable",
            ),
            ("CLUSTERDOWN The cluster is down", "unavailable"),
            ("BUSY Redis is busy running a script.", "unavailable"),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                "unavailable",
            ),
            ("WRONGPASS invalid username-password pair", "unusable"),
            ("ERR user_script:1: attempt to index a nil value", "unknown"),
        ] {
            let kind = match Fault::answered(text).of_commit() {
                Error::Full(_) => "full",
                Error::Corrupt(_) => "corrupt",
                Error::Unavailable(_) => "unavailable",
                Error::Unusable(_) => "unusable",
                Error::OutcomeUnknown(_) => "unknown",
                Error::Misuse(_) => "misuse",
            };
            assert_eq!(kind, commit, "{text}");
        }
    }

    #[test]
    fn only_what_may_have_run_is_unknown() {
        let of = |kind, text: &'static str| Fault::driver(&Driver::new(kind, text));
        for (fault, unknown) in [
            (of(ErrorKind::Timeout, "Request timed out."), true),
            (of(ErrorKind::IO, "Connection closed."), true),
            (
                of(ErrorKind::Unknown, "Too many failed write attempts."),
                true,
            ),
            (
                of(ErrorKind::Backpressure, "Max in-flight commands reached."),
                false,
            ),
            (
                of(ErrorKind::Canceled, "Connection closed unexpectedly."),
                false,
            ),
            (of(ErrorKind::Routing, "Too many redirections."), false),
            (of(ErrorKind::Unknown, "READONLY You can't write"), false),
        ] {
            assert!(
                matches!(fault.clone().of_read(), Error::Unavailable(_)),
                "{fault:?}"
            );
            assert_eq!(
                matches!(fault.clone().of_commit(), Error::OutcomeUnknown(_)),
                unknown,
                "{fault:?}"
            );
        }
    }
}
