//! What a tenant consumed elsewhere, reported once for each event. It does not
//! know who consumed it, nor what it costs.
//!
//! One tally does it all: the event's name, its counts in the rows of its own
//! time, the levels it raises, that its billing period is open, and that nobody
//! is copying the rows. Whoever reports the same name again changes nothing,
//! whatever else it says.

pub mod counted;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Period, Tenancy, Tenant, Tenants, Terms,
    plan::{self, Quotas},
    rate::Rule,
    rows,
};
use crate::{
    error::{Error, Result, Violations},
    store::{Add, Count, Incarnation, Lease, Once, Space, Tallied, Tally, Unit},
};

/// The largest amount of one metric.
const MAX_AMOUNT: u64 = 1_000_000_000_000_000;

/// Bytes of an event's name.
const ID_BYTES: usize = 128;

/// Metrics of the platform's own in one event: all its counts fit into one tally.
const MAX_METRICS: usize = 40;

/// How late an event may be reported.
const BEHIND_MS: u64 = 35 * Unit::Day.ms();

/// How far a caller's clock may be ahead.
pub(super) const AHEAD_MS: u64 = 5 * Unit::Minute.ms();

/// How long an event's name is remembered: until its time is too long ago. When it
/// ends tells when it was counted, so that it never changes.
const REMEMBERED_MS: u64 = BEHIND_MS + 2 * AHEAD_MS;

/// How often it is tried anew while the tenant's rows are copied, and for how long:
/// longer than whoever died over it can keep events from them.
const AGAIN: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_millis(counted::COPYING_MS + 1_000);

/// The place of [`rows::copying`] among what must be absent.
const COPYING: usize = 0;

/// What the names of events begin with.
const EVENT: &str = "event:";

const AMOUNT: &str = "0 to 1,000,000,000,000,000 are allowed";

/// What a tenant consumed elsewhere. An amount out of range is refused.
#[derive(Debug, Default)]
pub struct Event {
    /// The tenant.
    pub tenant_id: String,
    /// Names the event among the tenant's.
    pub event_id: String,
    /// When it was consumed, in ms since 1970; `None` means now.
    pub event_ms: Option<u64>,
    /// Operations.
    pub operations: i64,
    /// Bytes transferred.
    pub data_transfer_bytes: i64,
    /// Milliseconds of computing.
    pub compute_ms: i64,
    /// Amounts of the platform's own metrics, by name.
    pub custom: BTreeMap<String, i64>,
    /// What was found wrong with the request before it came here.
    pub violations: Violations,
}

impl Event {
    /// Checks what can be checked without the tenant.
    fn check(&mut self, at_ms: u64, now_ms: u64) {
        let violations = &mut self.violations;
        violations.require(
            !self.tenant_id.is_empty(),
            "tenant_id",
            "empty: name the tenant",
        );
        let length = self.event_id.len();
        if length == 0 || length > ID_BYTES {
            violations.add(
                "event_id",
                format!("{length} bytes, 1 to {ID_BYTES} are allowed"),
            );
        }
        let control = self.event_id.chars().any(char::is_control);
        violations.require(!control, "event_id", "control characters are not allowed");
        if at_ms > now_ms.saturating_add(AHEAD_MS) {
            let ahead = "more than 5 minutes ahead of the store's clock";
            violations.add("event_time", ahead);
        }
        if at_ms < now_ms.saturating_sub(BEHIND_MS) {
            violations.add("event_time", "more than 35 days ago");
        }
        let own = [
            ("operations", self.operations),
            ("data_transfer_bytes", self.data_transfer_bytes),
            ("compute_ms", self.compute_ms),
        ];
        for (field, amount) in own {
            violations.require(in_range(amount), field, AMOUNT);
        }
        for (metric, amount) in &self.custom {
            violations.require(in_range(*amount), &format!("custom.{metric}"), AMOUNT);
        }
        if self.custom.len() > MAX_METRICS {
            violations.add(
                "custom",
                format!(
                    "{} metrics, at most {MAX_METRICS} are allowed",
                    self.custom.len()
                ),
            );
        }
        let amounts = own.map(|(_, amount)| amount).into_iter();
        let nothing = amounts
            .chain(self.custom.values().copied())
            .all(|amount| amount == 0);
        let none = "nothing was consumed: at least one amount must be positive";
        violations.require(!nothing, "operations", none);
    }

