//! What TLS costs: near hits over connections in the clear and in TLS in turn, of one
//! process that begins and ends TLS by reloads. It does not know how the server speaks
//! either.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    line::Line,
    load::{self, Pressure, Work},
    process::{On, Process},
    report::{
        Sample,
        form::{median, table},
    },
    scenario,
};

/// Entries that are read.
const KEYS: usize = 1000;

/// Where a server is, and whether it is met in TLS.
#[derive(Clone)]
pub struct Reach {
    address: SocketAddr,
    config: Option<Arc<ClientConfig>>,
}

impl From<SocketAddr> for Reach {
    fn from(address: SocketAddr) -> Self {
        let config = None;
        Self { address, config }
    }
}

impl Reach {
    /// Connects.
    pub async fn open(&self) -> Result<Line> {
        let Some(config) = &self.config else {
            return Line::open(self.address).await;
        };
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(config.clone());
        let name = ServerName::try_from("localhost")?;
        Line::over(connector.connect(name, stream).await?).await
    }
}

/// Both, a sample a round.
#[derive(Serialize)]
pub struct Tls {
    /// In the clear.
    pub plain: Vec<Sample>,
    /// In TLS.
    pub tls: Vec<Sample>,
}

/// Measures both in each round.
pub fn measure(scratch: &Path, log: &Path, rounds: usize, pressure: Pressure) -> Result<Tls> {
    let folder = scratch.join("tls");
    fs::create_dir_all(&folder)?;
    let config = client(&folder)?;
    set(&folder, false)?;
    let server = Process::server(&On::Embedded(&folder.join("store")), &folder, log)?;
    let plain = Reach::from(server.address);
    let tls = Reach {
        config: Some(config),
        ..plain.clone()
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = runtime.block_on(async {
        let key = scenario::create_tenant(server.address, "tls").await?;
        scenario::hits(server.address, &key, KEYS).await
    })?;
    let watched = [std::process::id(), server.pid()];
    let mut both = Tls {
        plain: Vec::new(),
        tls: Vec::new(),
    };
    for round in 0..rounds {
        // There and back again.
        for in_tls in [round % 2 == 1, round % 2 == 0] {
            set(&folder, in_tls)?;
            let (reach, samples) = match in_tls {
                true => (&tls, &mut both.tls),
                false => (&plain, &mut both.plain),
            };
            let changed = Instant::now();
            while runtime.block_on(answers(reach, &work)).is_err() {
                let patience = Duration::from_secs(20);
                ensure!(changed.elapsed() < patience, "the change was not noticed");
                thread::sleep(Duration::from_millis(20));
            }
            let tally = load::run(reach.clone(), &work, pressure, &watched)?;
            samples.push(Sample::of(&tally));
        }
    }
    server.stop()?;
    Ok(both)
}

/// Makes a call: a connection in the clear is opened before the server has said that it
/// is none.
async fn answers(reach: &Reach, work: &Work) -> Result<()> {
    let call = work.calls.first().context("there is a call")?;
    reach.open().await?.call(call).await?;
    Ok(())
}

/// Lets the server begin or end TLS.
fn set(folder: &Path, in_tls: bool) -> Result<()> {
    let tls = match in_tls {
        true => "tls: {cert_file: server.crt, key_file: server.key}",
        false => "tls: {}",
    };
    let text = format!("persistence:\n  server: {{{tls}}}\n");
    let aside = folder.join("aside.yml");
    fs::write(&aside, text)?;
    fs::rename(&aside, folder.join("persistence.yml"))?;
    Ok(())
}

/// Makes a certificate for the server, and what a client speaks that trusts it.
fn client(folder: &Path) -> Result<Arc<ClientConfig>> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
    fs::write(folder.join("server.crt"), certificate.pem())?;
    fs::write(folder.join("server.key"), key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.der().to_vec()))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl Tls {
    /// For people.
    pub fn table(&self) -> String {
        let mut runs = table(&[
            "near hits of 1 KiB",
            "calls/s",
            "p50 ms",
            "p99 ms",
            "client CPU s/M",
            "server CPU s/M",
        ]);
        for (name, samples) in [("in the clear", &self.plain), ("in TLS", &self.tls)] {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            runs.add_row([
                name.to_owned(),
                format!("{:.0}", of(|sample| sample.per_second)),
                format!("{:.2}", of(|sample| sample.p50_ms)),
                format!("{:.2}", of(|sample| sample.p99_ms)),
                format!("{:.2}", of(|sample| sample.cpu(0))),
                format!("{:.2}", of(|sample| sample.cpu(1))),
            ]);
        }
        let ratio = |figure: fn(&Sample) -> f64| {
            let pairs = self.tls.iter().zip(&self.plain);
            median(pairs.map(|(tls, plain)| figure(tls) / figure(plain)))
        };
        format!(
            "{runs}\nin TLS x{:.3} of the calls in the clear [>= x0.85], x{:.3} of the server's CPU a \
             call, x{:.3} of the client's, which encrypts as much on the same machine\n",
            ratio(|sample| sample.per_second),
            ratio(|sample| sample.cpu(1)),
            ratio(|sample| sample.cpu(0)),
        )
    }
}
