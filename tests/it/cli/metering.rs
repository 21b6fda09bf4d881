//! What the commands make of usage, quotas and bills: tables, plots, JSON, exit
//! codes. It does not know how they come about.

use std::collections::HashMap;

use prost_types::{Duration as Span, Timestamp};
use riptide_persistence::proto::v1::{
    CheckQuotaMode, CheckQuotaResponse, GetTenantBillingResponse, GetTenantUsageResponse,
    QuotaMode, QuotaUsage, Statement, StatementLine, Usage, UsageGranularity, UsagePoint,
};
use serde_json::json;

use super::{
    Folder, Ran,
    stand_in::{Script, StandIn},
};

fn time(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

/// 2026-11-24T10:00:30Z.
const NOW: i64 = 1_795_514_430;

fn quota(limit: i64, used: i64, mode: QuotaMode) -> QuotaUsage {
    QuotaUsage {
        limit,
        used,
        remaining: if limit < 0 { -1 } else { (limit - used).max(0) },
        reset_time: None,
        mode: mode.into(),
    }
}

fn usage() -> GetTenantUsageResponse {
    let point = |ago: i64| UsagePoint {
        start_time: time(NOW - 30 - ago * 60),
        operations: 10 - ago,
        hits: 3,
        misses: 1,
        data_transfer_bytes: 1024,
        memory_byte_seconds: 60 << 20,
        ..UsagePoint::default()
    };
    GetTenantUsageResponse {
        usage: Some(Usage {
            memory_bytes: 1 << 20,
            operations: 1_234_567,
            hits: 9,
            bytes_in: 1536,
            memory_byte_seconds: 3_865_470_566_400,
            exact: true,
            custom: HashMap::from([("pages_rendered".into(), 42)]),
            ..Usage::default()
        }),
        quotas: HashMap::from([
            ("pages_rendered".into(), quota(100, 42, QuotaMode::Warn)),
            ("cache_entries".into(), quota(-1, 7, QuotaMode::Enforce)),
            (
                "memory_bytes".into(),
                quota(4 << 20, 1 << 20, QuotaMode::Enforce),
            ),
            (
                "operations_per_minute".into(),
                QuotaUsage {
                    reset_time: time(NOW + 30),
                    ..quota(600, 60, QuotaMode::Shadow)
                },
            ),
        ]),
        points: (0..10).rev().map(point).collect(),
        as_of: time(NOW),
    }
}

fn run(folder: &Folder, server: &StandIn, arguments: &[&str]) -> Ran {
    let to = ["--address", &server.address, "--key", "some-key"];
    folder.run(&[arguments, &to].concat())
}

#[test]
fn usage_is_a_table_of_quotas_one_of_totals_and_a_plot() {
    let server = StandIn::start(Script {
        usage: usage(),
        ..Script::default()
    });
    let folder = Folder::new();
    let ran = run(&folder, &server, &["tenant", "usage", "acme"]).ok();
    let words: Vec<Vec<&str>> = ran
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected: [&[&str]; 5] = [
        &["QUOTA", "USED", "LIMIT", "REMAINING", "%", "RESETS", "MODE"],
        &[
            "memory_bytes",
            "1",
            "MiB",
            "4",
            "MiB",
            "3",
            "MiB",
            "25",
            "%",
            "ENFORCE",
        ],
        &["cache_entries", "7", "unlimited", "ENFORCE"],
        &[
            "operations_per_minute",
            "60",
            "600",
            "540",
            "10",
            "%",
            "2026-11-24T10:01:00Z",
            "SHADOW",
        ],
        &["pages_rendered", "42", "100", "58", "42", "%", "WARN"],
    ];
    assert_eq!(&words[..5], expected, "{}", ran.text());
    for line in [
        &["operations", "1,234,567", "1,234,567"][..],
        &["bytes_in", "1.5", "KiB", "1,536"],
        &["memory_byte_seconds", "1", "GiB-hours", "3,865,470,566,400"],
        &["pages_rendered", "42", "42"],
    ] {
        assert!(
            words.iter().any(|words| words == line),
            "{line:?}: {}",
            ran.text()
        );
    }
    // No locale: ASCII.
    assert!(ran.text().is_ascii());
    let plot = ran
        .text()
        .lines()
        .skip_while(|line| !line.starts_with("operations  55"));
    let plot: Vec<_> = plot.collect();
    assert_eq!(plot[0], "operations  55 in all, at most 10 in a column");
    assert_eq!(plot[1], ".:-==+*#@@");
    assert_eq!(plot[2], "hit rate  75.0 % in all");
    assert_eq!(plot[3], "**********");
    // Half of the last minute has passed.
    assert_eq!(plot[6], "memory  at most 2 MiB on average over a column");
    assert_eq!(
        plot[8],
        "A column is a minute; 2026-11-24T09:51:00Z to 2026-11-24T10:00:00Z"
    );

    let mut unicode = folder.command(&["tenant", "usage", "acme", "--key", "k"]);
    unicode
        .env("LANG", "C.UTF-8")
        .args(["--address", &server.address]);
    let ran = Ran::from(unicode.output().unwrap()).ok();
    assert!(ran.text().contains('█'), "{}", ran.text());

    let json = run(&folder, &server, &["tenant", "usage", "acme", "-o", "json"]);
    let json = json.ok().json();
    assert_eq!(json["quotas"]["memory_bytes"]["remaining"], 3 << 20);
    assert_eq!(json["quotas"]["pages_rendered"]["mode"], "WARN");
    assert_eq!(json["usage"]["custom"]["pages_rendered"], 42);
    assert_eq!(json["granularity"], "MINUTE");
    assert_eq!(json["points"].as_array().unwrap().len(), 10);
    assert_eq!(json["points"][9]["operations"], 10);
    assert_eq!(json["as_of"], "2026-11-24T10:00:30Z");
}

#[test]
fn the_span_of_usage_is_asked_for_by_the_servers_clock() {
    let server = StandIn::start(Script {
        usage: usage(),
        ..Script::default()
    });
    let folder = Folder::new();
    let asked = |arguments: &[&str]| {
        run(
            &folder,
            &server,
            &[&["tenant", "usage", "acme"], arguments].concat(),
        )
        .ok();
        let mut asked = server.script.usage_asked.lock().unwrap();
        let last = asked.pop().unwrap();
        asked.clear();
        let seconds = |time: Option<Timestamp>| time.map(|time| time.seconds);
        (
            last.granularity(),
            seconds(last.start_time),
            seconds(last.end_time),
        )
    };
    use UsageGranularity::{Day, Hour, Minute};
    assert_eq!(asked(&[]), (Minute, None, None));
    assert_eq!(asked(&["--by", "day"]), (Day, None, None));
    assert_eq!(asked(&["--since", "2h"]), (Minute, Some(NOW - 7200), None));
    assert_eq!(asked(&["--since", "2d"]), (Hour, Some(NOW - 172_800), None));
    assert_eq!(
        asked(&["--since", "2d", "--by", "minute"]),
        (Minute, Some(NOW - 172_800), None)
    );
    let day = 1_795_478_400;
    assert_eq!(asked(&["--from", "2026-11-24"]), (Hour, Some(day), None));
    assert_eq!(
        asked(&["--from", "2026-11-01", "--to", "2026-11-24T00:00:00Z"]),
        (Day, Some(day - 23 * 86_400), Some(day))
    );
    for wrong in [
        &["--since", "2"][..],
        &["--since", "2h", "--from", "2026-11-24"],
        &["--since", "2h", "--to", "2026-11-24"],
        &["--from", "yesterday"],
        &["--by", "week"],
    ] {
        let ran = run(&folder, &server, &[&["tenant", "usage"], wrong].concat());
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
    }
}

#[test]
fn a_bill_is_exact_to_the_micro() {
    let line = StatementLine {
        metric: "memory_byte_seconds".into(),
        quantity: 5_798_205_849_600,
        included: 3_865_470_566_400,
        unit_price_micros: 12_345,
        amount_micros: 6173,
        unit: 3_865_470_566_400,
        plan: "basic".into(),
        start_time: time(1_793_491_200),
        end_time: time(1_796_083_200),
    };
    let fee = StatementLine {
        metric: "base_fee".into(),
        quantity: 2_592_000_000,
        included: 0,
        unit: 2_592_000_000,
        unit_price_micros: 9_007_199_254_740_993,
        amount_micros: 9_007_199_254_740_993,
        ..line.clone()
    };
    let open = Statement {
        tenant_id: "acme".into(),
        period: "2026-11".into(),
        lines: vec![fee, line],
        total_micros: 9_007_199_254_747_166,
        projected_total_micros: 9_007_199_260_000_000,
        currency: "EUR".into(),
        ..Statement::default()
    };
    let closed = Statement {
        period: "2026-10".into(),
        lines: Vec::new(),
        total_micros: 100_000,
        closed: true,
        close_time: time(1_793_491_800),
        ..open.clone()
    };
    let server = StandIn::start(Script {
        billing: GetTenantBillingResponse {
            statement: Some(open),
            previous: vec![closed],
        },
        ..Script::default()
    });
    let folder = Folder::new();
    let ran = run(&folder, &server, &["tenant", "billing", "acme"]).ok();
    let words: Vec<_> = ran
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "total 9,007,199,254.747166 EUR",
        "projected_total 9,007,199,260.00 EUR",
        "state open",
        "basic 2026-11-01T00:00:00Z base_fee 30days 2,592,000,000 0s 9,007,199,254.740993 / period 9,007,199,254.740993 EUR",
        "basic 2026-11-01T00:00:00Z memory_byte_seconds 1.5 GiB-hours 5,798,205,849,600 1 GiB-hours 0.012345 / GiB-hour 0.006173 EUR",
        "2026-10 0.10 EUR 2026-11-01T00:10:00Z",
    ] {
        assert!(
            words.iter().any(|words| words == line),
            "{line}: {}",
            ran.text()
        );
    }
    let json = run(
        &folder,
        &server,
        &["tenant", "billing", "acme", "-o", "json"],
    );
    let json = json.ok().json();
    let statement = &json["statement"];
    assert_eq!(statement["total_micros"], 9_007_199_254_747_166_i64);
    assert_eq!(statement["lines"][1]["amount_micros"], 6173);
    assert_eq!(json["previous"][0]["closed"], true);
}

