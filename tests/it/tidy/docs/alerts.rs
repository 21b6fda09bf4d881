//! Each alert has a section in the runbook, and leads to it. It does not know when
//! one fires.

use std::collections::BTreeSet;

use super::{
    super::{none, source::read},
    links::{anchors_of, slug},
};

const ALERTS: &str = "deploy/prometheus/alerts.yaml";
const RUNBOOK: &str = "docs/runbook.md";

#[test]
fn every_alert_has_a_section_in_the_runbook() {
    let rules = read(ALERTS);
    let of = |key: &str| -> Vec<String> {
        let lines = rules.lines().filter_map(|line| {
            let line = line.trim_start().trim_start_matches("- ");
            line.strip_prefix(key).map(|value| value.trim().to_owned())
        });
        lines.collect()
    };
    let (alerts, links) = (of("alert:"), of("runbook_url:"));
    assert!(alerts.len() >= 10, "{} alerts in {ALERTS}", alerts.len());
    let expected: Vec<String> = alerts
        .iter()
        .map(|alert| format!("{RUNBOOK}#{}", slug(alert)))
        .collect();
    assert_eq!(links, expected, "each alert leads to its section");

    let runbook = read(RUNBOOK);
    let anchors = anchors_of(&runbook);
    none(
        alerts
            .iter()
            .filter(|alert| !anchors.contains(&slug(alert)))
            .cloned(),
        "write a section for these alerts in docs/runbook.md",
    );
    let alerts: BTreeSet<&str> = alerts.iter().map(String::as_str).collect();
    let told = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Riptide"));
    none(
        told.map(|name| format!("Riptide{name}"))
            .filter(|name| !alerts.contains(name.as_str())),
        "docs/runbook.md explains alerts that are not in deploy/prometheus/alerts.yaml",
    );
}
