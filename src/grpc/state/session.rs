//! Sessions: messages into calls of the state, and its answers into messages. It does
//! not know what may be asked for; the state refuses.

use super::Api;
use crate::{
    error::{Error, Result, Violations},
    grpc::{
        Context,
        convert::{duration, int64, json, span_ms, structure, timestamp},
        home::at_home,
    },
    proto::v1,
    state::session::{NewSession, Range, Session, Update},
    tenant::{Access, Tenancy, page},
};

impl Api {
    async fn admit(&self, context: &Context, tenant_id: &str, access: Access) -> Result<Tenancy> {
        context.about(tenant_id);
        let tenants = &self.tenants;
        let mut tenancy = tenants.admit(&context.caller, tenant_id, access).await?;
        tenancy.began = Some(context.began);
        context.tell_of(&tenancy);
        tenants.admit_transfer(&tenancy).await?;
        tenants.charge(&tenancy).await?;
        Ok(tenancy)
    }

    pub(super) async fn create(
        &self,
        context: &Context,
        request: v1::CreateSessionRequest,
    ) -> Result<v1::CreateSessionResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let mut violations = Violations::default();
        let mut ms = |field, span: Option<prost_types::Duration>| {
            span.and_then(|span| span_ms(field, &span, &mut violations))
        };
        let (ttl_ms, idle_ms) = (
            ms("ttl", request.ttl),
            ms("idle_timeout", request.idle_timeout),
        );
        let new = NewSession {
            user_id: request.user_id,
            data: json("data", request.data.unwrap_or_default(), &mut violations),
            attributes: request.attributes.into_iter().collect(),
            ttl_ms,
            idle_ms,
            request_id: request.request_id,
        };
        let session = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.sessions.create(&tenancy, &new, violations.clone())
        );
        Ok(v1::CreateSessionResponse {
            session: Some(message(&tenancy, session, Data::Told)),
        })
    }

    pub(super) async fn get(
        &self,
        context: &Context,
        request: &v1::GetSessionRequest,
    ) -> Result<v1::GetSessionResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let session = at_home!(
            self,
            (context, Access::Read),
            tenancy,
            self.sessions.get(&tenancy, &request.session_id)
        );
        Ok(v1::GetSessionResponse {
            session: Some(message(&tenancy, session, Data::Told)),
        })
    }

    pub(super) async fn update(
        &self,
        context: &Context,
        request: v1::UpdateSessionRequest,
    ) -> Result<v1::UpdateSessionResponse> {
        let Some(session) = request.session else {
            return Err(Error::invalid(
                "session",
                "unset: name the session and its new values",
            ));
        };
        let mut tenancy = self
            .admit(context, &session.tenant_id, Access::Write)
            .await?;
        let mut violations = Violations::default();
        let data = session
            .data
            .map(|data| json("session.data", data, &mut violations));
        let idle = session.idle_timeout;
        let update = Update {
            session_id: session.session_id,
            etag: session.etag,
            data,
            attributes: session.attributes.into_iter().collect(),
            idle_ms: idle.and_then(|span| span_ms("session.idle_timeout", &span, &mut violations)),
            mask: request.update_mask.unwrap_or_default().paths,
            validate_only: request.validate_only,
        };
        let session = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.sessions.update(&tenancy, &update, violations.clone())
        );
        Ok(v1::UpdateSessionResponse {
            session: Some(message(&tenancy, session, Data::Told)),
        })
    }

    pub(super) async fn touch(
        &self,
        context: &Context,
        request: &v1::TouchSessionRequest,
    ) -> Result<v1::TouchSessionResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let session = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.sessions.touch(&tenancy, &request.session_id)
        );
        Ok(v1::TouchSessionResponse {
            session: Some(message(&tenancy, session, Data::Told)),
        })
    }

    pub(super) async fn terminate(
        &self,
        context: &Context,
        request: &v1::TerminateSessionRequest,
    ) -> Result<v1::TerminateSessionResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let (session_id, etag) = (&request.session_id, &request.etag);
        let session = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.sessions.terminate(&tenancy, session_id, etag)
        );
        Ok(v1::TerminateSessionResponse {
            session: Some(message(&tenancy, session, Data::Told)),
        })
    }

    pub(super) async fn list(
        &self,
        context: &Context,
        request: &v1::ListSessionsRequest,
    ) -> Result<v1::ListSessionsResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Read)
            .await?;
        let range = Range::new(&request.user_id, request.page_size)?;
        let incarnation = tenancy.incarnation;
        let listing = page::Listing {
            name: "ListSessions",
            filter: &[incarnation.as_bytes(), range.user_id.as_bytes()],
        };
        let after = self
            .tenants
            .open_page(&listing, &request.page_token)
            .await?;
        let found = at_home!(
            self,
            (context, Access::Read),
            tenancy,
            self.sessions.list(&tenancy, &range, after.clone())
        );
        let next_page_token = match &found.next {
            Some(next) => self.tenants.seal_page(&listing, next).await?,
            None => String::new(),
        };
        let sessions = found.sessions.into_iter();
        Ok(v1::ListSessionsResponse {
            sessions: sessions
                .map(|session| message(&tenancy, session, Data::LeftOut))
                .collect(),
            next_page_token,
        })
    }

    pub(super) async fn terminate_all(
        &self,
        context: &Context,
        request: &v1::TerminateSessionsRequest,
    ) -> Result<v1::TerminateSessionsResponse> {
        let mut tenancy = self
            .admit(context, &request.tenant_id, Access::Write)
            .await?;
        let (user_id, except) = (&request.user_id, &request.except_session_id);
        let terminated = at_home!(
            self,
            (context, Access::Write),
            tenancy,
            self.sessions.terminate_all(&tenancy, user_id, except)
        );
        Ok(v1::TerminateSessionsResponse {
            terminated: int64(terminated),
        })
    }
}

/// Whether a session's data are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Data {
    Told,
    LeftOut,
}

fn message(tenancy: &Tenancy, session: Session, data: Data) -> v1::Session {
    v1::Session {
        session_id: session.session_id.to_string(),
        tenant_id: tenancy.tenant_id.to_string(),
        data: (data == Data::Told).then(|| structure(&session.data)),
        create_time: Some(timestamp(session.create_ms)),
        update_time: Some(timestamp(session.update_ms)),
        last_active_time: Some(timestamp(session.last_active_ms())),
        expire_time: Some(timestamp(session.expire_ms)),
        idle_expire_time: Some(timestamp(session.idle_expire_ms)),
        idle_timeout: Some(duration(session.idle_ms)),
        etag: session.etag(),
        user_id: session.user_id,
        attributes: session.attributes.into_iter().collect(),
    }
}