#[test]
fn a_quota_check_answers_with_its_exit_code() {
    let allowed = CheckQuotaResponse {
        allowed: true,
        limit: 1000,
        used: 990,
        remaining: 10,
        retry_after: None,
        mode: QuotaMode::Enforce.into(),
    };
    let folder = Folder::new();
    let server = StandIn::start(Script {
        check: allowed,
        ..Script::default()
    });
    let check = ["quota", "check", "acme", "pages_rendered"];
    let answer = run(&folder, &server, &[&check[..], &["-o", "json"]].concat());
    assert_eq!(
        answer.ok().json(),
        json!({
            "metric": "pages_rendered", "amount": 1, "allowed": true, "limit": 1000,
            "used": 990, "remaining": 10, "retry_after": null, "mode": "ENFORCE",
        })
    );
    run(
        &folder,
        &server,
        &[&check[..], &["--amount", "7", "--consume"]].concat(),
    )
    .ok();
    run(&folder, &server, &[&check[..], &["--release"]].concat()).ok();
    run(
        &folder,
        &server,
        &["quota", "check", "seats", "--tenant", "other"],
    )
    .ok();
    let asked: Vec<_> = server.script.checks.lock().unwrap().drain(..).collect();
    let asked: Vec<_> = asked
        .iter()
        .map(|check| {
            (
                check.tenant_id.as_str(),
                check.metric.as_str(),
                check.amount,
                check.mode(),
            )
        })
        .collect();
    use CheckQuotaMode::{Consume, Peek, Release};
    assert_eq!(
        asked,
        [
            ("acme", "pages_rendered", 1, Peek),
            ("acme", "pages_rendered", 7, Consume),
            ("acme", "pages_rendered", 1, Release),
            ("other", "seats", 1, Peek),
        ]
    );
    for wrong in [
        &["--consume", "--release"][..],
        &["--amount", "0"],
        &["--amount", "-1"],
        &["--amount", "9223372036854775808"],
    ] {
        assert_eq!(run(&folder, &server, &[&check[..], wrong].concat()).code, 2);
    }

    let server = StandIn::start(Script {
        check: CheckQuotaResponse {
            allowed: false,
            remaining: 0,
            used: 1000,
            retry_after: Some(Span {
                seconds: 1,
                nanos: 500_000_000,
            }),
            ..allowed
        },
        ..Script::default()
    });
    let refused = run(&folder, &server, &check);
    assert_eq!((refused.code, refused.stderr.as_str()), (1, ""));
    for line in [
        "allowed      false",
        "used         1000",
        "retry_after  1.500s",
    ] {
        assert!(refused.text().contains(line), "{line}: {}", refused.text());
    }
}

