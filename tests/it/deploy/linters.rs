//! The linters of each kind of file. They know nothing of the service.

use super::{deploy, ran, tool};

#[test]
fn the_image_is_as_hadolint_wants_it() {
    ran(tool("hadolint")
        .args(["--failure-threshold", "style"])
        .arg(deploy("docker/Dockerfile")));
}

#[test]
fn the_composition_is_of_its_schema() {
    ran(tool("python")
        .args(["-m", "check_jsonschema"])
        .args(["--builtin-schema", "vendor.compose-spec"])
        .arg(deploy("compose/compose.yaml")));
}

#[test]
fn alerts_fire_when_they_should_and_not_before() {
    let folder = deploy("prometheus");
    let promtool = || {
        let mut promtool = tool("promtool");
        promtool.current_dir(&folder);
        promtool
    };
    ran(promtool().args(["check", "config", "prometheus.yml"]));
    ran(promtool().args(["test", "rules", "alerts_test.yaml"]));
}

/// Each alert has a test of its own, and leads to a section of the runbook.
#[test]
fn each_alert_is_tested() {
    let rules = super::documents("prometheus/alerts.yaml");
    let tests = super::documents("prometheus/alerts_test.yaml");
    let tested: Vec<&str> = tests[0]["tests"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|test| test["alert_rule_test"].as_array().unwrap())
        .filter(|test| test.get("exp_alerts").is_some())
        .map(|test| test["alertname"].as_str().unwrap())
        .collect();
    let alerts = rules[0]["groups"][0]["rules"].as_array().unwrap();
    assert!(alerts.len() >= 12);
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(tested.contains(&name), "{name} has no test");
        let anchor = format!("docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], anchor);
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
    }
}
