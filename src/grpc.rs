//! gRPC: one layer that every call passes, and handlers that turn messages
//! into domain calls and back. It holds no rule of the domain.

mod audit;
mod auth;
mod cache;
mod call;
mod convert;
mod deadline;
mod ending;
mod figures;
mod framework;
mod health;
mod home;
mod layer;
mod limits;
mod request_id;
mod routes;
mod state;
pub mod status;
mod tenant;
mod traffic;
mod unary;

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    error::{Error, Result},
    tenant::{
        Caller, Tenancy, id,
        quota::{Notes, Warning},
    },
};

pub use auth::Auth;
pub use cache::CacheApi;
pub use figures::{CODE_NAMES, Calls, Figures, Rpc, Stripe};
pub use health::{Api as HealthApi, Health, Stage};
pub use layer::Layer;
pub use limits::InFlight;
pub use routes::Routes;
pub use state::{About, Api as StateApi};
pub use status::status;
pub use tenant::TenantApi;

/// The response metadata that tells of limits which a call passed in a mode that
/// warns: one value a metric, `metric=<m>, limit=<l>, used=<u>`.
pub const WARNING: &str = "riptide-quota-warning";

/// What the layer found out about a call; every request carries one in its
/// extensions.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who calls.
    pub caller: Caller,
    /// The call's id, taken from `x-request-id` or made.
    pub request_id: Arc<str>,
    /// When the call came.
    pub began: Instant,
    /// The tenant the call turned out to be about, where that is told.
    pub(crate) subject: Option<Arc<OnceLock<String>>>,
    /// What its answer tells of limits, once it was admitted.
    pub(crate) notes: OnceLock<Notes>,
}

impl Context {
    /// What the layer found out about a request, and its message.
    pub(crate) fn of<T>(request: Request<T>) -> std::result::Result<(Self, T), Status> {
        let (_, mut extensions, message) = request.into_parts();
        let Some(context) = extensions.remove::<Self>() else {
            let context = Self {
                caller: Caller::Admin,
                request_id: "".into(),
                began: Instant::now(),
                subject: None,
                notes: OnceLock::new(),
            };
            let error = Error::Internal("a handler was called without the layer".into());
            return Err(status(&error, &context));
        };
        Ok((context, message))
    }

    /// Notes the tenant the call is about, for logs; the first counts.
    pub(crate) fn about(&self, tenant_id: &str) {
        if let Some(subject) = &self.subject
            && id::is_valid(tenant_id)
        {
            subject.get_or_init(|| tenant_id.to_owned());
        }
    }

    /// Lets the call's answer tell which limits it passed.
    pub(crate) fn tell_of(&self, tenancy: &Tenancy) {
        if tenancy.notes.are_kept() {
            let _ = self.notes.set(tenancy.notes.clone());
        }
    }

    /// The answer to the call.
    pub(crate) fn answer<T>(&self, result: Result<T>) -> std::result::Result<Response<T>, Status> {
        match result {
            Ok(message) => {
                let mut response = Response::new(message);
                self.warn(response.metadata_mut());
                Ok(response)
            }
            Err(error) => Err(self.warned(status(&error, self))),
        }
    }

    /// The status that ends the call, telling which limits it passed.
    pub(crate) fn warned(&self, mut status: Status) -> Status {
        self.warn(status.metadata_mut());
        status
    }

    fn warn(&self, metadata: &mut MetadataMap) {
        for warning in self.notes.get().map_or_else(Vec::new, Notes::warnings) {
            let Warning {
                metric,
                limit,
                used,
            } = warning;
            let text = format!("metric={metric}, limit={limit}, used={used}");
            if let Ok(value) = text.parse() {
                metadata.append(WARNING, value);
            }
        }
    }
}

/// An RPC, as its proto options describe it.
#[derive(Debug)]
pub struct Method {
    /// Its place in [`METHODS`].
    pub place: usize,
    /// `/riptide.persistence.v1.CacheService/Get`.
    pub path: &'static str,
    /// `CacheService`.
    pub service: &'static str,
    /// `Get`.
    pub name: &'static str,
    /// The scope a caller needs, `admin` or `any`.
    pub permission: &'static str,
    /// Whether every call is told to the audit log.
    pub audited: bool,
    /// Whether it is admitted by what is remembered while the store is down.
    pub remembered: bool,
    /// Whether it may be repeated.
    pub idempotency: Idempotency,
    /// What of it is a stream.
    pub streams: Streams,
}

/// What of an RPC is a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// One message each way.
    Neither,
    /// What is asked.
    Requests,
    /// What is answered.
    Answers,
    /// Both ways.
    Both,
}

impl Streams {
    /// Whether what is answered is one.
    pub fn answers(self) -> bool {
        matches!(self, Self::Answers | Self::Both)
    }

    /// Its name in figures: `unary`, `client_stream`, `server_stream` or `bidi_stream`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neither => "unary",
            Self::Requests => "client_stream",
            Self::Answers => "server_stream",
            Self::Both => "bidi_stream",
        }
    }
}

/// Whether an RPC may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// It changes nothing.
    NoSideEffects,
    /// Twice is once.
    Idempotent,
    /// Only with a request_id, where the RPC takes one.
    IdempotencyUnknown,
}

/// All RPCs of `riptide.persistence.v1`, sorted by path; made by build.rs.
pub static METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));