#[test]
fn quotas_are_set_one_by_one() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.json(&[
        "tenant",
        "create",
        "acme",
        "--quota",
        "seats=3",
        "--quota",
        "cache_entries=9",
    ]);
    let set = |quotas: &[&str]| {
        let set = serving.json(&[&["quota", "set", "acme"], quotas].concat());
        set["tenant"]["quotas"].clone()
    };
    let quotas = set(&["memory_bytes=2GiB:warn", "pages_rendered=1000/1h"]);
    assert_eq!(
        quotas,
        json!({
            "memory_bytes": 2_i64 << 30,
            "cache_entries": 9,
            "custom": {
                "pages_rendered": {"limit": 1000, "window": "3600s"},
                "seats": {"limit": 3, "window": null},
            },
            "modes": {"memory_bytes": "WARN"},
        })
    );
    let quotas = set(&[
        "memory_bytes=default",
        "seats=default",
        "cache_entries=-1",
        "pages_rendered=:shadow",
    ]);
    assert_eq!(
        quotas,
        json!({
            "cache_entries": -1,
            "custom": {"pages_rendered": {"limit": 1000, "window": "3600s"}},
            "modes": {"pages_rendered": "SHADOW"},
        })
    );
    let table = serving.run(&["quota", "set", "--tenant", "acme", "cache_entries=1000"]);
    let words: Vec<_> = table.text().split_whitespace().collect();
    assert_eq!(
        words,
        [
            "METRIC",
            "BEFORE",
            "NOW",
            "MODE",
            "cache_entries",
            "unlimited",
            "1,000",
            "ENFORCE"
        ]
    );

    let before = serving.json(&["tenant", "get", "acme"]);
    serving
        .run(&["quota", "set", "acme", "cache_entries=5", "--etag", "stale"])
        .refused(1, "(ETAG_MISMATCH)");
    serving
        .run(&["quota", "set", "nobody", "cache_entries=5"])
        .refused(3, "(TENANT_NOT_FOUND)");
    serving.json(&["quota", "set", "acme", "cache_entries=5", "--validate-only"]);
    for wrong in [
        &["acme"][..],
        &["acme", "other", "cache_entries=5"],
        &["acme", "cache_entries=5", "cache_entries=:warn"],
        &["acme", "cache_entry=5"],
        &["acme", "memory_bytes=lots"],
        &["acme", "memory_bytes=1GiB:maybe"],
        &["acme", "operations_per_minute=5/1h"],
        &[],
    ] {
        let ran = serving.run(&[&["quota", "set"], wrong].concat());
        assert_eq!(ran.code, 2, "{wrong:?}: {ran:?}");
        assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    }
    assert_eq!(serving.json(&["tenant", "get", "acme"]), before);
    // A retry is the same request, although the tenant has another etag by then.
    let request = ["--request-id", "7c9a1c1e-4b7d-4c6e-9f0a-3f8f2f1f0b5a"];
    let set = [&["quota", "set", "acme", "cache_entries=6"], &request[..]].concat();
    assert_eq!(serving.json(&set), serving.json(&set));
}

