//! Checks of quotas for services beside the cache: may this tenant, and if so,
//! it did. It does not know what the caller does with the answer.

mod asked;

use std::time::Duration;

use self::asked::{Asked, Kind, unknown};
use super::{
    Access, Caller, Counts, MEMORY_BYTES, Period, STORAGE_BYTES, Tenancy, Tenants,
    level::until_next_period, plan::Mode, rate::Drawn, rows,
};
use crate::{
    error::{Error, Result, Violations},
    store::{Add, Count, Space, Tallied, Tally},
};

/// The greatest amount of a check.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000_000;

/// When a look at memory is worth it that flushed entries fill: the background
/// looks for them that often.
const RECLAIM: Duration = Duration::from_secs(1);

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It only looks.
    Peek,
    /// It consumes the amount, if it is allowed, in the same step.
    Consume,
    /// It gives the amount back to a level of the platform's own.
    Release,
}

/// What a check asks.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// The metric's name in Quotas.
    pub metric: &'a str,
    /// How much: 1 to [`MAX_AMOUNT`]; 0 means 1.
    pub amount: i64,
    /// What to do.
    pub deed: Deed,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether the amount is allowed, or was consumed.
    pub allowed: bool,
    /// The limit; -1 means unlimited.
    pub limit: i64,
    /// What counts against it now.
    pub used: u64,
    /// How long until the amount can be allowed, where time alone helps.
    pub retry_after: Option<Duration>,
    /// What happens at the limit.
    pub mode: Mode,
}

impl Tenants {
    /// Admits a call that checks a quota of a tenant. A tenant that is read-only may
    /// look, and what it holds may be given back. While the store cannot be asked,
    /// what is remembered of the tenant admits.
    ///
    /// # Errors
    /// As [`Tenants::admit`]; [`Error::ScopeMissing`] for [`Deed::Release`] by
    /// anyone but an admin.
    pub async fn admit_check(
        &self,
        caller: &Caller,
        tenant_id: &str,
        deed: Deed,
    ) -> Result<Tenancy> {
        let access = match deed {
            Deed::Peek | Deed::Release => Access::Read,
            Deed::Consume => Access::Write,
        };
        let tenancy = self.admit_remembering(caller, tenant_id, access).await?;
        match (caller, deed) {
            (Caller::Key(_), Deed::Release) => Err(Error::ScopeMissing {
                scope: "admin".into(),
            }),
            _ => Ok(tenancy),
        }
    }

    /// Whether an amount is allowed; with [`Deed::Consume`] it is used in the same
    /// step. A rate costs no call of the store where permits are at hand, anything
    /// else one. A refusal counts as throttled, and is no error.
    ///
    /// # Errors
    /// [`Error::Invalid`] besides the violations given, for an amount out of bounds,
    /// a metric that is not known, or one that the deed is not for; the store's.
    pub async fn check_quota(
        &self,
        tenancy: &Tenancy,
        check: &Check<'_>,
        mut violations: Violations,
    ) -> Result<Checked> {
        let amount = match check.amount {
            0 => 1,
            amount => amount,
        };
        violations.require(
            (1..=MAX_AMOUNT).contains(&amount),
            "amount",
            "1 to 10^15 is allowed; 0 means 1",
        );
        let found = Kind::of(&tenancy.quotas, check.metric);
        match found.map(|(kind, _)| kind.forbids(check.deed)) {
            None => violations.add("metric", unknown(&tenancy.quotas)),
            Some(Some(why)) => violations.add("metric", why),
            Some(None) => {}
        }
        violations.check()?;
        let (Some((kind, limit)), Ok(amount)) = (found, u64::try_from(amount)) else {
            return Err(Error::Internal("a check that passed has no metric".into()));
        };
        let asked = Asked {
            tenancy,
            metric: check.metric,
            amount,
            limit,
            mode: tenancy.quotas.mode(check.metric),
        };
        match (check.deed, kind) {
            (_, Kind::Held) => self.look_at_held(&asked).await,
            (_, Kind::Sessions) => self.look_at_sessions(&asked).await,
            (_, Kind::Transfer) => self.look_at_transfer(&asked).await,
            (Deed::Consume, Kind::Operations | Kind::Rate) => self.draw_on(&asked, kind).await,
            (_, Kind::Operations | Kind::Rate) => self.look_at_rate(&asked, kind).await,
            (Deed::Peek, Kind::Level) => self.look_at_level(&asked).await,
            (Deed::Consume, Kind::Level) => self.raise(&asked).await,
            (Deed::Release, Kind::Level) => self.lower(&asked).await,
        }
    }

