//! What stands in front of a destination pod, by the type of the endpoint, and where the source connects to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use controller::{
    api::DirectVolumeMigration,
    build::{EndpointObjects, Names, endpoint_objects, reached, shares_host},
};
use k8s_openapi::api::core::v1::{Node, Service};
use serde_json::{Value, json};

fn migration(endpoint: Value) -> DirectVolumeMigration {
    serde_json::from_value(json!({
        "apiVersion": "pvferry.io/v1alpha1", "kind": "DirectVolumeMigration",
        "metadata": { "name": "shop", "namespace": "home", "uid": "0123456789" },
        "spec": {
            "source": { "namespace": "a" }, "destination": { "namespace": "b" },
            "volumes": [{ "name": "data" }], "endpoint": endpoint,
        },
    }))
    .unwrap()
}

fn objects(migration: &DirectVolumeMigration) -> EndpointObjects {
    endpoint_objects(migration, &Names::new(migration, 1, 1, "secret"), "b")
}

/// Where the source connects to once the cluster has completed the Service by `more`.
fn address(migration: &DirectVolumeMigration, more: &Value, nodes: &Value) -> Option<String> {
    let mut service = serde_json::to_value(objects(migration).service).unwrap();
    for (part, fields) in more.as_object().unwrap() {
        let of = service.as_object_mut().unwrap().entry(part).or_insert(json!({}));
        of.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    }
    let service: Service = serde_json::from_value(service).unwrap();
    let nodes: Vec<Node> = serde_json::from_value(nodes.clone()).unwrap();
    reached(migration, &Names::new(migration, 1, 1, "secret"), &service, &nodes)
        .map(|address| address.to_string())
}

#[test]
fn a_cluster_ip_is_reached_by_its_number() {
    let migration = migration(json!({}));
    assert_eq!(address(&migration, &json!({}), &json!([])), None);
    let v4 = json!({ "spec": { "clusterIP": "10.0.0.7" } });
    assert_eq!(address(&migration, &v4, &json!([])).unwrap(), "10.0.0.7:8443");
    let v6 = json!({ "spec": { "clusterIP": "fd00::7" } });
    assert_eq!(address(&migration, &v6, &json!([])).unwrap(), "[fd00::7]:8443");
}

#[test]
fn a_load_balancer_is_reached_when_the_cloud_has_made_it() {
    let migration = migration(json!({ "type": "LoadBalancer", "annotations": { "cloud/x": "y" } }));
    let service = objects(&migration).service;
    assert_eq!(service.spec.unwrap().type_.as_deref(), Some("LoadBalancer"));
    assert_eq!(service.metadata.annotations.unwrap()["cloud/x"], "y");
    assert_eq!(address(&migration, &json!({}), &json!([])), None);
    let by = |ingress: Value| json!({ "status": { "loadBalancer": { "ingress": [ingress] } } });
    let ip = by(json!({ "ip": "192.0.2.1" }));
    assert_eq!(address(&migration, &ip, &json!([])).unwrap(), "192.0.2.1:8443");
    let name = by(json!({ "hostname": "lb.example" }));
    assert_eq!(address(&migration, &name, &json!([])).unwrap(), "lb.example:8443");
}

#[test]
fn a_node_port_is_reached_at_a_node() {
    let ports = json!({ "spec": { "ports": [{ "port": 8443, "nodePort": 30123 }] } });
    let nodes = json!([{ "status": { "addresses": [
        { "type": "InternalIP", "address": "10.1.1.1" }, { "type": "ExternalIP", "address": "198.51.100.1" },
    ]}}]);
    let plain = migration(json!({ "type": "NodePort" }));
    assert_eq!(address(&plain, &ports, &nodes).unwrap(), "198.51.100.1:30123");
    assert_eq!(address(&plain, &ports, &json!([])), None);
    let named = migration(json!({ "type": "NodePort", "host": "node.example", "port": 443 }));
    assert_eq!(address(&named, &ports, &json!([])).unwrap(), "node.example:443");
}

