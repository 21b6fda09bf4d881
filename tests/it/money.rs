//! What must hold of quotas, usage and bills while many callers press on several
//! replicas at once, and while replicas are killed: real processes on one real
//! Redis. The runs are short among all tests; `make soak` makes them long. They do
//! not know how anything is counted, only what callers were told and what Redis
//! holds.

#![allow(clippy::print_stdout)] // their tables are read by people

mod census;
mod crash;
pub mod fleet;
mod idle;
mod level;
mod rate;
mod tide;

use std::{fmt::Display, time::Duration};

use comfy_table::{CellAlignment, Table, presets::UTF8_BORDERS_ONLY};
use riptide_persistence::proto::v1::{CreateTenantRequest, Quotas};
use tonic::Status;
use tonic_types::{RpcStatusExt, StatusExt};

use crate::server::Clients;

/// Callers at once.
const CALLERS: usize = 64;
/// Replicas on the one store.
const REPLICAS: usize = 4;
/// How many times its limit a tenant asks for.
const PRESSURE: u64 = 10;

/// Whether the runs are long.
fn soak() -> bool {
    std::env::var_os("RIPTIDE_SOAK").is_some_and(|value| value == "1")
}

/// The first in the short form, the second in the long one.
pub fn form<T>(short: T, long: T) -> T {
    if soak() { long } else { short }
}

/// Prints a table: what, and how much.
pub fn show<const N: usize>(title: &str, header: [&str; N], rows: Vec<[String; N]>) {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in rows {
        table.add_row(row);
    }
    println!("\n{title}\n{table}");
}

/// A row of a table.
pub fn row<const N: usize>(cells: [&dyn Display; N]) -> [String; N] {
    cells.map(ToString::to_string)
}

/// Creates a tenant and returns its key.
pub async fn tenant(admin: &Clients, tenant_id: &str, quotas: Quotas) -> String {
    let request = CreateTenantRequest {
        tenant_id: tenant_id.into(),
        plan: "enterprise".into(),
        quotas: Some(quotas),
        ..Default::default()
    };
    let created = admin.tenant.clone().create_tenant(request).await.unwrap();
    created.into_inner().secret
}

/// What a refusal for a quota or a rate tells.
#[derive(Clone, Debug)]
struct Refusal {
    reason: String,
    metric: String,
    limit: u64,
    used: u64,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Of a call. Panics where it is no such refusal, or tells less than it must.
    #[track_caller]
    fn of(status: &Status) -> Self {
        assert_eq!(
            status.code(),
            tonic::Code::ResourceExhausted,
            "refused for something else: {status:?}"
        );
        let pushback = status.metadata().get("grpc-retry-pushback-ms");
        assert!(pushback.is_some(), "no pushback: {status:?}");
        Self::read(&status.get_error_details(), status)
    }

    /// Of an item of a batch.
    #[track_caller]
    fn of_item(status: &tonic_types::Status) -> Self {
        Self::read(&status.get_error_details(), status)
    }

    #[track_caller]
    fn read(details: &tonic_types::ErrorDetails, status: &impl std::fmt::Debug) -> Self {
        let info = details.error_info().unwrap();
        let failure = details.quota_failure().unwrap();
        assert_eq!(failure.violations.len(), 1, "{status:?}");
        let told = |name: &str| info.metadata.get(name).unwrap().clone();
        assert!(told("scope").starts_with("tenant:"), "{status:?}");
        Self {
            reason: info.reason.clone(),
            metric: told("metric"),
            limit: told("limit").parse().unwrap(),
            used: told("used").parse().unwrap(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

/// Numbers that look random, the same in each run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: usize) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ (seed as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// A number below `count`.
    pub fn roll(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % count
    }
}