    /// Checks what depends on the tenant.
    fn check_with(&mut self, tenant: &Tenant, known: impl Fn(&str) -> bool, at_ms: u64) {
        if at_ms < tenant.create_ms {
            let before = "before the creation of the tenant";
            self.violations.add("event_time", before);
        }
        for metric in self.custom.keys().filter(|metric| !known(metric)) {
            self.violations.add(
                format!("custom.{metric}"),
                "not a metric in quotas.custom of the tenant or its plan, and without a price",
            );
        }
    }

    /// The counts, of what is not 0.
    fn counts(&self) -> Vec<Count> {
        let own = [
            (rows::OPERATIONS, self.operations),
            (rows::REPORTED_BYTES, self.data_transfer_bytes),
            (rows::COMPUTE_MS, self.compute_ms),
        ];
        let own = own
            .into_iter()
            .map(|(name, amount)| (name.into(), amount.unsigned_abs()));
        let custom = self.custom.iter();
        own.chain(custom.map(|(metric, amount)| (rows::custom(metric), amount.unsigned_abs())))
            .filter(|(_, amount)| *amount > 0)
            .map(|(name, amount)| rows::count(name, amount))
            .collect()
    }

    /// All of it, in one tally.
    fn tally(
        &self,
        (incarnation, segment): (Incarnation, u32),
        quotas: &Quotas,
        at_ms: u64,
        now_ms: u64,
    ) -> Tally {
        let adds = rows::adds_in(incarnation, segment, at_ms, &self.counts());
        let [minute, rest @ ..] = adds;
        // Nobody can ask for points of a minute so long ago any more.
        let shown = now_ms.saturating_sub(at_ms) < Unit::Minute.kept() * Unit::Minute.ms();
        let mut adds: Vec<Add> = shown.then_some(minute).into_iter().chain(rest).collect();
        let bytes = self.data_transfer_bytes.unsigned_abs();
        if bytes > 0 {
            adds.push(rows::transfer_add(incarnation, at_ms, bytes));
        }
        let levels: Vec<_> = self
            .custom
            .iter()
            .filter(|(metric, amount)| is_level(quotas, metric) && **amount > 0)
            .map(|(metric, amount)| rows::count(rows::custom(metric), amount.unsigned_abs()))
            .collect();
        if !levels.is_empty() {
            adds.push(Add {
                row: rows::levels(incarnation),
                keep_ms: None,
                counts: levels,
            });
        }
        Tally {
            stamp: None,
            once: Some(Once {
                name: name(incarnation, &self.event_id).into(),
                keep_ms: REMEMBERED_MS,
            }),
            absent: [rows::copying(incarnation)]
                .into_iter()
                .chain(rows::bar(incarnation, at_ms, now_ms))
                .collect(),
            adds,
        }
    }
}

fn in_range(amount: i64) -> bool {
    u64::try_from(amount).is_ok_and(|amount| amount <= MAX_AMOUNT)
}

/// The event's name in the meter space, which many tenants share.
fn name(incarnation: Incarnation, event_id: &str) -> String {
    format!("{EVENT}{incarnation}:{event_id}")
}

fn is_level(quotas: &Quotas, metric: &str) -> bool {
    let quota = quotas.custom.get(metric);
    quota.is_some_and(|quota| quota.window_ms.is_none())
}

