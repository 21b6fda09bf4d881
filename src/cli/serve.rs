//! `serve`: settings, log lines, the server, signals. It does not know what the
//! server is made of.

mod supervisor;

use std::{net::SocketAddr, path::Path, process};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    client::{self, Global},
    failure::{Exit, Failure},
    output, settings,
};
use crate::{
    config::{Backend, Flag, Loaded, LogFormat, Origin, Sources},
    server::Server,
    state::{Asked, Trigger},
    telemetry,
};

/// The settings a flag can change; a file or the environment can change all.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Where gRPC is served (server.listen); port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where probes are served (server.admin_listen).
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<String>,
    /// The folder of the embedded store and the admin key (store.path).
    #[arg(long, value_name = "FOLDER")]
    store_path: Option<String>,
    /// Keep everything in memory; all is gone at exit (store.ephemeral).
    #[arg(long)]
    ephemeral: bool,
    /// What is logged, such as debug (log.filter).
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

impl Serve {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let sources = settings::sources(global, self.flags());
        let loaded = settings::load(&sources)?;
        telemetry::start(&loaded.config.log).map_err(failed)?;
        let served = client::run(serve(loaded, sources));
        telemetry::flush();
        served
    }

    fn flags(self) -> Vec<Flag> {
        let flags = [
            ("server.listen", "--listen", self.listen),
            ("server.admin_listen", "--admin-listen", self.admin_listen),
            ("store.path", "--store-path", self.store_path),
            (
                "store.ephemeral",
                "--ephemeral",
                self.ephemeral.then(|| true.to_string()),
            ),
            ("log.filter", "--log", self.log),
        ];
        let given = flags
            .into_iter()
            .filter_map(|(path, name, value)| value.map(|value| Flag { path, name, value }));
        given.collect()
    }
}

fn failed(error: impl ToString) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

async fn serve(loaded: Loaded, sources: Sources<'static>) -> Result<(), Failure> {
    // Before anything is opened, so that a signal never ends it half done.
    let mut signals = Signals::watch().map_err(failed)?;
    let log_format = loaded.config.log.format;
    let hint = Hint::of(&loaded);
    let server = Server::bind(loaded, sources).await.map_err(failed)?;
    // Whoever asks for JSON lets a machine read all that is written.
    if log_format != LogFormat::Json {
        output::write(hint.text(server.local_addr().map_err(failed)?).as_bytes())?;
    }
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    let configuration = server.configuration();
    let status = format!("listens on {}", server.local_addr().map_err(failed)?);
    // The ports are bound; a Redis that is not there yet is waited for while serving.
    supervisor::ready(&status);
    tokio::spawn(supervisor::live(server.signs()));
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            supervisor::reloading();
            let reloaded = configuration
                .reload(Trigger::Signal, Asked::default())
                .await;
            if let Err(error) = reloaded {
                tracing::error!(%error, "configuration not read anew");
            }
            supervisor::ready(&status);
        }
    });
    let (first, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let name = signals.next().await.0;
        tracing::info!(signal = name, "signal received");
        supervisor::stopping("drains");
        let _ = first.send(());
        let (name, code) = signals.next().await;
        tracing::warn!(signal = name, "second signal received, exiting at once");
        telemetry::flush();
        process::exit(code);
    });
    let shutdown = async {
        let _ = told.await;
    };
    server.run(shutdown).await.map_err(failed)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one, and the exit code a shell gives a process it ends.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }
}

/// What to type next, for whoever has just started a server.
struct Hint {
    /// What the server keeps its entries in.
    store: String,
    /// Where the admin key is.
    admin_key: String,
    /// How another terminal gets the admin key where it does not find it.
    export_key: Option<String>,
    /// Whether another terminal has to be told the address.
    export_address: bool,
    /// Whether it speaks TLS.
    in_tls: bool,
}

impl Hint {
    fn of(loaded: &Loaded) -> Self {
        let config = &loaded.config;
        // What a command in the same folder reads by itself.
        let found = |path: &str| {
            loaded
                .settings
                .iter()
                .filter(|setting| setting.path == path)
                .all(|setting| match &setting.source {
                    Origin::Default => true,
                    Origin::File(file) => file == Path::new("persistence.yml"),
                    Origin::Env(_) | Origin::Flag(_) => false,
                })
        };
        let store = match (config.store.backend, config.store.ephemeral) {
            (Backend::Redis, _) => "Redis".to_owned(),
            (Backend::Embedded, true) => "memory: all is gone at exit".to_owned(),
            (Backend::Embedded, false) => config.store.path.display().to_string(),
        };
        let file = config.store.admin_key_file();
        let file = file.display();
        let (admin_key, export_key) = match (&config.auth.admin_key, found("store.path")) {
            (Some(_), _) if found("auth.admin_key") => {
                ("auth.admin_key of the settings".to_owned(), None)
            }
            (Some(_), _) => {
                let export = "export RIPTIDE_API_KEY=<the admin key>".to_owned();
                ("auth.admin_key of the settings".to_owned(), Some(export))
            }
            (None, true) => (format!("in {file}, where the commands below find it"), None),
            (None, false) => (
                format!("in {file}"),
                Some(format!("export RIPTIDE_API_KEY=$(cat '{file}')")),
            ),
        };
        let export_address = !found("server.listen") || config.server.listen.port() == 0;
        Self {
            store,
            admin_key,
            export_key,
            export_address,
            in_tls: config.server.tls.is_on(),
        }
    }

    fn text(&self, address: SocketAddr) -> String {
        let program = std::env::args()
            .next()
            .unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned());
        let mut commands = Vec::new();
        if self.export_address {
            let mut address = address;
            if address.ip().is_unspecified() {
                address.set_ip([127, 0, 0, 1].into());
            }
            let scheme = if self.in_tls { "https" } else { "http" };
            commands.push(format!("export RIPTIDE_ADDRESS={scheme}://{address}"));
        }
        commands.extend(self.export_key.clone());
        commands.push(format!("{program} tenant create acme"));
        commands.push(format!("{program} cache set greeting hello --tenant acme"));
        commands.push(format!("{program} cache get greeting --tenant acme"));
        format!(
            "riptide-persistence {} listens on {address}\n\
             entries are kept in {}\n\
             the admin key is {}\n\
             \n\
             In another terminal, type:\n  {}\n\
             \n\
             Ctrl-C ends the server.\n",
            env!("CARGO_PKG_VERSION"),
            self.store,
            self.admin_key,
            commands.join("\n  "),
        )
    }
}
