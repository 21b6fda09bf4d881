//! `quota`: what a tenant may use, set and asked. It knows no rule of it; the
//! server does.

pub(super) mod setting;

use std::collections::HashSet;

use clap::{Args, Subcommand};
use prost_types::FieldMask;
use serde_json::json;

use self::setting::{Limit, Mode, Setting};
use super::{
    amount,
    client::{Client, Global},
    failure::{Exit, Failure},
    json,
    output::{self, show},
    tenant::Write,
};
use crate::proto::v1::{
    CheckQuotaMode, CheckQuotaRequest, CustomQuota, GetTenantRequest, QuotaMode, Quotas, Tenant,
    UpdateTenantRequest,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Set quotas of a tenant; those that are not named stay as they are.
    #[command(
        after_help = SET_HELP,
        override_usage = "riptide-persistence quota set [OPTIONS] [TENANT] <METRIC=LIMIT[:MODE]>..."
    )]
    Set(Set),
    /// Ask whether a tenant may use an amount of a metric: exit code 0 if it may,
    /// 1 if not.
    #[command(override_usage = "riptide-persistence quota check [OPTIONS] [TENANT] <METRIC>")]
    Check(Check),
}

const SET_HELP: &str = "Examples:
  quota set acme memory_bytes=2GiB               a limit of the service's own metrics
  quota set acme cache_entries=-1                unlimited
  quota set acme cache_entries=default           back to the plan's, mode included
  quota set acme memory_bytes=2GiB:warn          a limit, and what happens at it
  quota set acme memory_bytes=:shadow            only what happens at it
  quota set acme pages_rendered=1000/1h          a metric of the platform's own: in any hour
  quota set acme seats=25                        one without a window: a level

The service's own metrics are memory_bytes, cache_entries, storage_bytes,
operations_per_minute, data_transfer_bytes and active_sessions. Modes are enforce
(refuse), warn (let through, count, tell) and shadow (let through, count).";

#[derive(Args, Debug)]
pub(super) struct Set {
    /// The tenant [default: --tenant], then quotas.
    #[arg(value_name = "[TENANT] METRIC=LIMIT[:MODE]", required = true, value_parser = word)]
    words: Vec<Word>,
    /// Only if the tenant has not changed since it had this etag [default: the one
    /// this command reads; none beside --request-id, since a retry would read
    /// another].
    #[arg(long)]
    etag: Option<String>,
    #[command(flatten)]
    write: Write,
}

#[derive(Clone, Debug)]
enum Word {
    Tenant(String),
    Quota(Setting),
}

#[derive(Args, Debug)]
pub(super) struct Check {
    /// The tenant [default: --tenant], then the metric: the service's or one of the
    /// platform's own.
    #[arg(value_name = "[TENANT] METRIC", required = true, num_args = 1..=2)]
    words: Vec<String>,
    /// How much.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    amount: i64,
    /// Consume the amount, if it is allowed, in the same step.
    #[arg(long, conflicts_with = "release")]
    consume: bool,
    /// Give the amount of a level of the platform's own back.
    #[arg(long)]
    release: bool,
}

fn word(text: &str) -> Result<Word, String> {
    match text.contains('=') {
        true => setting::setting(text).map(Word::Quota),
        false => Ok(Word::Tenant(text.to_owned())),
    }
}

impl Command {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Set(set) => set.run(global).await,
            Self::Check(check) => check.run(global).await,
        }
    }
}

impl Set {
    /// The tenant, and what is set, each metric once.
    fn read(&self, global: &Global) -> Result<(String, Vec<&Setting>), Failure> {
        let (mut tenant, mut settings) = (None, Vec::new());
        let mut seen = HashSet::new();
        for (at, word) in self.words.iter().enumerate() {
            match word {
                Word::Tenant(id) if at == 0 => tenant = Some(id.clone()),
                Word::Tenant(text) => {
                    let message = format!("{text:?}: expected a quota, such as memory_bytes=1GiB");
                    return Err(Failure::usage(message));
                }
                Word::Quota(setting) if !seen.insert(&setting.metric) => {
                    let message = format!("{} is set twice", setting.metric);
                    return Err(Failure::usage(message));
                }
                Word::Quota(setting) => settings.push(setting),
            }
        }
        if settings.is_empty() {
            return Err(Failure::usage("no quota is named; see --help"));
        }
        Ok((tenant.unwrap_or_else(|| global.tenant_id()), settings))
    }

