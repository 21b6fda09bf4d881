//! A server that stops and starts again at the same address, with what it held. It does
//! not know who calls.

use std::net::SocketAddr;

use tempfile::TempDir;

use crate::{
    redis::Redis,
    server::{Backend, Kind, Server},
};

pub struct Stage {
    server: Option<Server>,
    pub address: SocketAddr,
    redis: Option<Redis>,
    folder: TempDir,
}

impl Stage {
    /// A server that serves.
    pub async fn open(kind: Kind) -> Self {
        let mut stage = Self {
            server: None,
            address: ([127, 0, 0, 1], 0).into(),
            redis: (kind == Kind::Redis).then(Redis::start),
            folder: tempfile::tempdir().unwrap(),
        };
        stage.start().await;
        stage
    }

    /// Starts it where it was, and returns when it serves.
    pub async fn start(&mut self) {
        let backend = self
            .redis
            .as_ref()
            .map_or(Backend::Embedded, Backend::Redis);
        let (address, path) = (self.address, self.folder.path().to_owned());
        let server = Server::start_with(backend, |config| {
            config.server.listen = address;
            config.store.ephemeral = false;
            config.store.path = path;
        });
        let server = server.await;
        self.address = server.address;
        self.server = Some(server);
    }

    /// Stops it, and returns when it has ended.
    pub async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }
}
