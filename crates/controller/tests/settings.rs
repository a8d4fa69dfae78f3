//! Settings of pods: by a migration, by the controller, for one end or both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;

use controller::{
    api::{
        DirectVolumeMigration, ENDPOINT_FIELDS, POD_FIELDS, PodDefaults, definitions,
        privileged_table,
    },
    build::{self, Address, Defaults, Names, Role},
    plan, render,
};
use k8s_openapi::api::{
    core::v1::{Pod, PodSpec},
    networking::v1::NetworkPolicy,
};
use serde_json::{Value, json};

fn migration(pods: Value) -> DirectVolumeMigration {
    serde_json::from_value(json!({
        "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
        "metadata": { "name": "shop", "namespace": "home", "uid": "0123456789" },
        "spec": {
            "source": { "namespace": "a" }, "destination": { "namespace": "b" },
            "volumes": [{ "name": "data" }], "pods": pods,
        },
    }))
    .unwrap()
}

fn defaults(file: &str) -> Defaults {
    let pods = PodDefaults::parse(file).unwrap();
    Defaults { image: "pvferry:1".into(), allow_privileged_fields: false, pods }
}

/// The source pod and the destination pod.
fn pods(pods: Value, defaults: &Defaults) -> [Pod; 2] {
    let migration = migration(pods);
    let volumes = plan::volumes(&migration.spec);
    let chosen: Vec<_> = volumes.iter().collect();
    let names = Names::new(&migration, 1, 1, "secret");
    let address = Address { host: "10.0.0.7".into(), port: build::PORT };
    [
        build::source_pod(&migration, defaults, &names, &chosen, &address, None),
        build::destination_pod(&migration, defaults, &names, &chosen),
    ]
}

fn of_both<T>(pods: &[Pod; 2], field: impl Fn(&PodSpec) -> T) -> [T; 2] {
    [0, 1].map(|end| field(pods[end].spec.as_ref().unwrap()))
}

fn image(spec: &PodSpec) -> String {
    spec.containers[0].image.clone().unwrap()
}

const FILE: &str = "
imagePullSecrets: [{name: registry}]
tolerations: [{key: storage, operator: Exists}]
priorityClassName: low
serviceAccountName: mover
seLinuxOptions: {type: spc_t}
resources: {limits: {cpu: '1', memory: 1Gi}}
nodeSelector: {disk: fast}
labels: {team: storage}
destination: {image: 'far.example/pvferry:1'}
";

#[test]
fn defaults_of_the_controller_are_in_the_pods_of_both_ends() {
    let pods = pods(json!({}), &defaults(FILE));
    let secrets = of_both(&pods, |s| s.image_pull_secrets.clone().unwrap()[0].name.clone());
    assert_eq!(secrets, ["registry", "registry"]);
    let tolerations = of_both(&pods, |s| s.tolerations.clone().unwrap()[0].key.clone().unwrap());
    assert_eq!(tolerations, ["storage", "storage"]);
    assert_eq!(of_both(&pods, |s| s.priority_class_name.clone().unwrap()), ["low", "low"]);
    assert_eq!(of_both(&pods, |s| s.service_account_name.clone().unwrap()), ["mover", "mover"]);
    let types = of_both(&pods, |s| {
        s.security_context.clone().unwrap().se_linux_options.unwrap().type_.unwrap()
    });
    assert_eq!(types, ["spc_t", "spc_t"]);
    let limits = of_both(&pods, |s| {
        s.containers
            .iter()
            .all(|c| c.resources.clone().unwrap().limits.unwrap().get("cpu").unwrap().0 == "1")
    });
    assert_eq!(limits, [true, true]);
    assert_eq!(of_both(&pods, |s| s.node_selector.clone().unwrap()["disk"].clone()), ["fast"; 2]);
    assert_eq!(of_both(&pods, image), ["pvferry:1", "far.example/pvferry:1"]);
    for pod in pods {
        assert_eq!(pod.metadata.labels.unwrap()["team"], "storage");
        assert_eq!(pod.spec.unwrap().automount_service_account_token, Some(false));
    }
}

#[test]
fn what_is_set_closer_to_the_pod_wins() {
    let all = json!({
        "image": "general", "nodeSelector": { "zone": "a" },
        "source": { "nodeSelector": { "zone": "b" } },
    });
    let pods = pods(all, &defaults(FILE));
    assert_eq!(of_both(&pods, image), ["general", "general"], "before the default of one end");
    let zones = of_both(&pods, |s| s.node_selector.clone().unwrap());
    assert_eq!(json!(zones), json!([{ "zone": "b" }, { "zone": "a" }]));
    assert_eq!(of_both(&pods, |s| s.priority_class_name.clone().unwrap()), ["low", "low"]);
}

/// A Service and a network policy select the pod by them.
#[test]
fn labels_of_the_controller_cannot_be_replaced() {
    let labels = json!({ "pvferry.io/token": "guessed", "app.kubernetes.io/managed-by": "me" });
    for pod in pods(json!({ "labels": labels }), &Defaults::default()) {
        let labels = pod.metadata.labels.unwrap();
        assert_eq!(labels["pvferry.io/token"], "secret");
        assert_eq!(labels["app.kubernetes.io/managed-by"], build::MANAGER);
    }
}

/// A value for a field that only the operator may set.
fn value(field: &str) -> Value {
    match field {
        "image" | "priorityClassName" | "serviceAccountName" => json!("evil"),
        "imagePullPolicy" => json!("Never"),
        "imagePullSecrets" => json!([{ "name": "x" }]),
        "tolerations" => json!([{ "operator": "Exists" }]),
        "seLinuxOptions" => json!({ "type": "spc_t" }),
        "labels" | "annotations" => json!({ "app": "web" }),
        "host" => json!("bank.example"),
        other => panic!("a value for {other}"),
    }
}

