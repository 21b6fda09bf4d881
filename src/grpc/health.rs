//! `grpc.health.v1`: what each component's checks found, told on demand and as
//! it changes. It does not know how a component is checked.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health as Service,
};

use super::{request_id, status};
use crate::{error::Error, store};

/// The state of the components. Nothing serves before its first good check.
#[derive(Debug)]
pub struct Health {
    /// The last check of the store by each of those who hold a handle to it.
    checks: Mutex<Vec<Check>>,
    state: watch::Sender<State>,
}

/// What the last check of the store found.
type Check = Result<(), String>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// What is wrong with the store.
    store: Check,
    /// What is wrong with the configuration that was read last.
    config: Check,
    /// What is wrong with the object store of checkpoints.
    checkpoints: Check,
    stage: Stage,
}

/// How far the server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It serves.
    Serving,
    /// It still serves, and says that it will not for long.
    Draining,
    /// It takes no new calls, and streams end.
    Leaving,
}

/// What can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Component {
    /// Whatever does not need the store.
    Process,
    /// The store and whatever needs it.
    Store,
    /// The configuration: whether the one that was read last is in force. Calls are
    /// served all the same, by the one before.
    Config,
    /// The object store of checkpoints. Calls are served all the same.
    Checkpoints,
}

/// The names that can be asked about, and what each means.
const NAMES: [(&str, Component); 7] = [
    ("", Component::Store),
    ("store", Component::Store),
    ("riptide.persistence.v1.TenantService", Component::Store),
    ("riptide.persistence.v1.CacheService", Component::Store),
    ("riptide.persistence.v1.StateService", Component::Process),
    ("config", Component::Config),
    ("checkpoints", Component::Checkpoints),
];

impl Component {
    fn named(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(known, _)| *known == name);
        known.map(|(_, component)| *component)
    }

    /// Why it does not serve; nothing where it does.
    fn trouble(self, state: &State) -> Option<String> {
        if state.stage != Stage::Serving {
            return Some(Error::Draining.to_string());
        }
        let check = match self {
            Self::Process => return None,
            Self::Store => &state.store,
            Self::Config => &state.config,
            Self::Checkpoints => &state.checkpoints,
        };
        check.as_ref().err().cloned()
    }

    fn status(self, state: &State) -> ServingStatus {
        match self.trouble(state) {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        }
    }
}

impl Health {
    /// The health of a server in which so many hold a handle to the store, each to
    /// be [reported](Self::report) on.
    pub fn new(holders: usize) -> Self {
        let unchecked = Err("not checked yet".to_owned());
        Self {
            checks: Mutex::new(vec![unchecked.clone(); holders]),
            state: watch::Sender::new(State {
                store: unchecked.clone(),
                config: Ok(()),
                checkpoints: unchecked,
                stage: Stage::Serving,
            }),
        }
    }

    /// Notes what a holder of the store found. It serves when it serves all.
    pub fn report(&self, holder: usize, found: &store::Result<store::Health>) {
        self.note(
            holder,
            match found {
                Ok(_) => Ok(()),
                Err(error) => Err(error.to_string()),
            },
        );
    }

    /// Does not serve before this is let go, whatever is reported: what must be done
    /// first, in words. To be called before anything is reported.
    pub fn hold(&self, what: &str) -> usize {
        let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.push(Err(what.to_owned()));
        checks.len() - 1
    }

    /// Lets go of what [`Health::hold`] holds.
    pub fn let_go(&self, held: usize) {
        self.note(held, Ok(()));
    }

    fn note(&self, holder: usize, found: Check) {
        let store = {
            let mut checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(check) = checks.get_mut(holder) {
                *check = found;
            }
            checks
                .iter()
                .find(|check| check.is_err())
                .cloned()
                .unwrap_or(Ok(()))
        };
        self.state.send_if_modified(|state| {
            let changed = state.store != store;
            if changed {
                match &store {
                    Ok(()) => tracing::info!("store serves"),
                    Err(error) => tracing::warn!(error, "store does not serve"),
                }
                state.store = store;
            }
            changed
        });
    }

    /// Notes whether the configuration that was read last is in force.
    pub fn report_config(&self, found: std::result::Result<(), String>) {
        self.state.send_if_modified(|state| {
            let changed = state.config != found;
            state.config = found;
            changed
        });
    }

    /// Notes how the object store of checkpoints is.
    pub fn report_checkpoints(&self, found: std::result::Result<(), String>) {
        self.state.send_if_modified(|state| {
            let changed = state.checkpoints != found;
            if changed {
                match &found {
                    Ok(()) => tracing::info!("object store of checkpoints serves"),
                    Err(error) => {
                        tracing::warn!(error, "object store of checkpoints does not serve")
                    }
                }
                state.checkpoints = found;
            }
            changed
        });
    }

    /// Goes on to a later stage.
    pub fn enter(&self, stage: Stage) {
        self.state.send_if_modified(|state| {
            let later = state.stage < stage;
            state.stage = state.stage.max(stage);
            later
        });
    }

    /// Waits until the server has come to this stage.
    pub async fn reached(&self, stage: Stage) {
        // The sender is ours, so that waiting cannot fail.
        let _ = self
            .state
            .subscribe()
            .wait_for(|state| state.stage >= stage)
            .await;
    }

    /// Why calls are not served now; nothing when they are.
    pub fn trouble(&self) -> Option<String> {
        Component::Store.trouble(&self.state.borrow())
    }

    /// Whether the store answers all who need it, however far the server is on its way out.
    pub fn store_serves(&self) -> bool {
        self.state.borrow().store.is_ok()
    }

    /// Each name that can be asked about, the empty one for all, and why it does not serve.
    pub fn components(&self) -> Vec<(&'static str, Option<String>)> {
        let state = self.state.borrow();
        let told = NAMES.iter();
        told.map(|(name, component)| (*name, component.trouble(&state)))
            .collect()
    }
}

/// The service over a server's health.
#[derive(Clone, Debug)]
pub struct Api(pub std::sync::Arc<Health>);

#[async_trait::async_trait]
impl Service for Api {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let Some(component) = Component::named(&request.get_ref().service) else {
            return Err(Status::not_found("no such component"));
        };
        let status = component.status(&self.0.state.borrow());
        Ok(Response::new(answer(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let component = Component::named(&request.get_ref().service);
        let request_id = request_id::of(&request.metadata().clone().into_headers());
        let leaving = status::of(&Error::Draining, &request_id);
        let begin = Some((self.0.state.subscribe(), None, leaving));
        let changes = stream::unfold(begin, move |watching| async move {
            let (mut states, told, leaving) = watching?;
            loop {
                let (status, stage) = {
                    let state = states.borrow_and_update();
                    let status = component.map_or(ServingStatus::ServiceUnknown, |component| {
                        component.status(&state)
                    });
                    (status, state.stage)
                };
                if told != Some(status) {
                    return Some((Ok(answer(status)), Some((states, Some(status), leaving))));
                }
                if stage == Stage::Leaving || states.changed().await.is_err() {
                    return Some((Err(leaving), None));
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}
