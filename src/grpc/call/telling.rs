//! What is told of a call when it ends: to the figures, to the log, to its trace and to
//! the audit log. It does not know when that is.

use tonic::Code;

use super::{
    super::{Method, audit, figures::place, routes::Route, traffic::Traffic},
    Call,
};
use crate::{
    telemetry::access,
    tenant::{
        Caller,
        audit::{Event, tell},
    },
    trace::Recording,
};

impl Call {
    pub(super) fn count(&self, code: Code, reason: Option<&str>) {
        let Traffic { received, sent } = self.traffic();
        let messages = [received.messages(), sent.messages()];
        let took = self.began.elapsed();
        self.figures.end(place(self.route), code, took, messages);
        if code != Code::Ok {
            let tenant_id = self.caller.get().and_then(tenant_of);
            self.figures.fail(reason, tenant_id);
        }
    }

    pub(super) fn tell(&self, code: Code, reason: Option<&str>) {
        let caller = self.caller.get();
        let latency_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let Traffic { received, sent } = self.traffic();
        tracing::info!(
            target: access::TARGET,
            method = self.method(),
            code = name(code),
            reason,
            tenant_id = caller.and_then(tenant_of).or(self.subject()),
            key_id = caller.map(Caller::key_id),
            latency_us,
            received_bytes = received.bytes(),
            sent_bytes = sent.bytes(),
            received_messages = received.messages(),
            sent_messages = sent.messages(),
            request_id = &*self.request_id,
            trace_id = self.trace_id.map(|trace_id| trace_id.to_string()),
            peer = self.remote.address.map(|address| address.to_string()),
            "call ended"
        );
    }

    /// Ends its span.
    pub(super) fn record(&self, recording: &Recording, code: Code) {
        let Route::Rpc(method) = self.route else {
            return;
        };
        let name = method.path.trim_start_matches('/');
        let service = name.rsplit_once('/').map_or(name, |(service, _)| service);
        let mut attributes = vec![
            ("rpc.system", "grpc".into()),
            ("rpc.service", service.into()),
            ("rpc.method", method.name.into()),
            ("rpc.grpc.status_code", i64::from(i32::from(code)).into()),
            ("riptide.request_id", self.request_id.to_string().into()),
        ];
        let caller = self.caller.get();
        let tenant_id = caller.and_then(tenant_of).or(self.subject());
        attributes.extend(tenant_id.map(|id| ("riptide.tenant_id", id.to_owned().into())));
        let key_id = caller.map(|caller| caller.key_id().to_owned().into());
        attributes.extend(key_id.map(|id| ("riptide.key_id", id)));
        let address = self.remote.address.map(|address| address.ip().to_string());
        attributes.extend(address.map(|address| ("network.peer.address", address.into())));
        recording.end(name, attributes, is_ours(code));
    }

    /// Tells the audit log how it ended.
    pub(super) fn audit(&self, method: &'static Method, code: Code, reason: Option<&str>) {
        let event = self.event(method, reason.unwrap_or_else(|| name(code)));
        if method.audited {
            tell(&event);
        }
        if let Some(log) = self.log.get().filter(|_| !self.is_kept)
            && let Some(manner) = audit::manner(method, self.caller.get(), code)
        {
            // Nobody waits for it: what is waited for was told before.
            let _ = log.append(&event, manner);
        }
    }

    pub(super) fn event<'a>(&'a self, method: &'static Method, outcome: &'a str) -> Event<'a> {
        let caller = self.caller.get();
        let presented = self.presented.get().map_or("", String::as_str);
        Event {
            actor: caller.map_or(presented, Caller::key_id),
            rpc: method.name,
            tenant_id: caller
                .and_then(tenant_of)
                .or(self.subject())
                .unwrap_or_default(),
            outcome,
            request_id: &self.request_id,
            peer: self
                .remote
                .address
                .map(|address| address.ip().to_canonical()),
        }
    }

    /// `riptide.persistence.v1.CacheService/Get`.
    fn method(&self) -> &str {
        let path = match (self.route, &self.path) {
            (Route::Rpc(method), _) => method.path,
            (_, Some(path)) => path,
            (_, None) => "",
        };
        path.trim_start_matches('/')
    }

    fn subject(&self) -> Option<&str> {
        let subject = self.subject.get()?.get()?;
        Some(subject)
    }
}

/// The tenant of a tenant's key.
fn tenant_of(caller: &Caller) -> Option<&str> {
    caller.grant().map(|grant| &*grant.tenant_id)
}

/// Whether it is the server that failed, and not what it was asked: as OpenTelemetry
/// tells them apart.
fn is_ours(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code as the protocol writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
