//! The course of the last hour with how all stands now, in JSON: what a page and a live
//! view show. It does not know who may see it.

use std::{
    collections::HashMap,
    time::{Instant, UNIX_EPOCH},
};

use serde::Serialize;

use super::{Metrics, STEP, course, now_ms};
use crate::tenant::{Caller, traffic::OTHER, usage::Range};

/// What is shown.
#[derive(Serialize)]
struct Figures {
    replica: String,
    version: &'static str,
    backend: &'static str,
    time_ms: u64,
    /// When the process began to serve.
    start_time_ms: u64,
    step_ms: u64,
    health: Vec<Component>,
    series: course::Series,
    tenants: Vec<Tenant>,
}

#[derive(Serialize)]
struct Component {
    service: &'static str,
    serving: bool,
    trouble: String,
}

#[derive(Serialize)]
struct Tenant {
    #[serde(flatten)]
    did: course::Tenant,
    quotas: Vec<Quota>,
}

/// How a tenant stands against one of its limits.
#[derive(Clone, Debug, Serialize)]
struct Quota {
    metric: String,
    used: u64,
    limit: u64,
}

/// What tenants use of their quotas.
type Used = HashMap<String, Vec<Quota>>;

/// How tenants stood when the store was last asked, and when that was.
#[derive(Debug, Default)]
pub(super) struct Standings(tokio::sync::Mutex<(Option<Instant>, Used)>);

impl Metrics {
    /// The course of the last hour, and how all stands now, in JSON. The store is asked
    /// how the tenants stand against their quotas, at most once in a [`STEP`].
    ///
    /// # Errors
    /// Where it cannot be written.
    pub async fn figures(&self) -> Result<String, serde_json::Error> {
        let (series, tenants) = {
            let course = self.course();
            (course.series(), course.tenants())
        };
        let mut standings = self.standings(&tenants).await;
        let about = &self.sources.about;
        let replica = self.sources.directory.replica();
        let figures = Figures {
            replica: String::from_utf8_lossy(replica).into_owned(),
            version: env!("CARGO_PKG_VERSION"),
            backend: about.backend,
            time_ms: now_ms(),
            start_time_ms: about
                .start_time
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| {
                    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
                }),
            step_ms: u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX),
            health: self
                .sources
                .health
                .components()
                .into_iter()
                .map(|(service, trouble)| Component {
                    service,
                    serving: trouble.is_none(),
                    trouble: trouble.unwrap_or_default(),
                })
                .collect(),
            series,
            tenants: tenants
                .into_iter()
                .map(|did| Tenant {
                    quotas: standings.remove(&did.tenant_id).unwrap_or_default(),
                    did,
                })
                .collect(),
        };
        serde_json::to_string(&figures)
    }

    /// How these tenants stand against their limits; nothing of those the store does not
    /// tell of.
    async fn standings(&self, tenants: &[course::Tenant]) -> Used {
        let mut known = self.standings.0.lock().await;
        if known.0.is_some_and(|asked| asked.elapsed() < STEP) {
            return known.1.clone();
        }
        let names = tenants.iter().map(|tenant| &tenant.tenant_id);
        let named: Vec<&String> = names.filter(|name| *name != OTHER).collect();
        let asked = named.iter().map(|name| self.standing(name));
        let found = futures::future::join_all(asked).await;
        let found = named.into_iter().cloned().zip(found).collect();
        *known = (Some(Instant::now()), found);
        known.1.clone()
    }

    async fn standing(&self, tenant_id: &str) -> Vec<Quota> {
        let asked = self
            .sources
            .tenants
            .usage(&Caller::Admin, tenant_id, Range::default());
        let Ok(Ok(usage)) = tokio::time::timeout(super::PATIENCE, asked).await else {
            return Vec::new();
        };
        let limited = usage.quotas.into_iter();
        limited
            .filter_map(|(metric, standing)| {
                Some(Quota {
                    metric,
                    used: standing.used,
                    limit: standing.limit?,
                })
            })
            .collect()
    }
}
