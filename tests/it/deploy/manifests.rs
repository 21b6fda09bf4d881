//! What is deployed names what the service has: its settings, ports and times; and what
//! manifests name of each other is there. They are looked at as Kubernetes gets them, by
//! way of kustomize; no cluster is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use riptide_persistence::config::{self, Config, Loaded, Sources};
use serde_json::Value;

use super::{deploy, documents, parsed, ran, read, tool};

const OVERLAYS: [&str; 3] = ["overlays/redis", "overlays/sentinel", "overlays/cluster"];

/// What a folder comes to.
fn rendered(folder: &str) -> String {
    ran(tool("kubectl")
        .arg("kustomize")
        .arg(deploy("kustomize").join(folder)))
}

fn resources(folder: &str) -> Vec<Value> {
    parsed(&rendered(folder))
}

#[test]
fn manifests_are_of_the_schemas_of_kubernetes() {
    for overlay in OVERLAYS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("rendered.yaml");
        std::fs::write(&file, rendered(overlay)).unwrap();
        let said = ran(tool("python")
            .args(["-m", "kubernetes_validate", "--strict"])
            .arg(file));
        let passed = said.lines().filter(|line| line.contains(" passed for "));
        assert_eq!(passed.count(), resources(overlay).len(), "{said}");
    }
}

/// Every string in a document.
fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|value| strings(value, found)),
        Value::Object(all) => {
            found.extend(all.keys().cloned());
            all.values().for_each(|value| strings(value, found));
        }
        _ => {}
    }
}

#[test]
fn every_variable_is_a_setting() {
    let mut texts = vec![
        read("docker/Dockerfile"),
        read("systemd/riptide-persistence.service"),
    ];
    let mut all = documents("compose/compose.yaml");
    for overlay in OVERLAYS {
        all.extend(resources(overlay));
    }
    for document in &all {
        strings(document, &mut texts);
    }
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let names: BTreeSet<String> = texts
        .iter()
        .flat_map(|text| text.split(|c| !is_name(c)))
        .filter(|word| word.starts_with("PERSISTENCE_"))
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 8, "{names:?}");
    let known: BTreeSet<String> = loaded("persistence: {}")
        .settings
        .iter()
        .flat_map(|setting| {
            let name = setting.path.replace('.', "__").to_uppercase();
            [
                format!("PERSISTENCE_{name}"),
                format!("PERSISTENCE_{name}_FILE"),
            ]
        })
        .chain(["PERSISTENCE_CONFIG".to_owned()])
        .collect();
    let unknown: Vec<_> = names.difference(&known).collect();
    assert_eq!(unknown, Vec::<&String>::new());
}

#[test]
fn references_lead_somewhere() {
    for overlay in OVERLAYS {
        let all = resources(overlay);
        let of = |kind: &str| -> Vec<&Value> {
            all.iter()
                .filter(|document| document["kind"] == kind)
                .collect()
        };
        let has =
            |kind: &str, name: &Value| of(kind).iter().any(|it| it["metadata"]["name"] == *name);
        for document in &all {
            if document["kind"] != "Namespace" {
                assert_eq!(document["metadata"]["namespace"], "riptide", "{document}");
            }
        }
        let deployment = of("Deployment")[0];
        let template = &deployment["spec"]["template"];
        let labels = template["metadata"]["labels"].as_object().unwrap();
        let pod = &template["spec"];
        let container = &pod["containers"][0];
        assert!(has("ServiceAccount", &pod["serviceAccountName"]));
        for from in container["envFrom"].as_array().unwrap() {
            assert!(
                has("ConfigMap", &from["configMapRef"]["name"]),
                "{overlay}: {from}"
            );
        }
        let volumes = pod["volumes"].as_array().unwrap();
        for volume in volumes {
            if let Some(map) = volume.get("configMap") {
                assert!(has("ConfigMap", &map["name"]));
            }
        }
        for mount in container["volumeMounts"].as_array().unwrap() {
            assert!(
                volumes.iter().any(|volume| volume["name"] == mount["name"]),
                "{mount}"
            );
        }
        let selects = |selector: &Value| {
            let selector = selector.as_object().unwrap();
            selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        };
        assert!(selects(&deployment["spec"]["selector"]["matchLabels"]));
        let image = container["image"].as_str().unwrap();
        assert_eq!(
            image,
            concat!("riptide-persistence:", env!("CARGO_PKG_VERSION"))
        );
        for kind in ["PodDisruptionBudget", "Service", "NetworkPolicy"] {
            let own = of(kind);
            let own = own
                .iter()
                .find(|it| it["metadata"]["name"] == "riptide-persistence")
                .unwrap();
            let selector = match kind {
                "Service" => &own["spec"]["selector"],
                "NetworkPolicy" => &own["spec"]["podSelector"]["matchLabels"],
                _ => &own["spec"]["selector"]["matchLabels"],
            };
            assert!(selects(selector), "{kind}");
        }
        let scaled = &of("HorizontalPodAutoscaler")[0]["spec"]["scaleTargetRef"]["name"];
        assert!(has("Deployment", scaled));
    }
}