#[test]
fn fields_that_decide_what_runs_are_privileged_in_every_block() {
    let blocks = [
        ("pods", None),
        ("pods.source", Some("source")),
        ("pods.destination", Some("destination")),
    ];
    for (path, block) in blocks {
        for field in POD_FIELDS {
            let settings = json!({ field.name: value(field.name) });
            let pods = block.map_or_else(|| settings.clone(), |block| json!({ block: settings }));
            let fields = migration(pods).spec.privileged_fields(&[]);
            assert_eq!(fields, [format!("{path}.{}", field.name)]);
        }
    }
    let harmless = json!({ "user": { "id": 1 }, "nodeSelector": { "a": "b" }, "resources": {} });
    assert!(migration(harmless).spec.privileged_fields(&[]).is_empty());
}

#[test]
fn hosts_of_routers_are_privileged_unless_the_operator_permits_them() {
    let fields = |endpoint: Value, hosts: &[String]| {
        let mut migration = migration(json!({}));
        migration.spec.endpoint = serde_json::from_value(endpoint).unwrap();
        migration.spec.privileged_fields(hosts)
    };
    let permitted = ["*.move.example".to_owned()];
    for kind in ["Ingress", "Route"] {
        let host = |host: &str| json!({ "type": kind, "host": host });
        assert_eq!(fields(host("bank.example"), &[]), ["endpoint.host"]);
        assert_eq!(fields(host("bank.example"), &permitted), ["endpoint.host"]);
        assert!(fields(host("a.move.example"), &permitted).is_empty());
        assert!(fields(host("*.move.example"), &permitted).is_empty());
    }
    // Where a source connects to: the server there has to prove its identity.
    assert!(fields(json!({ "type": "NodePort", "host": "bank.example" }), &[]).is_empty());
}

/// A new field is in the list, or here.
#[test]
fn every_field_of_pods_and_endpoints_is_privileged_or_known_to_be_harmless() {
    let definition = serde_json::to_value(&definitions()[0]).unwrap();
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let of = |path: [&str; 2]| {
        let properties = &spec["properties"][path[0]];
        let block =
            if path[1].is_empty() { properties } else { &properties["properties"][path[1]] };
        block["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>()
    };
    let sorted = |privileged: Vec<&'static str>, harmless: &[&str]| {
        let all = privileged.into_iter().chain(harmless.iter().copied());
        all.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let pods: Vec<_> = POD_FIELDS.iter().map(|field| field.name).collect();
    for block in ["source", "destination"] {
        assert_eq!(of(["pods", block]), sorted(pods.clone(), &["resources", "nodeSelector"]));
    }
    let harmless = ["resources", "nodeSelector", "user", "source", "destination"];
    assert_eq!(of(["pods", ""]), sorted(pods, &harmless));
    let endpoint: Vec<_> = ENDPOINT_FIELDS.iter().map(|field| field.name).collect();
    assert_eq!(of(["endpoint", ""]), sorted(endpoint, &["type", "port", "class"]));
}

#[test]
fn the_table_of_fields_in_operations_is_the_list() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = privileged_table();
    assert!(
        text.contains(&format!("| --- | --- |\n{table}\n")),
        "docs/OPERATIONS.md, section 6:\n{table}"
    );
}

#[test]
fn unknown_fields_in_files_are_refused() {
    for (file, field) in [
        ("tolerrations: []", "tolerrations"),
        ("user: {id: 1}", "user"),
        ("source: {imagee: x}", "source.imagee"),
        ("tolerations: [{keyy: x}]", "tolerations[0].keyy"),
    ] {
        let told = PodDefaults::parse(file).unwrap_err();
        assert!(told.ends_with(&format!("unknown field {field}")), "{told}");
    }
    assert_eq!(PodDefaults::parse("dnsPorts: [1053]").unwrap().dns_ports, [1053]);
    let told = render::parse("spec: {transfer: {deletee: true}}").unwrap_err();
    assert!(told.ends_with("unknown field spec.transfer.deletee"), "{told}");
}

/// The ports that a source pod may send to, as protocol and number.
fn egress(host: &str, dns_ports: &[u16]) -> Vec<String> {
    let names = Names::new(&migration(json!({})), 1, 1, "secret");
    let address = Address { host: host.into(), port: 443 };
    let policy: NetworkPolicy =
        build::network_policy(&names, Role::Source, "a", Some(&address), None, dns_ports);
    let rules = policy.spec.unwrap().egress.unwrap();
    let ports = rules.into_iter().flat_map(|rule| rule.ports.unwrap());
    ports
        .map(|port| {
            let number = serde_json::to_value(port.port).unwrap();
            format!("{}/{number}", port.protocol.unwrap())
        })
        .collect()
}

#[test]
fn name_servers_are_reached_on_their_ports_where_there_is_a_name_to_look_up() {
    let standard = PodDefaults::default().dns_ports;
    let by_name = egress("far.example", &standard);
    for port in ["TCP/8443", "TCP/443", "UDP/53", "TCP/53", "UDP/5353", "TCP/5353"] {
        assert!(by_name.iter().any(|p| p == port), "{port}: {by_name:?}");
    }
    assert_eq!(egress("far.example", &[1053]), ["TCP/8443", "TCP/443", "UDP/1053", "TCP/1053"]);
    assert_eq!(egress("10.0.0.7", &standard), ["TCP/8443", "TCP/443"]);
}