#[test]
fn what_a_tenant_did_is_told_by_the_server_it_did_it_at() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.json(&["tenant", "create", "acme", "--quota", "cache_entries=4"]);
    let cache =
        |arguments: &[&str]| serving.run(&[&["cache", "--tenant", "acme"], arguments].concat());
    cache(&["set", "k", "0123456789"]).ok();
    for _ in 0..3 {
        cache(&["get", "k"]).ok();
    }
    cache(&["get", "none"]).refused(3, "(MISS)");
    // Reads are counted within a second or so.
    let usage = ["tenant", "usage", "acme", "--since", "10m"];
    let begun = std::time::Instant::now();
    let told = loop {
        let told = serving.json(&usage);
        if told["usage"]["operations"] == 5 {
            break told;
        }
        assert!(begun.elapsed().as_secs() < 60, "{told}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    };
    assert_eq!(told["usage"]["hits"], 3);
    assert_eq!(told["usage"]["misses"], 1);
    assert_eq!(told["usage"]["cache_entries"], 1);
    assert_eq!(told["quotas"]["cache_entries"]["used"], 1);
    assert_eq!(told["quotas"]["cache_entries"]["remaining"], 3);
    let points = told["points"].as_array().unwrap();
    let operations: i64 = points
        .iter()
        .map(|point| point["operations"].as_i64().unwrap())
        .sum();
    assert_eq!(
        (operations, told["granularity"].as_str()),
        (5, Some("MINUTE"))
    );
    let table = serving.run(&usage).ok();
    assert!(
        table.text().contains("\noperations  5 in all, at most "),
        "{}",
        table.text()
    );
    assert!(
        table.text().contains("\nhit rate  75.0 % in all\n"),
        "{}",
        table.text()
    );
    let table = serving
        .run(&["tenant", "usage", "acme", "--by", "day"])
        .ok();
    assert!(
        table.text().contains("A column is a day; "),
        "{}",
        table.text()
    );
    serving
        .run(&["tenant", "usage", "acme", "--from", "1999-01-01"])
        .refused(1, "(VALIDATION_FAILED)");
    serving
        .run(&["tenant", "usage", "nobody"])
        .refused(3, "(TENANT_NOT_FOUND)");
}

#[test]
fn a_platform_limits_its_own_metrics() {
    let folder = Folder::new();
    let serving = folder.serve(&["--ephemeral"]);
    serving.json(&["tenant", "create", "acme"]);
    serving
        .run(&["quota", "set", "acme", "seats=2", "pages_rendered=3/1h"])
        .ok();
    let check = |arguments: &[&str]| {
        serving.run(&[&["quota", "check", "acme"], arguments, &["-o", "json"]].concat())
    };
    for used in [1, 2] {
        let taken = check(&["seats", "--consume"]).ok().json();
        assert_eq!((&taken["used"], &taken["limit"]), (&json!(used), &json!(2)));
    }
    let full = check(&["seats", "--consume"]);
    assert_eq!((full.code, full.json()["remaining"].as_i64()), (1, Some(0)));
    assert!(
        full.json()["retry_after"].is_null(),
        "time alone does not help"
    );
    check(&["seats", "--release"]).ok();
    check(&["seats"]).ok();
    assert_eq!(check(&["seats", "--amount", "2"]).code, 1);

    check(&["pages_rendered", "--consume", "--amount", "3"]).ok();
    let spent = check(&["pages_rendered", "--consume"]);
    assert_eq!(spent.code, 1);
    assert!(spent.json()["retry_after"].is_string(), "{spent:?}");
    let unknown = serving.run(&["quota", "check", "acme", "pages_rendred"]);
    unknown.refused(1, "(VALIDATION_FAILED)");
    serving
        .run(&["quota", "check", "acme", "memory_bytes", "--consume"])
        .refused(1, "(VALIDATION_FAILED)");
}
