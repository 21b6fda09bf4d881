//! What a certificate says: whose it is, and until when. It verifies nothing, and does
//! not know who is an admin.

use std::time::{Duration, SystemTime};

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time,
};

use crate::{config::Identity, tenant::Peer};

/// Whose a certificate is that was verified. One that cannot be read is nobody's.
pub(super) fn of(certificate: &[u8]) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let expire_time = time(certificate.validity().not_after);
    Some(Peer::new(identities(&certificate), expire_time))
}

/// Until when a certificate is good.
pub(super) fn expire_time(certificate: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(time(certificate.validity().not_after))
}

/// Whatever has another form than an identity in settings is none.
fn identities(certificate: &X509Certificate<'_>) -> Vec<Identity> {
    let mut found = Vec::new();
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            found.extend(match name {
                GeneralName::URI(uri) => Some(Identity::Uri((*uri).to_owned())),
                GeneralName::DNSName(name) => Some(Identity::Dns(name.to_ascii_lowercase())),
                _ => None,
            });
        }
    }
    // Of several nobody can say which one was meant.
    let mut common = certificate.subject().iter_common_name();
    if let (Some(name), None) = (common.next(), common.next())
        && let Ok(name) = name.as_str()
    {
        found.push(Identity::CommonName(name.to_owned()));
    }
    found
}

fn time(time: ASN1Time) -> SystemTime {
    // Before 1970 is as long ago as anything.
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
