//! Certificates for development, and their keys: an authority, what it signs. It does
//! not know where they are kept.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use zeroize::Zeroizing;

use super::failed;
use crate::{
    cli::failure::{Exit, Failure},
    config::Identity,
};

/// How far the clock of another machine may be behind.
const BEFORE: Duration = Duration::from_secs(60 * 60);

/// A client that gets a certificate.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) name: String,
    pub(super) uri: Option<String>,
}

impl Client {
    /// By what it is named in server.tls.admins.
    pub(super) fn identity(&self) -> String {
        match &self.uri {
            Some(uri) => uri.clone(),
            None => Identity::CommonName(self.name.clone()).to_string(),
        }
    }
}

/// A file that is to be written.
pub(super) struct File {
    pub(super) name: String,
    pub(super) text: Zeroizing<String>,
    /// Whether it is for its owner alone.
    pub(super) secret: bool,
}

/// Everything that was made.
pub(super) struct Made {
    pub(super) files: Vec<File>,
    /// When all of it is over.
    pub(super) expire_time: String,
}

/// Makes an authority, and what it signs.
pub(super) fn make(hosts: &[String], clients: &[Client], days: u16) -> Result<Made, Failure> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(failed)?;
    let until = now + Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    let good = |params: &mut CertificateParams, name: &str| {
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_before = epoch + now.saturating_sub(BEFORE);
        params.not_after = epoch + until;
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let mut made = Vec::new();

    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    // Two of them in one store of trust are told apart by it.
    let some = crate::random::BASE32.encode(&crate::random::bytes::<5>());
    good(
        &mut authority,
        &format!("riptide-persistence development {some}"),
    );
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = authority.self_signed(&key).map_err(failed)?;
    keep(&mut made, "ca", certificate.pem(), &key);
    let issuer = Issuer::new(authority, key);

    let mut sign = |name: &str, mut params: CertificateParams, purpose| {
        good(&mut params, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
        keep(&mut made, name, certificate.pem(), &key);
        Ok::<_, Failure>(())
    };
    let server = CertificateParams::new(hosts.to_vec()).map_err(|error| {
        let hosts = hosts.join(", ");
        Failure::usage(format!("--host: not all of {hosts} are names: {error}"))
    })?;
    sign("server", server, ExtendedKeyUsagePurpose::ServerAuth)?;
    for client in clients {
        let names = vec![client.name.clone()];
        let mut params = CertificateParams::new(names).map_err(failed)?;
        if let Some(uri) = &client.uri {
            let uri = uri.as_str().try_into().map_err(failed)?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        sign(&client.name, params, ExtendedKeyUsagePurpose::ClientAuth)?;
    }

    let seconds = i64::try_from(until.as_secs()).map_err(failed)?;
    let expire_time = jiff::Timestamp::from_second(seconds)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?
        .to_string();
    Ok(Made {
        files: made,
        expire_time,
    })
}

fn keep(made: &mut Vec<File>, name: &str, certificate: String, key: &KeyPair) {
    made.push(File {
        name: format!("{name}.crt"),
        text: certificate.into(),
        secret: false,
    });
    made.push(File {
        name: format!("{name}.key"),
        text: key.serialize_pem().into(),
        secret: true,
    });
}