/// The file of settings that is shipped is one, and the pods outlast its drain.
#[test]
fn the_settings_are_read_and_the_pods_outlast_the_drain() {
    let all = resources("overlays/redis");
    let map = all
        .iter()
        .find(|document| document["data"].get("persistence.yml").is_some())
        .unwrap();
    let text = map["data"]["persistence.yml"].as_str().unwrap();
    let config = loaded(text).config;
    let pod = all
        .iter()
        .find(|document| document["kind"] == "Deployment")
        .map(|deployment| &deployment["spec"]["template"]["spec"])
        .unwrap();
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(Duration::from_secs(grace) > config.drain.delay + config.drain.timeout);
    let ports: Vec<u64> = pod["containers"][0]["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| port["containerPort"].as_u64().unwrap())
        .collect();
    assert_eq!(
        ports,
        [
            config.server.listen.port(),
            config.server.admin_listen.port()
        ]
        .map(u64::from)
    );
    let user = pod["securityContext"]["runAsUser"].as_u64().unwrap();
    assert!(read("docker/Dockerfile").contains(&format!("USER {user}:{user}")));

    let defaults = Config::defaults();
    let unit = read("systemd/riptide-persistence.service");
    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .unwrap();
    let stop: u64 = stop.trim_end_matches('s').parse().unwrap();
    assert!(Duration::from_secs(stop) > defaults.drain.delay + defaults.drain.timeout);
    let exposed = format!(
        "EXPOSE {} {}",
        defaults.server.listen.port(),
        defaults.server.admin_listen.port()
    );
    assert!(read("docker/Dockerfile").contains(&exposed));
}

/// Every pod is as the Pod Security Standard `restricted` wants it, and its file system
/// cannot be written.
#[test]
fn pods_may_do_nothing_that_they_need_not() {
    let all = resources("overlays/redis");
    let pods = all.iter().filter_map(|document| {
        let pod = &document["spec"]["template"]["spec"];
        pod.is_object().then_some((&document["kind"], pod))
    });
    let pods: Vec<_> = pods.collect();
    assert_eq!(pods.len(), 2);
    for (kind, pod) in pods {
        let security = &pod["securityContext"];
        assert_eq!(security["runAsNonRoot"], true, "{kind}");
        assert!(security["runAsUser"].as_u64().unwrap() > 0, "{kind}");
        assert_eq!(
            security["seccompProfile"]["type"], "RuntimeDefault",
            "{kind}"
        );
        assert_eq!(pod["automountServiceAccountToken"], false, "{kind}");
        assert_eq!(pod["enableServiceLinks"], false, "{kind}");
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false, "{kind}");
            assert_eq!(security["readOnlyRootFilesystem"], true, "{kind}");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert!(container["readinessProbe"].is_object(), "{kind}");
        }
    }
    let denies = all.iter().any(|document| {
        document["kind"] == "NetworkPolicy"
            && document["spec"]["podSelector"] == serde_json::json!({})
    });
    assert!(denies, "what no policy allows is allowed");
}

#[test]
fn the_operator_of_prometheus_gets_the_same_alerts() {
    let all = resources("monitoring");
    let rules = all
        .iter()
        .find(|document| document["kind"] == "PrometheusRule");
    let alerts = &documents("prometheus/alerts.yaml")[0];
    assert_eq!(rules.unwrap()["spec"]["groups"], alerts["groups"]);
    let monitor = all
        .iter()
        .find(|document| document["kind"] == "ServiceMonitor");
    let monitor = &monitor.unwrap()["spec"];
    let service = resources("overlays/redis")
        .into_iter()
        .find(|document| {
            document["kind"] == "Service" && document["metadata"]["name"] == "riptide-persistence"
        })
        .unwrap();
    // The alerts and the dashboard ask for the job of this name.
    let label = monitor["jobLabel"].as_str().unwrap();
    assert_eq!(service["metadata"]["labels"][label], "riptide-persistence");
    let port = &monitor["endpoints"][0]["port"];
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert!(ports.iter().any(|it| it["name"] == *port));
}

/// Settings as a server in that pod reads them.
fn loaded(text: &str) -> Loaded {
    let read = |_: &Path| Ok(text.to_owned());
    let url = ("PERSISTENCE_REDIS__URL", "redis://redis:6379");
    let sources = Sources {
        file: Some("persistence.yml".into()),
        env: BTreeMap::from([url].map(|(name, value)| (name.to_owned(), value.to_owned()))),
        flags: Vec::new(),
        read: &read,
    };
    config::load(&sources).unwrap()
}
