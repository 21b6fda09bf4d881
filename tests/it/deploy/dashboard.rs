//! The dashboard's form: what Grafana would take and draw badly. Whether its expressions
//! have answers is seen in `prometheus`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{documents, read, root};

/// Where the dashboard is.
const FILE: &str = "grafana/riptide-persistence.json";

/// A question of a panel.
pub(super) struct Target {
    /// The panel's title, and the letter of the question.
    pub(super) name: String,
    pub(super) expression: String,
}

fn dashboard() -> Value {
    serde_json::from_str(&read(FILE)).unwrap()
}

/// All panels, rows too.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let all = dashboard["panels"].as_array().unwrap();
    // A row that is collapsed holds its panels itself.
    let inner = all.iter().filter_map(|panel| panel["panels"].as_array());
    all.iter().chain(inner.flatten()).collect()
}

/// Every question of every panel.
pub(super) fn targets() -> Vec<Target> {
    let dashboard = dashboard();
    let mut targets = Vec::new();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap();
            targets.push(Target {
                name: format!("{title} ({})", target["refId"].as_str().unwrap()),
                expression: target["expr"].as_str().unwrap().to_owned(),
            });
        }
    }
    targets
}

/// The metrics that an expression asks for, without what a histogram puts behind its name.
pub(super) fn metrics(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let ours = ["riptide_", "grpc_server_", "process_"];
    // What stands in quotes is a label's value.
    let outside = expression.split('"').step_by(2);
    outside
        .flat_map(|part| part.split(|c| !is_name(c)))
        .filter(|word| ours.iter().any(|ours| word.starts_with(ours)))
        .map(|word| {
            let of_histogram = ["_bucket", "_sum", "_count"];
            let base = of_histogram.iter().find_map(|end| word.strip_suffix(end));
            base.unwrap_or(word).to_owned()
        })
        .collect()
}

/// The metrics that docs/metrics.md tells of.
fn documented() -> BTreeSet<String> {
    let table = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn its_form_is_sound() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|it| it["type"] == "datasource"));
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty());
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is too wide");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(unit.is_some_and(|unit| !unit.is_empty()), "{title}: a unit");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{title} asks nothing");
        for asking in targets.iter().chain([panel]) {
            let source = &asking["datasource"]["uid"];
            assert_eq!(source, "${datasource}", "{title}");
        }
        for target in targets {
            let expression = target["expr"].as_str().unwrap();
            assert!(
                expression.contains(r#"job="riptide-persistence", instance=~"$instance""#),
                "{title}: replicas that are chosen: {expression}"
            );
            let legend = target["legendFormat"].as_str();
            assert!(legend.is_some_and(|it| !it.is_empty()), "{title}");
        }
    }
    assert!(ids.len() > 30);
}

/// What dashboard and alerts ask for is documented; and what is documented is seen, but for
/// figures of TLS: the service whose panels are looked at speaks none.
#[test]
fn metrics_are_those_of_the_documents() {
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    let shown: BTreeSet<String> = targets()
        .iter()
        .flat_map(|target| metrics(&target.expression))
        .collect();
    let unknown: Vec<_> = shown.difference(&documented).collect();
    assert_eq!(unknown, Vec::<&String>::new(), "the dashboard asks for");
    let unseen: Vec<_> = documented
        .difference(&shown)
        .filter(|metric| !metric.starts_with("riptide_tls_"))
        .collect();
    assert_eq!(unseen, Vec::<&String>::new(), "no panel shows");

    let rules = documents("prometheus/alerts.yaml");
    for alert in rules[0]["groups"][0]["rules"].as_array().unwrap() {
        let asked = metrics(alert["expr"].as_str().unwrap());
        let unknown: Vec<_> = asked.difference(&documented).collect();
        assert_eq!(
            unknown,
            Vec::<&String>::new(),
            "{} asks for",
            alert["alert"]
        );
    }
}