#[test]
fn an_ingress_passes_tls_through_by_its_name() {
    let migration =
        migration(json!({ "type": "Ingress", "host": "shop.example", "class": "nginx" }));
    let objects = objects(&migration);
    let ingress = serde_json::to_value(objects.ingress.unwrap()).unwrap();
    assert_eq!(
        ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/ssl-passthrough"],
        "true"
    );
    assert_eq!(ingress["spec"]["ingressClassName"], "nginx");
    let rule = &ingress["spec"]["rules"][0];
    assert_eq!(rule["host"], "shop.example");
    assert_eq!(
        rule["http"]["paths"][0]["backend"]["service"],
        json!({ "name": objects.service.metadata.name, "port": { "number": 8443 } })
    );
    assert!(objects.route.is_none());
    assert_eq!(address(&migration, &json!({}), &json!([])).unwrap(), "shop.example:443");
}

#[test]
fn a_route_passes_tls_through() {
    let migration = migration(json!({ "type": "Route", "host": "shop.apps.example" }));
    let objects = objects(&migration);
    let route = serde_json::to_value(objects.route.unwrap()).unwrap();
    assert_eq!(
        (&route["apiVersion"], &route["kind"]),
        (&json!("route.openshift.io/v1"), &json!("Route"))
    );
    assert_eq!(route["spec"]["tls"], json!({ "termination": "passthrough" }));
    assert_eq!(route["spec"]["to"]["name"], json!(objects.service.metadata.name));
    assert_eq!(route["metadata"]["namespace"], "b");
    assert!(objects.ingress.is_none());
    assert_eq!(address(&migration, &json!({}), &json!([])).unwrap(), "shop.apps.example:443");
}

/// A Service of which a pod of somebody else could become a part would lead the source astray.
#[test]
fn a_service_leads_to_the_pod_with_the_token_only() {
    let selector = objects(&migration(json!({}))).service.spec.unwrap().selector.unwrap();
    assert_eq!(selector["pvferry.io/token"], "secret");
    assert_eq!(selector["pvferry.io/role"], "destination");
}

/// A router tells transfers apart by their hosts, and two namespaces cannot have the same one.
#[test]
fn transfers_behind_a_wildcard_have_a_host_each() {
    for kind in ["Ingress", "Route"] {
        let migration = migration(json!({ "type": kind, "host": "*.apps.example" }));
        let service: Service =
            serde_json::from_value(json!({ "spec": { "clusterIP": "10.0.0.7" } })).unwrap();
        let mut hosts = Vec::new();
        for number in [1, 2] {
            let names = Names::new(&migration, 1, number, "secret");
            let objects = endpoint_objects(&migration, &names, "b");
            let host =
                match kind {
                    "Ingress" => {
                        serde_json::to_value(objects.ingress.unwrap()).unwrap()["spec"]["rules"][0]
                            ["host"]
                            .clone()
                    }
                    _ => objects.route.unwrap().data["spec"]["host"].clone(),
                };
            let host = host.as_str().unwrap().to_owned();
            let label = host.strip_suffix(".apps.example").unwrap();
            assert!(label.len() <= 63 && !label.contains(['.', '*']), "{host}");
            let address = reached(&migration, &names, &service, &[]).unwrap();
            assert_eq!(address.to_string(), format!("{host}:443"));
            hosts.push(host);
        }
        assert_ne!(hosts[0], hosts[1]);
        assert!(!shares_host(&migration.spec.endpoint));
    }
}

#[test]
fn transfers_share_a_host_only_behind_a_router_with_a_plain_name() {
    let shares = |endpoint: Value| shares_host(&migration(endpoint).spec.endpoint);
    assert!(shares(json!({ "type": "Ingress", "host": "shop.example" })));
    assert!(shares(json!({ "type": "Route", "host": "shop.example" })));
    assert!(!shares(json!({})));
    assert!(!shares(json!({ "type": "NodePort", "host": "node.example" })));
    assert!(!shares(json!({ "type": "LoadBalancer" })));
}
