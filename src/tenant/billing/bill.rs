//! A tenant's bill: the statement of one period and the closed ones before it. It
//! does not know how a period is closed.

use super::{Overflow, Statement, draw_up};
use crate::{
    error::{Error, Result, Violations},
    store::Space,
    tenant::{Caller, Period, Readings, Tenant, Tenants, record, rows},
};

/// Closed statements told beside the one asked for, at most.
const PREVIOUS: usize = 12;

/// What a period is written like.
pub(super) const RULE: &str = "not a billing period: a month in UTC such as 2026-11 is allowed";

/// What a tenant owes.
#[derive(Clone, Debug, PartialEq)]
pub struct Bill {
    /// The statement of the period that was asked for.
    pub statement: Statement,
    /// The closed statements of the 12 periods before it, the latest first.
    pub previous: Vec<Statement>,
}

impl Tenants {
    /// What a tenant owes for a period; an empty one means the current.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no period, or one in which the tenant was not
    /// there; [`Error::ConditionNotMet`] where a figure is beyond what a statement
    /// can say; those of [`Tenants::get`].
    pub async fn billing(&self, caller: &Caller, tenant_id: &str, period: &str) -> Result<Bill> {
        let mut violations = Violations::default();
        let asked = Period::parse(period);
        violations.require(period.is_empty() || asked.is_some(), "period", RULE);
        if let Err(Error::Invalid(found)) = caller.tenant_id(tenant_id) {
            for violation in found {
                violations.add(violation.field, violation.description);
            }
        }
        violations.check()?;
        let tenant = self.get(caller, tenant_id).await?;
        let current = Period::of(self.store.now_ms());
        let first = Period::of(tenant.create_ms).min(current);
        let period = asked.unwrap_or(current);
        if !(first..=current).contains(&period) {
            return Err(Error::invalid(
                "period",
                format!(
                    "the tenant was not there in {period}: {first}, when it was created, to \
                     {current}, which is the current one, are allowed"
                ),
            ));
        }
        let mut periods = vec![period];
        while periods.len() <= PREVIOUS {
            match periods.last().map(|period| period.previous()) {
                Some(before) if before >= first => periods.push(before),
                _ => break,
            }
        }
        let mut found = self.statements(&tenant, &periods).await?.into_iter();
        let statement = match found.next().flatten() {
            Some(closed) => closed,
            None => {
                if period == current {
                    self.flush_account(&self.account(&tenant)).await?;
                }
                self.statement(&tenant, period, None).await?
            }
        };
        Ok(Bill {
            statement,
            previous: found.flatten().collect(),
        })
    }

    /// The closed statements of these periods, where they are closed.
    pub(super) async fn statements(
        &self,
        tenant: &Tenant,
        periods: &[Period],
    ) -> Result<Vec<Option<Statement>>> {
        let keys: Vec<_> = periods
            .iter()
            .map(|period| rows::statement(tenant.incarnation, *period))
            .collect();
        let space = Space::meters(tenant.incarnation);
        let read = self.store.read(&space, 0, &keys).await?;
        let decoded = read.records.into_iter().map(|found| {
            let decode = |found: crate::store::Record| record::decode(&found.value);
            found.map(decode).transpose()
        });
        decoded.collect()
    }

    /// The statement of a period as it stands now, or as it stands for a tenant
    /// whose space was left with this reading.
    pub(super) async fn statement(
        &self,
        tenant: &Tenant,
        period: Period,
        left_with: Option<Readings>,
    ) -> Result<Statement> {
        let consumption = self.consumption(tenant, period, left_with).await?;
        let currency = &self.billing.load().currency;
        draw_up(
            &tenant.tenant_id,
            currency,
            period,
            &consumption.parts,
            consumption.until_ms,
        )
        .map_err(|overflow: Overflow| Error::ConditionNotMet {
            subject: format!("statement {period} of tenant {}", tenant.tenant_id),
            description: overflow.to_string(),
        })
    }
}
