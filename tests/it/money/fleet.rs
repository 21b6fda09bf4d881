//! Replicas as real processes on one Redis, which can be killed and come back,
//! and callers that find them again. It does not know what is called.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tonic::{Status, transport::Endpoint};
use tonic_types::StatusExt;

use crate::{
    cli::{Folder, Serving},
    redis::Redis,
    server::{ADMIN_KEY, Bearer, Clients},
};

/// One life of a replica: its place in the fleet, and its number there.
pub type Life = (usize, usize);

/// Where a place's process listens; `None` while there is none.
#[derive(Clone, Debug, Default)]
struct Place {
    life: usize,
    address: Option<String>,
}

/// The folders that replicas run in.
pub fn folders(count: usize, redis: &Redis) -> Vec<Folder> {
    let settings = format!(
        "persistence: {{redis: {{url: '{}', command_timeout: 20s}}, auth: {{admin_key: '{ADMIN_KEY}'}}}}",
        redis.url()
    );
    let folder = || {
        let folder = Folder::new();
        folder.write("persistence.yml", &settings);
        folder
    };
    (0..count).map(|_| folder()).collect()
}

/// The replicas.
pub struct Fleet<'a> {
    folders: &'a [Folder],
    replicas: Vec<Option<Serving<'a>>>,
    places: Vec<watch::Sender<Place>>,
}

impl<'a> Fleet<'a> {
    /// A replica in each folder, and all serve.
    pub fn start(folders: &'a [Folder]) -> Self {
        let mut fleet = Self {
            folders,
            replicas: folders.iter().map(|_| None).collect(),
            places: folders
                .iter()
                .map(|_| watch::Sender::new(Place::default()))
                .collect(),
        };
        thread::scope(|scope| {
            let starts: Vec<_> = folders
                .iter()
                .map(|folder| scope.spawn(|| folder.serve(&[])))
                .collect();
            for (replica, start) in starts.into_iter().enumerate() {
                fleet.settle(replica, start.join().unwrap());
            }
        });
        fleet
    }

    fn settle(&mut self, replica: usize, serving: Serving<'a>) {
        self.places[replica].send_modify(|place| {
            place.life += 1;
            place.address = Some(serving.address.clone());
        });
        self.replicas[replica] = Some(serving);
    }

    /// Kills a replica as `kill -9` does; tells which life that was, and the moment
    /// before it ended.
    pub fn kill(&mut self, replica: usize) -> (Life, Instant) {
        let life = self.places[replica].borrow().life;
        let moment = Instant::now();
        drop(self.replicas[replica].take());
        self.places[replica].send_modify(|place| place.address = None);
        self.sound(replica);
        ((replica, life), moment)
    }

    /// Starts a replica where there is none.
    pub fn revive(&mut self, replica: usize) {
        let folders = self.folders;
        self.settle(replica, folders[replica].serve(&[]));
    }

    /// Asks every replica to go, and waits until all have.
    pub fn stop(&mut self) {
        for serving in self.replicas.iter().flatten() {
            serving.signal("TERM");
        }
        for replica in 0..self.replicas.len() {
            if let Some(mut serving) = self.replicas[replica].take() {
                assert_eq!(serving.wait(), Some(0), "{}", self.log(replica));
            }
            self.places[replica].send_modify(|place| place.address = None);
            self.sound(replica);
        }
    }

    fn log(&self, replica: usize) -> String {
        fs::read_to_string(self.folders[replica].path("stderr")).unwrap()
    }

    fn sound(&self, replica: usize) {
        let log = self.log(replica);
        assert!(!log.contains("panicked"), "replica {replica}: {log}");
    }

    /// A caller of a replica, with a connection of its own.
    pub fn caller(&self, replica: usize, key: &str) -> Caller {
        Caller {
            replica,
            key: key.to_owned(),
            place: Arc::new(self.places[replica].subscribe()),
            line: None,
        }
    }

    /// Clients of a replica that holds still, with the admin key.
    pub async fn admin(&self, replica: usize) -> Clients {
        self.caller(replica, ADMIN_KEY).clients().await.0
    }
}

/// Who calls one place of the fleet, whichever process is there.
pub struct Caller {
    pub replica: usize,
    key: String,
    place: Arc<watch::Receiver<Place>>,
    line: Option<(Clients, usize)>,
}

impl Caller {
    /// The clients, and the number of the life they are connected to. Waits until
    /// there is one.
    pub async fn clients(&mut self) -> (Clients, Life) {
        loop {
            let place = self.place.borrow().clone();
            if let Some((clients, life)) = &self.line
                && (*life == place.life || place.address.is_none())
            {
                return (clients.clone(), (self.replica, *life));
            }
            if let Some(address) = place.address
                && let Ok(channel) = Endpoint::from_shared(address).unwrap().connect().await
            {
                self.line = Some((Clients::new(channel, Bearer::new(&self.key)), place.life));
                continue;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Forgets the connection: it broke.
    pub fn hang_up(&mut self) {
        self.line = None;
    }
}

/// Whether a failed call may have been done: nobody answered it, or whoever did
/// cannot tell.
pub fn is_unknown(status: &Status) -> bool {
    let details = status.get_error_details();
    details
        .error_info()
        .is_none_or(|info| info.reason == "OUTCOME_UNKNOWN")
}