    async fn look_at_held(&self, asked: &Asked<'_>) -> Result<Checked> {
        let usage = self.store.usage(&asked.tenancy.space).await?;
        if asked.metric != MEMORY_BYTES {
            return Ok(asked.look(usage.entries, None));
        }
        // Flushed bytes that await reclaim may add half as much again.
        let most = |limit: u64| limit.saturating_add(limit / 2);
        let all = usage.bytes.saturating_add(usage.orphaned_bytes);
        let full = asked
            .bound()
            .is_some_and(|limit| all.saturating_add(asked.amount) > most(limit));
        let looked = asked.look(usage.bytes, None);
        if looked.allowed && full && asked.mode == Mode::Enforce {
            return Ok(Checked {
                allowed: false,
                retry_after: Some(RECLAIM),
                ..looked
            });
        }
        Ok(looked)
    }

    async fn look_at_sessions(&self, asked: &Asked<'_>) -> Result<Checked> {
        let usage = self.store.usage(&asked.tenancy.sessions).await?;
        let used = match asked.metric {
            STORAGE_BYTES => usage.bytes,
            _ => usage.entries,
        };
        Ok(asked.look(used, None))
    }

    async fn look_at_transfer(&self, asked: &Asked<'_>) -> Result<Checked> {
        let now_ms = self.store.now_ms();
        let period = Period::of(now_ms);
        let used = self.transferred(&asked.tenancy.account, period).await?;
        Ok(asked.look(used, Some(until_next_period(now_ms))))
    }

    async fn look_at_rate(&self, asked: &Asked<'_>, kind: Kind) -> Result<Checked> {
        match asked.rule(kind) {
            Some(rule) => {
                let used = self.look(asked.tenancy, rule).await?;
                Ok(asked.look(used, None))
            }
            None => Ok(asked.look(0, None)),
        }
    }

    async fn draw_on(&self, asked: &Asked<'_>, kind: Kind) -> Result<Checked> {
        let drawn = match asked.rule(kind) {
            Some(rule) => self.draw(asked.tenancy, rule, asked.amount).await?,
            None => Drawn::Granted { used: 0 },
        };
        let checked = match drawn {
            Drawn::Granted { used } => asked.allowed(used),
            Drawn::Refused { used, retry_after } => asked.passed(used, retry_after),
        };
        if checked.allowed {
            let meter = &asked.tenancy.account.meter;
            match kind {
                Kind::Operations => meter.count(Counts {
                    operations: asked.amount,
                    ..Counts::default()
                }),
                _ => meter.consume(asked.metric, asked.amount),
            }
        }
        Ok(checked)
    }

    async fn look_at_level(&self, asked: &Asked<'_>) -> Result<Checked> {
        let incarnation = asked.tenancy.incarnation;
        let row = rows::levels(incarnation);
        let found = self.store.rows(&Space::meters(incarnation), &[row]).await?;
        let counter = rows::custom(asked.metric);
        let mut levels = found.into_iter().flatten();
        let level = levels.find_map(|(name, level)| (name == counter).then_some(level));
        Ok(asked.look(level.unwrap_or(0), None))
    }

    async fn raise(&self, asked: &Asked<'_>) -> Result<Checked> {
        let counted = [rows::count(rows::custom(asked.metric), asked.amount)];
        let mut level = counted.clone();
        if asked.mode == Mode::Enforce
            && let [count] = &mut level
        {
            count.limit = asked.bound();
        }
        let now_ms = self.store.now_ms();
        let points = rows::adds(&asked.tenancy.account, now_ms, &counted);
        let mut adds = vec![asked.level(level)];
        adds.extend(points);
        let used = match self.tally(asked, adds).await? {
            Ok(used) => used,
            Err(used) => return Ok(asked.refused(used)),
        };
        if asked.bound().is_some_and(|limit| used > limit) {
            return Ok(asked.passed(used, None));
        }
        Ok(asked.allowed(used))
    }

    async fn lower(&self, asked: &Asked<'_>) -> Result<Checked> {
        let count = Count {
            name: rows::custom(asked.metric),
            amount: 0_i64.saturating_sub_unsigned(asked.amount),
            limit: None,
        };
        let tallied = self.tally(asked, vec![asked.level([count])]).await?;
        Ok(asked.allowed(tallied.unwrap_or_else(|used| used)))
    }

    /// What the first counter shows then; what it shows where nothing was added.
    async fn tally(
        &self,
        asked: &Asked<'_>,
        adds: Vec<Add>,
    ) -> Result<std::result::Result<u64, u64>> {
        let tally = Tally {
            adds,
            ..Tally::default()
        };
        let space = Space::meters(asked.tenancy.incarnation);
        match self.store.tally(&space, tally).await? {
            Tallied::Added(shown) => {
                let first = shown.first().and_then(|row| row.first());
                Ok(Ok(first.copied().unwrap_or(0)))
            }
            Tallied::Exceeded { used, .. } => Ok(Err(used)),
            other => Err(Error::Internal(format!(
                "a tally that nothing bars came to {other:?}"
            ))),
        }
    }
}
