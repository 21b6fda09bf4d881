//! A month that is over, from a server's store to a file: the server closes it,
//! the command line exports it. It knows the sheet the bills must follow.

use std::{fs, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use riptide_persistence::{
    config::Config,
    store::embedded::Embedded,
    tenant::{Change, Directory, NewTenant, Profile, Tenants},
};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::Folder;

const DAY_MS: i64 = 86_400_000;
const TENANTS: usize = 25;

/// The first of the month two months ago, and its length in milliseconds.
fn month() -> (Date, i64) {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let first = today.first_of_month().checked_sub(2.months()).unwrap();
    (first, i64::from(first.days_in_month()) * DAY_MS)
}

/// Tenants that came a day after the month began, on the plan `basic`.
fn past(folder: &Folder, begun: Date) {
    let begun = begun.to_zoned(TimeZone::UTC).unwrap().timestamp();
    let now_ms = (begun.as_millisecond() + DAY_MS) as u64;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Embedded::open_with_clock(&folder.path("data"), move || now_ms).unwrap();
        let tenants = Tenants::new(
            Arc::new(store),
            Arc::new(Directory::new(Duration::from_secs(60))),
            Arc::new(ArcSwap::from_pointee(Config::defaults().tenant)),
            SecretString::from("rta_of-the-past"),
        );
        for number in 0..TENANTS {
            let new = NewTenant {
                tenant_id: format!("tenant-{number:02}"),
                profile: Profile {
                    plan: "basic".into(),
                    ..Profile::default()
                },
            };
            tenants.create(new, Change::default()).await.unwrap();
        }
    });
}

#[test]
fn a_month_that_is_over_is_closed_by_the_server_and_exported_to_the_micro() {
    let folder = Folder::new();
    let (begun, month_ms) = month();
    let period = begun.strftime("%Y-%m").to_string();
    past(&folder, begun);
    let serving = folder.serve(&[]);
    let export = |format: &str, out: &str, more: &[&str]| {
        let all = ["billing", "export", "--period", &period, "--format", format];
        let to = ["--out", out, "--page-size", "7", "-o", "json"];
        serving.run(&[&all[..], &to, more].concat())
    };
    let told = export("csv", "bills.csv", &["--wait", "60s"]).ok().json();
    assert_eq!(told["statements"], TENANTS);

    // 9.00 USD a month, for all of it but a day, rounded half up.
    let owed_ms = month_ms - DAY_MS;
    let fee = (9_000_000 * owed_ms * 2 + month_ms) / (month_ms * 2);
    let text = fs::read_to_string(folder.path("bills.csv")).unwrap();
    let mut rows = text
        .lines()
        .map(|row| row.trim_end().split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    let at = |name: &str| header.iter().position(|field| *field == name).unwrap();
    let mut billed = Vec::new();
    for row in rows {
        assert_eq!(
            (row[at("period")], row[at("plan")]),
            (period.as_str(), "basic")
        );
        assert_eq!(row[at("currency")], "USD");
        if row[at("metric")] == "base_fee" {
            assert_eq!(row[at("quantity")], owed_ms.to_string());
            assert_eq!(row[at("amount_micros")], fee.to_string());
            assert_eq!(row[at("total_micros")], fee.to_string());
            billed.push(row[at("tenant_id")].to_owned());
        } else {
            assert_eq!((row[at("quantity")], row[at("amount_micros")]), ("0", "0"));
        }
    }
    billed.sort();
    let expected: Vec<_> = (0..TENANTS)
        .map(|number| format!("tenant-{number:02}"))
        .collect();
    assert_eq!(billed, expected);

    export("json", "bills.json", &[]).ok();
    let statements = fs::read(folder.path("bills.json")).unwrap();
    let statements: Vec<Value> = serde_json::from_slice(&statements).unwrap();
    assert_eq!(statements.len(), TENANTS);
    for statement in &statements[..3] {
        let tenant_id = statement["tenant_id"].as_str().unwrap();
        let told = serving.json(&["tenant", "billing", tenant_id, "--period", &period]);
        assert_eq!(&told["statement"], statement);
        let now = serving.json(&["tenant", "billing", tenant_id]);
        assert_eq!(now["statement"]["closed"], json!(false));
        let previous = now["previous"].as_array().unwrap();
        assert!(previous.contains(statement), "{now}");
    }
    export("json", "again.json", &[]).ok();
    let files = ["bills.json", "again.json"].map(|name| fs::read(folder.path(name)).unwrap());
    assert!(files[0] == files[1], "what is closed stays as it is");

    let table = serving.run(&["tenant", "billing", "tenant-00", "--period", &period]);
    assert!(table.ok().text().contains("closed"));
    for (period, fields) in [("2026-13", "period"), ("9998-01", "period"), ("", "period")] {
        let arguments = ["billing", "export", "--period", period, "--out", "none"];
        let refused = serving.run(&arguments).refused(1, "(VALIDATION_FAILED)");
        assert!(
            refused.stderr.contains(&format!("  {fields}: ")),
            "{refused:?}"
        );
        assert!(!folder.path("none.part").exists());
    }
    serving
        .run(&["tenant", "billing", "tenant-00", "--period", "2001-01"])
        .refused(1, "(VALIDATION_FAILED)");
}
