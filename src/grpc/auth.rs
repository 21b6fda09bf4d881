//! Who makes a call, and whether they may. It does not know how a credential is
//! kept, nor what the call does.

use std::sync::Arc;

use http::{HeaderMap, header::AUTHORIZATION};

use super::Method;
use crate::{
    config::{Identity, Live},
    error::{Error, Result},
    tenant::{Caller, Peer, Permission, Tenants, api_key, audit},
};

/// Authentication and permissions.
#[derive(Debug)]
pub struct Auth {
    tenants: Tenants,
    admins: Live<Vec<Identity>>,
}

impl Auth {
    /// Authentication by the keys that `tenants` knows, and by the certificates of these
    /// admins.
    pub fn new(tenants: Tenants, admins: Live<Vec<Identity>>) -> Self {
        Self { tenants, admins }
    }

    /// Where it is told who was refused.
    pub(super) fn audit(&self) -> &audit::Log {
        self.tenants.audit()
    }

    /// Who makes a call of this RPC, by the key in the headers; where there is none, by
    /// the certificate of the connection's peer. A key that is there decides alone, so
    /// that one that was revoked, or that may do less, is never helped by a certificate.
    ///
    /// # Errors
    /// [`Error::KeyMissing`], [`Error::KeyInvalid`], and those of the store.
    pub(super) async fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        method: &Method,
    ) -> Result<Caller> {
        let bearer = bearer(headers)?;
        if bearer.is_none()
            && let Some(admin) = peer.and_then(|peer| peer.admin(&self.admins))
        {
            return Ok(Caller::Certified(Arc::new(admin)));
        }
        if method.remembered {
            self.tenants.authenticate_remembering(bearer).await
        } else {
            self.tenants.authenticate(bearer).await
        }
    }
}

/// The public half of a key that was refused, where it has the form of one.
pub(super) fn presented(headers: &HeaderMap) -> Option<String> {
    let credential = api_key::parse(bearer(headers).ok()??)?;
    Some(credential.key_id.to_owned())
}

/// Whether a caller may call this RPC; one whose permission is not known may be
/// called by none.
///
/// # Errors
/// [`Error::ScopeMissing`].
pub(super) fn permit(caller: &Caller, method: &Method) -> Result<()> {
    let permission = Permission::parse(method.permission).ok_or(Error::ScopeMissing {
        scope: method.permission.into(),
    })?;
    caller.require(permission)
}

/// The key in `authorization: Bearer <key>`.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Error::KeyInvalid)?;
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Some(key.trim())),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::METHODS;

    #[test]
    fn every_rpc_names_a_permission_there_is() {
        for method in METHODS {
            assert!(
                Permission::parse(method.permission).is_some(),
                "{}",
                method.path
            );
        }
    }

    #[test]
    fn a_permission_that_is_not_known_is_granted_to_none() {
        let method = Method {
            place: 0,
            streams: crate::grpc::Streams::Neither,
            path: "/p.S/M",
            service: "S",
            name: "M",
            permission: "cache.raed",
            audited: false,
            remembered: false,
            idempotency: crate::grpc::Idempotency::Idempotent,
        };
        assert!(permit(&Caller::Admin, &method).is_err());
    }

    #[test]
    fn a_bearer_is_read_from_the_header_alone() {
        let of = |text: &'static str| {
            let headers =
                HeaderMap::from_iter([(AUTHORIZATION, http::HeaderValue::from_static(text))]);
            bearer(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(bearer(&HeaderMap::new()), Ok(None));
        assert_eq!(of("Bearer k"), Ok(Some("k".into())));
        assert_eq!(of("bearer  k "), Ok(Some("k".into())));
        assert_eq!(of("Basic k"), Ok(None));
        assert_eq!(of("k"), Ok(None));
    }
}
