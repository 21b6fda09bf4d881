//! Statements as they are exported: CSV rows, or items of a JSON array. It does
//! not know where they are written.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    cli::json,
    proto::v1::{Statement, StatementLine},
};

/// How statements are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// A header and a row for each line of a statement (RFC 4180).
    Csv,
    /// One array of statements.
    Json,
}

const HEADER: [&str; 17] = [
    "tenant_id",
    "period",
    "plan",
    "metric",
    "quantity",
    "included",
    "unit",
    "unit_price_micros",
    "amount_micros",
    "currency",
    "start_time",
    "end_time",
    "total_micros",
    "statement_start_time",
    "statement_end_time",
    "close_time",
    "line",
];

impl Format {
    /// These statements, behind so many others; with what begins the file where it
    /// is empty.
    pub(super) fn write(self, statements: &[Statement], before: u64, empty: bool) -> String {
        let mut text = String::new();
        match self {
            Self::Csv => {
                if empty {
                    record(&mut text, HEADER.map(str::to_owned));
                }
                for statement in statements {
                    for (at, line) in statement.lines.iter().enumerate() {
                        record(&mut text, fields(statement, line, at + 1));
                    }
                }
            }
            Self::Json => {
                for (at, statement) in (before..).zip(statements) {
                    text.push_str(if at == 0 { "[\n" } else { ",\n" });
                    text.push_str(&json::statement(statement).to_string());
                }
            }
        }
        text
    }

    /// What ends the file.
    pub(super) fn end(self, statements: u64) -> &'static str {
        match (self, statements) {
            (Self::Csv, _) => "",
            (Self::Json, 0) => "[]\n",
            (Self::Json, _) => "\n]\n",
        }
    }
}

fn fields(statement: &Statement, line: &StatementLine, number: usize) -> [String; 17] {
    let time = |time| {
        let time = json::time(time);
        time.as_str().unwrap_or_default().to_owned()
    };
    [
        statement.tenant_id.clone(),
        statement.period.clone(),
        line.plan.clone(),
        line.metric.clone(),
        line.quantity.to_string(),
        line.included.to_string(),
        line.unit.to_string(),
        line.unit_price_micros.to_string(),
        line.amount_micros.to_string(),
        statement.currency.clone(),
        time(line.start_time),
        time(line.end_time),
        statement.total_micros.to_string(),
        time(statement.start_time),
        time(statement.end_time),
        time(statement.close_time),
        number.to_string(),
    ]
}

fn record(text: &mut String, fields: [String; 17]) {
    let fields = fields.map(|field| match field.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field,
    });
    text.push_str(&fields.join(","));
    text.push_str("\r\n");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn statement(tenant_id: &str, plans: &[&str]) -> Statement {
        Statement {
            tenant_id: tenant_id.into(),
            period: "2026-10".into(),
            currency: "EUR".into(),
            total_micros: -1,
            lines: plans
                .iter()
                .map(|plan| StatementLine {
                    plan: (*plan).to_owned(),
                    metric: "operations".into(),
                    quantity: i64::MAX,
                    ..StatementLine::default()
                })
                .collect(),
            ..Statement::default()
        }
    }

    #[test]
    fn csv_has_a_header_once_and_quotes_what_needs_it() {
        let first = Format::Csv.write(&[statement("a", &["basic", "a \"b\", c"])], 0, true);
        let rows: Vec<_> = first.split("\r\n").collect();
        assert!(rows[0].starts_with("tenant_id,period,plan,metric,quantity,"));
        let row = "a,2026-10,basic,operations,9223372036854775807,0,0,0,0,EUR,,,-1,,,,1";
        assert_eq!(rows[1], row);
        assert!(rows[2].starts_with("a,2026-10,\"a \"\"b\"\", c\",operations,"));
        assert_eq!((rows[3], rows.len()), ("", 4));
        let second = Format::Csv.write(&[statement("b", &["basic"])], 0, false);
        assert!(second.starts_with("b,"));
        assert_eq!(Format::Csv.end(2), "");
    }

    #[test]
    fn json_is_one_array_however_it_was_cut() {
        let all = [
            statement("a", &["p"]),
            statement("b", &[]),
            statement("c", &["p"]),
        ];
        let whole = Format::Json.write(&all, 0, true) + Format::Json.end(3);
        let cut = Format::Json.write(&all[..1], 0, true)
            + &Format::Json.write(&[], 1, false)
            + &Format::Json.write(&all[1..], 1, false)
            + Format::Json.end(3);
        assert_eq!(cut, whole);
        let read: Vec<serde_json::Value> = serde_json::from_str(&whole).unwrap();
        assert_eq!(read[2]["tenant_id"], "c");
        assert_eq!(read[0]["lines"][0]["quantity"], i64::MAX);
        let none = Format::Json.write(&[], 0, true) + Format::Json.end(0);
        assert_eq!(none, "[]\n");
    }
}
