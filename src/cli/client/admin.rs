//! The admin port of a replica: one question, one answer, over HTTP/1.1. It does not
//! know what is asked.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST},
    uri::{PathAndQuery, Uri},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{Global, admin_key, loopback};
use crate::{
    cli::failure::{Exit, Failure},
    client::innermost,
    config::Config,
    tls::Connector,
};

/// The largest answer that is read.
const ANSWER_BYTES: usize = 8 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Silence {
    pub(in crate::cli) kind: Kind,
    uri: Uri,
    /// In a few words, beside the address.
    pub(in crate::cli) why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Kind {
    /// The key is missing, or not the admin's.
    Denied,
    /// Nobody answers, or not in time.
    Unreachable,
    /// Something answers, but not what was asked.
    Unfit,
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        let Silence { kind, uri, why } = silence;
        match kind {
            Kind::Denied => Self::new(Exit::Denied, format!("{uri}: {why} (UNAUTHENTICATED)"))
                .with("give the admin key by --key or RIPTIDE_API_KEY"),
            Kind::Unreachable => {
                let message = format!("cannot reach a server at {uri}: {why} (UNAVAILABLE)");
                Self::new(Exit::Unavailable, message)
            }
            Kind::Unfit => Self::new(Exit::Failed, format!("{uri}: {why}")),
        }
    }
}

/// The admin port of one replica.
#[derive(Clone)]
pub(in crate::cli) struct Admin {
    uri: Uri,
    /// `None` in plain text.
    tls: Option<Connector>,
    key: Option<HeaderValue>,
    timeout: Duration,
}

impl Admin {
    /// The ports at these addresses; where none is given, the one of a server started
    /// beside this command.
    pub(in crate::cli) fn all(global: &Global, addresses: &[String]) -> Result<Vec<Self>, Failure> {
        let settings = global.settings();
        let local = [local(&settings)];
        let addresses = match addresses {
            [] => &local,
            given => given,
        };
        let trust = global.trust()?;
        let ports = addresses.iter().map(|address| {
            let uri = uri(address)?;
            let tls = match uri.scheme_str() {
                Some("https") => Some(trust.connector_of_http1(&uri)?),
                _ => None,
            };
            Ok(Self {
                key: key(global, &settings, &uri)?,
                uri,
                tls,
                timeout: global.timeout,
            })
        });
        ports.collect()
    }

    /// Its address without the scheme, as it is shown.
    pub(in crate::cli) fn address(&self) -> &str {
        self.uri
            .authority()
            .map_or("", |authority| authority.as_str())
    }

    /// What it answers to a GET.
    pub(in crate::cli) async fn get(&self, path: &'static str) -> Result<Bytes, Silence> {
        match timeout(self.timeout, self.ask(path)).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silence(Kind::Unreachable, "no answer in time")),
        }
    }

    async fn ask(&self, path: &'static str) -> Result<Bytes, Silence> {
        let lost = |error: io::Error| self.silence(Kind::Unreachable, innermost(&error));
        if let Some(tls) = &self.tls {
            let stream = tls.clone().shake().await.map_err(lost)?;
            return self.exchange(stream, path).await;
        }
        let host = self.uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.map_err(lost)?;
        self.exchange(TokioIo::new(stream), path).await
    }

    async fn exchange<S>(&self, stream: TokioIo<S>, path: &'static str) -> Result<Bytes, Silence>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let lost = |error: hyper::Error| self.silence(Kind::Unreachable, innermost(&error));
        let (mut sender, connection) = http1::handshake(stream).await.map_err(lost)?;
        tokio::spawn(connection);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::from(PathAndQuery::from_static(path));
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(self.address()) {
            headers.insert(HOST, host);
        }
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(key) = &self.key {
            headers.insert(AUTHORIZATION, key.clone());
        }
        let response = sender.send_request(request).await.map_err(lost)?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = match self.key {
                    Some(_) => "the API key is not the admin key",
                    None => "it wants the admin key",
                };
                return Err(self.silence(Kind::Denied, why));
            }
            status => {
                let why = format!("{path} is answered with {status}");
                return Err(self.silence(Kind::Unfit, why));
            }
        }
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body =
            body.map_err(|error| self.silence(Kind::Unreachable, innermost(error.as_ref())))?;
        Ok(body.to_bytes())
    }

    /// Why this port has no answer.
    pub(in crate::cli) fn silence(&self, kind: Kind, why: impl Into<String>) -> Silence {
        Silence {
            kind,
            uri: self.uri.clone(),
            why: why.into(),
        }
    }
}

/// The admin port of a server started beside this command.
fn local(settings: &Config) -> String {
    let mut listen = settings.server.admin_listen;
    match listen {
        SocketAddr::V4(_) if listen.ip().is_unspecified() => listen.set_ip([127, 0, 0, 1].into()),
        SocketAddr::V6(_) if listen.ip().is_unspecified() => {
            listen.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
        }
        _ => {}
    }
    let scheme = if settings.server.admin_tls {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{listen}")
}

fn uri(address: &str) -> Result<Uri, Failure> {
    let text = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let allowed = "is not http://<host>:<port> or https://<host>:<port>";
    let usage = || Failure::usage(format!("--admin-address: {text:?} {allowed}"));
    let uri: Uri = text.parse().map_err(|_| usage())?;
    let plain = uri.path_and_query().is_none_or(|path| path == "/");
    match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) if plain && !authority.as_str().contains('@') => {
            Ok(uri)
        }
        _ => Err(usage()),
    }
}

/// What is sent as the key. The admin key of this machine goes to no other.
fn key(global: &Global, settings: &Config, uri: &Uri) -> Result<Option<HeaderValue>, Failure> {
    let local = uri.host().is_some_and(loopback);
    let key = global
        .api_key
        .clone()
        .or_else(|| local.then(|| admin_key(settings)).flatten());
    let key = key.map(|key| HeaderValue::try_from(format!("Bearer {}", key.trim())));
    let key = key
        .transpose()
        .map_err(|_| Failure::usage("--key: not the text of an API key"))?;
    Ok(key.map(|mut key| {
        key.set_sensitive(true);
        key
    }))
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, shown) in [
            ("127.0.0.1:9464", "127.0.0.1:9464"),
            ("http://localhost:9464/", "localhost:9464"),
            ("https://[::1]:9464", "[::1]:9464"),
        ] {
            assert_eq!(uri(text).unwrap().authority().unwrap().as_str(), shown);
        }
        for text in [
            "",
            "ftp://a:1",
            "http://",
            "http://a:1/figures",
            "http://user:secret@a:1",
            "a b",
        ] {
            assert!(uri(text).is_err(), "{text}");
        }
    }
}
