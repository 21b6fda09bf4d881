//! `tenant billing`: what a tenant owes, line by line. It does not compute
//! anything.

use clap::Args;
use serde_json::{Value, json};

use super::Target;
use crate::{
    cli::{
        amount,
        client::{Client, Global},
        failure::Failure,
        json,
        output::{self, show},
    },
    proto::v1::{GetTenantBillingRequest, Statement, StatementLine},
};

#[derive(Args, Debug)]
pub(in crate::cli) struct Billing {
    #[command(flatten)]
    target: Target,
    /// The period, a month in UTC such as 2026-11 [default: the current one].
    #[arg(
        long,
        value_name = "MONTH",
        default_value = "",
        hide_default_value = true
    )]
    period: String,
}

impl Billing {
    pub(in crate::cli) async fn run(self, global: &Global, client: &Client) -> Result<(), Failure> {
        let request = GetTenantBillingRequest {
            tenant_id: self.target.id(global),
            period: self.period,
        };
        let answer = client
            .tenants()
            .get_tenant_billing(client.request(request))
            .await?
            .into_inner();
        let result = json!({
            "statement": answer.statement.as_ref().map(json::statement),
            "previous": answer.previous.iter().map(json::statement).collect::<Value>(),
        });
        show(global.output, &result, || {
            let statement = answer.statement.as_ref().map(bill).unwrap_or_default();
            let previous = match answer.previous.is_empty() {
                true => String::new(),
                false => format!("\n\n{}", list(&answer.previous)),
            };
            statement + &previous
        })
    }
}

fn bill(statement: &Statement) -> String {
    let money = |micros| format!("{} {}", amount::money(micros), statement.currency);
    let sum = json!({
        "tenant_id": statement.tenant_id,
        "period": statement.period,
        "start_time": json::time(statement.start_time),
        "end_time": json::time(statement.end_time),
        "state": if statement.closed { "closed" } else { "open" },
        "close_time": json::time(statement.close_time),
        "total": money(statement.total_micros),
        "projected_total": match statement.closed {
            true => Value::Null,
            false => money(statement.projected_total_micros).into(),
        },
    });
    let header = [
        "plan", "since", "metric", "used", "exactly", "included", "price", "amount",
    ];
    let lines = statement.lines.iter().map(|line| row(line, &money));
    format!(
        "{}\n\n{}",
        output::record(&sum),
        output::grid(&header, &[3, 4, 5, 6, 7], lines)
    )
}

fn row(line: &StatementLine, money: &dyn Fn(i64) -> String) -> Vec<String> {
    let since = json::time(line.start_time);
    vec![
        line.plan.clone(),
        since.as_str().unwrap_or_default().to_owned(),
        line.metric.clone(),
        amount::quantity(&line.metric, line.quantity),
        amount::count(line.quantity),
        amount::quantity(&line.metric, line.included),
        format!(
            "{} / {}",
            amount::money(line.unit_price_micros),
            amount::unit(&line.metric, line.unit)
        ),
        money(line.amount_micros),
    ]
}

fn list(statements: &[Statement]) -> String {
    let rows = statements.iter().map(|statement| {
        let closed = json::time(statement.close_time);
        vec![
            statement.period.clone(),
            format!(
                "{} {}",
                amount::money(statement.total_micros),
                statement.currency
            ),
            closed.as_str().unwrap_or_default().to_owned(),
        ]
    });
    output::grid(&["previous", "total", "closed"], &[1], rows)
}