    async fn run(self, global: &Global) -> Result<(), Failure> {
        let (tenant_id, settings) = self.read(global)?;
        let client = Client::connect(global).await?;
        let mut tenants = client.tenants();
        let get = GetTenantRequest {
            tenant_id: tenant_id.clone(),
        };
        let before = tenants.get_tenant(client.request(get)).await?;
        let before = before.into_inner().tenant.unwrap_or_default();
        let etag = match (&self.etag, self.write.request_id.as_str()) {
            (Some(etag), _) => etag.clone(),
            (None, "") => before.etag.clone(),
            (None, _) => String::new(),
        };
        let limits: Vec<&Limit> = settings.iter().filter_map(|s| s.limit.as_ref()).collect();
        let modes: Vec<&Mode> = settings.iter().filter_map(|s| s.mode.as_ref()).collect();
        let update = UpdateTenantRequest {
            tenant: Some(Tenant {
                tenant_id,
                quotas: setting::message(limits.iter().copied(), modes.iter().copied()),
                etag,
                ..Tenant::default()
            }),
            update_mask: Some(FieldMask {
                paths: setting::paths(limits, modes),
            }),
            request_id: self.write.request_id.clone(),
            validate_only: self.write.validate_only,
        };
        let after = tenants.update_tenant(client.request(update)).await?;
        let after = after.into_inner().tenant.unwrap_or_default();
        let result = json!({ "tenant": json::tenant(&after) });
        show(global.output, &result, || {
            let quotas = [before, after].map(|tenant| tenant.effective_quotas.unwrap_or_default());
            changes(&settings, &quotas)
        })
    }
}

/// What is in force of each metric that was set, before and now.
fn changes(settings: &[&Setting], [before, after]: &[Quotas; 2]) -> String {
    let rows = settings.iter().map(|Setting { metric, .. }| {
        let told = |quotas: &Quotas| {
            setting::limit_of(quotas, metric)
                .map_or_else(|| "none".to_owned(), |quota| quota_text(metric, &quota))
        };
        vec![
            metric.clone(),
            told(before),
            told(after),
            mode_text(after, metric),
        ]
    });
    output::grid(&["metric", "before", "now", "mode"], &[1, 2], rows)
}

fn quota_text(metric: &str, quota: &CustomQuota) -> String {
    let limit = amount::limit(metric, quota.limit);
    match &quota.window {
        Some(window) => format!("{limit} / {}", amount::span_of(window)),
        None => limit,
    }
}

fn mode_text(quotas: &Quotas, metric: &str) -> String {
    let mode = quotas.modes.get(metric).copied().unwrap_or_default();
    match QuotaMode::try_from(mode) {
        Ok(QuotaMode::Unspecified) => "ENFORCE".to_owned(),
        _ => json::quota_mode(mode)
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    }
}

impl Check {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let (tenant_id, metric) = match self.words.as_slice() {
            [tenant_id, metric] => (tenant_id.clone(), metric),
            [metric] => (global.tenant_id(), metric),
            _ => return Err(Failure::usage("expected a tenant and a metric")),
        };
        let client = Client::connect(global).await?;
        let mode = match (self.consume, self.release) {
            (true, _) => CheckQuotaMode::Consume,
            (_, true) => CheckQuotaMode::Release,
            _ => CheckQuotaMode::Peek,
        };
        let request = CheckQuotaRequest {
            tenant_id,
            metric: metric.clone(),
            amount: self.amount,
            mode: mode.into(),
        };
        let answer = client
            .tenants()
            .check_quota(client.request(request))
            .await?
            .into_inner();
        let result = json!({
            "metric": metric,
            "amount": self.amount,
            "allowed": answer.allowed,
            "limit": answer.limit,
            "used": answer.used,
            "remaining": answer.remaining,
            "retry_after": answer.retry_after.as_ref().map(ToString::to_string),
            "mode": json::quota_mode(answer.mode),
        });
        show(global.output, &result, || output::record(&result))?;
        match answer.allowed {
            true => Ok(()),
            false => Err(Failure::told(Exit::Failed)),
        }
    }
}
