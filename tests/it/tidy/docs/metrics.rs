//! The table of metrics is made of the one in the code. That a live server exposes these
//! and no others, `process::metrics` tests.

use std::fmt::Write;

use riptide_persistence::metrics::FAMILIES;

use super::agrees;

/// What is said before the table.
const HEAD: &str = "\
# Metrics

`GET /metrics` of `server.admin_listen` (127.0.0.1:9464) tells them, as OpenMetrics to who asks for it by
`Accept: application/openmetrics-text`, as Prometheus does, and else in Prometheus' older text format. No key is
asked for. Figures are those of the replica that is asked, since its process began; sum them over replicas.

What is labelled `tenant` is told by name of the tenants that call most at the replica, `metrics.tenants` of them
(20), and of all others together as `other`; so the size of an answer does not grow with the number of tenants.
A tenant's counters begin at 0 when it comes to be among those, and end when another takes its place; what it
does before and after counts in `other`. With `metrics.tenants: 0` all tenants are `other`. Figures of tenants,
caches and limits are as of the last flush of usage, a second ago at most.

Buckets of histograms are in steps of 1, 2 and 5, from 50 microseconds to 10 seconds; those of checkpoints are a
thousand times as wide.

";

#[test]
fn every_metric_is_documented() {
    let mut document = HEAD.to_owned();
    document.push_str("| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for family in FAMILIES {
        let labels: Vec<_> = family.labels.iter().map(|l| format!("`{l}`")).collect();
        writeln!(
            document,
            "| `{}` | {} | {} | {} | {} |",
            family.name,
            family.kind.name(),
            labels.join(", "),
            family.unit,
            family.help,
        )
        .unwrap();
    }
    let made_of = "src/metrics/family.rs";
    agrees(
        "docs/metrics.md",
        &document,
        made_of,
        "every_metric_is_documented",
    );
}
