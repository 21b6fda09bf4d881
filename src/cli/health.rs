//! `health`: whether the server and its components serve. It does not know what
//! a component depends on.

use clap::Args;
use serde_json::{Map, Value, json};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use super::{
    client::{Client, Global},
    failure::{Exit, Failure},
    output::{self, show},
};

/// What a server may tell about; one that it does not know is left out.
const COMPONENTS: [&str; 6] = [
    "riptide.persistence.v1.TenantService",
    "riptide.persistence.v1.CacheService",
    "riptide.persistence.v1.StateService",
    "store",
    "config",
    "checkpoints",
];

#[derive(Args, Debug)]
pub(super) struct Health {
    /// Ask about this component alone, such as `store`.
    component: Option<String>,
}

impl Health {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::connect_without_key(global).await?;
        let overall = check(&client, self.component.as_deref().unwrap_or_default()).await?;
        let overall = overall.ok_or_else(|| {
            let component = self.component.as_deref().unwrap_or_default();
            Failure::new(
                Exit::NotFound,
                format!("there is no component {component:?} (NOT_FOUND)"),
            )
        })?;
        let mut components = Map::new();
        if self.component.is_none() {
            for component in COMPONENTS {
                if let Some(status) = check(&client, component).await? {
                    components.insert(component.to_owned(), status.as_str_name().into());
                }
            }
        }
        let result = json!({ "status": overall.as_str_name(), "components": components });
        show(global.output, &result, || {
            let named = self.component.as_deref().unwrap_or("all");
            let mut rows = vec![json!({ "component": named, "status": overall.as_str_name() })];
            rows.extend(components.iter().map(
                |(name, status): (&String, &Value)| json!({ "component": name, "status": status }),
            ));
            output::list(&rows, &["component", "status"])
        })?;
        match overall {
            ServingStatus::Serving => Ok(()),
            _ => Err(Failure::told(Exit::Unavailable)),
        }
    }
}

/// The status of a component, if the server knows it.
async fn check(client: &Client, component: &str) -> Result<Option<ServingStatus>, Failure> {
    let request = HealthCheckRequest {
        service: component.to_owned(),
    };
    match client.health().check(client.request(request)).await {
        Ok(answer) => Ok(Some(answer.into_inner().status())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}