impl Tenants {
    /// Records what a tenant consumed elsewhere; `false` where an event of this
    /// name was recorded in the last 35 days, whatever it said. It is never
    /// refused for a quota, and of a deleted tenant until it is purged.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::TenantDeleted`] for what
    /// was consumed after the deletion; [`Error::ConditionNotMet`] where the
    /// billing period is closed; [`Error::RequestInProgress`] while a checkpoint
    /// holds on to the tenant's rows; those of the store.
    pub async fn record(&self, mut event: Event) -> Result<bool> {
        let now_ms = self.store.now_ms();
        let at_ms = event.event_ms.unwrap_or(now_ms);
        event.check(at_ms, now_ms);
        let tenant_id = event.tenant_id.clone();
        let found = match super::id::is_valid(&tenant_id) {
            true => self.find_tenant(&tenant_id).await?,
            false => None,
        };
        // A purge that has begun takes the usage with it.
        let found = found.filter(|(tenant, _)| !tenant.purging);
        let Some((tenant, _)) = found else {
            event.violations.check()?;
            return Err(Error::no_tenant(tenant_id));
        };
        let quotas = self.effective_quotas(&tenant);
        let settings = self.settings.load_full();
        let prices = &plan::named(&settings, &tenant.plan).prices;
        let known =
            |metric: &str| quotas.custom.contains_key(metric) || prices.custom.contains_key(metric);
        event.check_with(&tenant, known, at_ms);
        std::mem::take(&mut event.violations).check()?;
        if tenant.delete_ms.is_some_and(|delete_ms| at_ms > delete_ms) {
            return Err(Error::TenantDeleted(tenant_id));
        }

        let account = self.account(&tenant);
        let place = (tenant.incarnation, tenant.segment_at(at_ms));
        let tally = event.tally(place, &quotas, at_ms, now_ms);
        let row = rows::transfer(tenant.incarnation, Period::of(at_ms));
        let transfer = tally.adds.iter().position(|add| add.row == row);
        let shown = match self.add_event(tenant.incarnation, tally).await? {
            Tallied::Added(shown) => shown,
            Tallied::Duplicate => return Ok(false),
            Tallied::Barred { key: COPYING } => return Err(Error::RequestInProgress),
            Tallied::Barred { .. } => {
                return Err(Error::ConditionNotMet {
                    subject: "event_time".into(),
                    description: format!("the billing period {} is closed", Period::of(at_ms)),
                });
            }
            Tallied::Exceeded { limit, used, .. } => {
                return Err(Error::ConditionNotMet {
                    subject: format!("tenant {tenant_id}"),
                    description: format!("a counter shows {used} and can show {limit} at most"),
                });
            }
        };
        let bytes = transfer.and_then(|at| shown.get(at)?.first());
        if let Some(bytes) = bytes {
            account.meter.learn_transfer(Period::of(at_ms), *bytes);
        }
        let terms = Terms::unlimited(&tenant_id, account);
        let tenancy = Tenancy::on(std::sync::Arc::new(terms));
        self.force(&event, &tenancy, &quotas, now_ms.saturating_sub(at_ms))
            .await;
        Ok(true)
    }

