//! Why a command failed, as a person and a script want it: a line, what is wrong
//! with each field, an exit code. It does not know which command it was.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::innermost;

/// The exit codes; `--help` and the README tell them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Refused, or failed.
    Failed = 1,
    /// The command was used wrongly.
    Usage = 2,
    /// There is no such thing.
    NotFound = 3,
    /// The caller may not.
    Denied = 4,
    /// Nobody answers, or not in time.
    Unavailable = 5,
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    /// The lines told; none means that the output has told all.
    lines: Vec<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            lines: vec![format!("error: {}", message.into())],
        }
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// One that tells each line as an error of its own.
    pub(super) fn all<T: ToString>(exit: Exit, messages: impl IntoIterator<Item = T>) -> Self {
        let lines = messages
            .into_iter()
            .map(|message| format!("error: {}", message.to_string()));
        Self {
            exit,
            lines: lines.collect(),
        }
    }

    /// One that the output has told already.
    pub(super) fn told(exit: Exit) -> Self {
        Self {
            exit,
            lines: Vec::new(),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, detail: impl Into<String>) -> Self {
        self.lines.push(format!("  {}", detail.into()));
        self
    }

    /// To standard error; there is nobody to tell where that fails.
    pub(super) fn print(&self) {
        let mut stderr = io::stderr().lock();
        for line in &self.lines {
            let _ = writeln!(stderr, "{line}");
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str());
        let exit = match status.code() {
            Code::NotFound => Exit::NotFound,
            Code::Unauthenticated | Code::PermissionDenied => Exit::Denied,
            // The client cancels a call whose time is up.
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Exit::Unavailable,
            _ => Exit::Failed,
        };
        let message = match (status.code(), status.message()) {
            (Code::Cancelled, _) => "no answer in time; see --timeout",
            (_, "") => "the server gave no reason",
            (_, message) => message,
        };
        let name = reason.map_or_else(|| code_name(status.code()), str::to_owned);
        let mut failure = Self::new(exit, format!("{message} ({name})"));
        if let Some(request) = details.bad_request() {
            for violation in &request.field_violations {
                failure = failure.with(format!("{}: {}", violation.field, violation.description));
            }
        }
        if let Some(wait) = details.retry_info().and_then(|info| info.retry_delay) {
            failure = failure.with(format!("try again in {} ms", wait.as_millis()));
        }
        if reason == Some("API_KEY_MISSING") {
            failure = failure.with(
                "give one by --key or RIPTIDE_API_KEY, or run this on the server's machine, in the \
                 folder it runs in, where <store.path>/admin.key is found",
            );
        }
        // One that the transport made: in TLS 1.3 a server's refusal of a certificate is
        // heard of with the first call.
        if reason.is_none()
            && let Some(cause) = std::error::Error::source(&status)
        {
            failure = failure.with(innermost(cause));
        }
        if status.code() == Code::Internal
            && let Some(request) = details.request_info()
        {
            failure = failure.with(format!(
                "the server's log has more under {}",
                request.request_id
            ));
        }
        failure
    }
}

/// A code as the protocol writes it, such as `NOT_FOUND`.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