    /// Adds an event, once nobody copies the rows.
    async fn add_event(&self, incarnation: Incarnation, tally: Tally) -> Result<Tallied> {
        let space = Space::meters(incarnation);
        let begun = Instant::now();
        loop {
            let tallied = self.store.tally(&space, tally.clone()).await?;
            let copied = tallied == Tallied::Barred { key: COPYING };
            if !copied || begun.elapsed() > PATIENCE {
                return Ok(tallied);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Counts what was consumed so lately that it falls into a rate's window. It
    /// is billed already; where the store fails here, a rate lets so much more
    /// through in this one window.
    async fn force(&self, event: &Event, tenancy: &Tenancy, quotas: &Quotas, age_ms: u64) {
        let settings = self.settings.load_full();
        for (metric, amount) in event.custom.iter().filter(|(_, amount)| **amount > 0) {
            let Some(quota) = quotas.custom.get(metric) else {
                continue;
            };
            let span_ms = quota.window_ms.unwrap_or_default();
            let rule = Rule::of(metric, Some(quota.limit), span_ms, &quotas.modes, &settings);
            let Some(rule) = rule.filter(|_| age_ms < span_ms) else {
                continue;
            };
            let lease = Lease {
                window: rows::window(tenancy.incarnation, metric),
                limit: rule.limit,
                span_ms,
                share: 1,
                hold_ms: 1,
                forced: amount.unsigned_abs(),
                ..Lease::default()
            };
            let space = Space::meters(tenancy.incarnation);
            if let Err(error) = self.store.lease(&space, lease).await {
                tracing::debug!(%error, metric, "reported usage not counted in its window");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tenant::plan::CustomQuota;

    const NOW: u64 = 1_795_521_630_000;

    fn event() -> Event {
        Event {
            tenant_id: "acme".into(),
            event_id: "e".into(),
            operations: 1,
            ..Event::default()
        }
    }

    fn wrong(mut event: Event, at_ms: u64) -> Vec<String> {
        event.check(at_ms, NOW);
        match event.violations.check() {
            Ok(()) => Vec::new(),
            Err(Error::Invalid(violations)) => violations.into_iter().map(|v| v.field).collect(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_field_has_its_limits() {
        let amount = |amount| Event {
            operations: amount,
            ..event()
        };
        let named = |event_id: String| Event {
            event_id,
            ..event()
        };
        let custom = |metrics: usize, amount| Event {
            custom: (0..metrics).map(|n| (format!("m{n}"), amount)).collect(),
            ..event()
        };
        let most = i64::try_from(MAX_AMOUNT).unwrap();
        for (event, at_ms, expected) in [
            (event(), NOW, &[][..]),
            (event(), NOW + AHEAD_MS, &[]),
            (event(), NOW + AHEAD_MS + 1, &["event_time"]),
            (event(), NOW - BEHIND_MS, &[]),
            (event(), NOW - BEHIND_MS - 1, &["event_time"]),
            (amount(most), NOW, &[]),
            (amount(most + 1), NOW, &["operations"]),
            (amount(-1), NOW, &["operations"]),
            (amount(i64::MIN), NOW, &["operations"]),
            (amount(0), NOW, &["operations"]),
            (named(String::new()), NOW, &["event_id"]),
            (named("e".repeat(128)), NOW, &[]),
            (named("e".repeat(129)), NOW, &["event_id"]),
            (named("a\nb".into()), NOW, &["event_id"]),
            (custom(40, 1), NOW, &[]),
            (custom(41, 1), NOW, &["custom"]),
            (custom(1, -1), NOW, &["custom.m0"]),
            (
                Event::default(),
                NOW,
                &["tenant_id", "event_id", "operations"],
            ),
        ] {
            let case = format!("{event:?} at {at_ms}");
            assert_eq!(wrong(event, at_ms), expected, "{case}");
        }
    }

    #[test]
    fn the_largest_event_is_one_tally() {
        let place = (Incarnation::random(), 0);
        let metric = |n: usize| format!("m{n}");
        let level = CustomQuota {
            limit: 1,
            window_ms: None,
        };
        let quotas = Quotas {
            custom: (0..MAX_METRICS).map(|n| (metric(n), level)).collect(),
            ..Quotas::default()
        };
        let event = Event {
            data_transfer_bytes: 1,
            compute_ms: 1,
            custom: (0..MAX_METRICS).map(|n| (metric(n), 1)).collect(),
            ..event()
        };
        let tally = event.tally(place, &quotas, NOW, NOW);
        let counts: usize = tally.adds.iter().map(|add| add.counts.len()).sum();
        assert_eq!(counts, 4 * (3 + MAX_METRICS) + 1 + MAX_METRICS);
        assert!(counts <= 256);
        assert!(tally.adds.iter().all(|add| add.counts.len() <= 64));
        let late = event.tally(place, &quotas, NOW - 3 * Unit::Day.ms(), NOW);
        assert_eq!(late.adds.len(), tally.adds.len() - 1, "no minute any more");
    }
}
