//! What lies in `deploy/` is what the code means.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fs, path::PathBuf};

use controller::{api, build::Defaults, metrics::Metrics, plan, render};

fn deploy(path: &str) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    fs::read_to_string(root.join(path)).unwrap()
}

#[test]
fn definitions_are_those_of_the_code() {
    let mut documents = String::new();
    for definition in api::definitions() {
        render::document(&mut documents, &definition).unwrap();
    }
    let kept = deploy("crds/crds.yaml");
    let differs =
        kept.trim().lines().zip(documents.trim().lines()).find(|(kept, made)| kept != made);
    assert_eq!(differs, None, "made by `pvferry-controller crd > deploy/crds/crds.yaml`");
    assert_eq!(kept.trim().lines().count(), documents.trim().lines().count());
}

#[test]
fn samples_can_be_carried_out() {
    for sample in ["samples/stage.yaml", "samples/cutover.yaml"] {
        let migration: api::DirectVolumeMigration =
            serde_saphyr::from_str(&deploy(sample)).unwrap();
        assert_eq!(plan::check(&migration), Ok(()), "{sample}");
        let pods = render::render(
            &migration,
            &Defaults {
                image: "pvferry:1".into(),
                allow_privileged_fields: false,
                ..Defaults::default()
            },
        )
        .unwrap();
        assert_eq!(pods.matches("kind: Pod").count(), 2, "{sample}: a source and a destination");
        assert!(!pods.contains("serviceAccountName") && !pods.contains("PRIVATE KEY"));
    }
}

#[test]
fn volumes_that_make_no_sense_together_are_named() {
    let wrong = |volumes: &str, why: &str| {
        let text = format!(
            "apiVersion: pvferry.io/v1alpha1\nkind: DirectVolumeMigration\nmetadata: {{name: m}}\nspec:\n  \
             source: {{namespace: a}}\n  destination: {{namespace: b}}\n  volumes: {volumes}\n"
        );
        let migration: api::DirectVolumeMigration = serde_saphyr::from_str(&text).unwrap();
        let told = plan::check(&migration).unwrap_err();
        assert!(told.contains(why), "{told}");
    };
    wrong("[{name: x}, {name: x}]", "listed twice");
    wrong("[{name: x}, {name: y, target: {name: x}}]", "two volumes have the same destination");
    wrong("[{name: x, target: {namespace: a}}]", "the same PVC a/x");
    wrong(
        "[{name: x, target: {namespace: a, name: y}}, {name: y}]",
        "both a source and a destination",
    );
}

/// `kubectl explain` shows descriptions, and no defaults.
#[test]
fn every_default_of_a_specification_is_in_the_schema_and_in_its_description() {
    fn look(path: &str, schema: &serde_json::Value, seen: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            let description = field["description"].as_str().unwrap_or_default();
            if let Some(default) = field.get("default").filter(|default| !default.is_object()) {
                let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
                assert!(
                    description.ends_with(&format!("Default: {default}.")),
                    "{path}: {description}"
                );
                seen.push(path.clone());
            }
            look(&path, field, seen);
        }
        if schema["items"].is_object() {
            look(path, &schema["items"], seen);
        }
    }
    let definition = serde_json::to_value(&api::definitions()[0]).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut seen = Vec::new();
    look("spec", &schema["properties"]["spec"], &mut seen);
    for path in [
        "spec.mode",
        "spec.run",
        "spec.quiesce",
        "spec.endpoint.type",
        "spec.transfer.delete",
        "spec.transfer.checksum",
        "spec.transfer.verify",
        "spec.transfer.allowEmptySource",
        "spec.limits.parallel",
        "spec.limits.attempts",
        "spec.limits.startSeconds",
        "spec.destination.createNamespace",
    ] {
        assert!(seen.iter().any(|p| p == path), "{path} has no default: {seen:?}");
    }
}

#[test]
fn the_deployment_reads_defaults_for_pods_that_are_valid() {
    let map: serde_json::Value =
        serde_saphyr::from_str(&deploy("controller/defaults.yaml")).unwrap();
    let text = map["data"]["pod-defaults.yaml"].as_str().unwrap();
    assert_eq!(api::PodDefaults::parse(text), Ok(api::PodDefaults::default()));
    // The examples in it are valid, too.
    let examples = text.replace("# ", "");
    let parsed = api::PodDefaults::parse(&examples).unwrap();
    assert_eq!(parsed.both.priority_class_name.as_deref(), Some("low"));
    let deployment: serde_json::Value =
        serde_saphyr::from_str(&deploy("controller/deployment.yaml")).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    let args = pod["containers"][0]["args"].to_string();
    assert!(args.contains("--pod-defaults=/config/pod-defaults.yaml"), "{args}");
    assert_eq!(pod["volumes"][0]["configMap"]["name"], map["metadata"]["name"]);
    assert_eq!(pod["containers"][0]["volumeMounts"][0]["mountPath"], "/config");
}

/// What is watched in every cluster. A controller that may not watch a kind polls.
#[test]
fn the_cluster_role_permits_every_watch() {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&deploy("controller/rbac.yaml")).unwrap();
    let role = documents.iter().find(|document| document["kind"] == "ClusterRole").unwrap();
    let permits = |kind: &str, verb: &str| {
        let has = |list: &serde_json::Value, wanted: &str| {
            list.as_array().unwrap().iter().any(|one| one == wanted)
        };
        let rules = role["rules"].as_array().unwrap();
        rules.iter().any(|rule| has(&rule["resources"], kind) && has(&rule["verbs"], verb))
    };
    for kind in [
        "directvolumemigrations",
        "pods",
        "persistentvolumeclaims",
        "persistentvolumes",
        "storageclasses",
        "namespaces",
        "services",
        "nodes",
    ] {
        assert!(permits(kind, "list") && permits(kind, "watch"), "{kind}");
    }
    assert!(!permits("secrets", "list") && !permits("secrets", "watch"));
}

/// The controller has no resources and no events in a second cluster.
#[test]
fn role_in_a_second_cluster_is_that_of_the_first_without_own_resources_and_events() {
    let rules = |file: &str| {
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&deploy(file)).unwrap();
        let role = documents.into_iter().find(|document| document["kind"] == "ClusterRole");
        role.unwrap()["rules"].as_array().unwrap().clone()
    };
    let mut expected = rules("controller/rbac.yaml");
    expected
        .retain(|rule| rule["apiGroups"][0] != "pvferry.io" && rule["resources"][0] != "events");
    assert_eq!(rules("remote/rbac.yaml"), expected);
    assert_eq!(deploy("remote/namespace.yaml"), deploy("controller/namespace.yaml"));
}

#[test]
fn the_controller_has_no_rights_on_its_node() {
    let deployment: serde_json::Value =
        serde_saphyr::from_str(&deploy("controller/deployment.yaml")).unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let containers = ["initContainers", "containers"].map(|list| pod[list].as_array().unwrap());
    for container in containers.into_iter().flatten() {
        let expected = serde_json::json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        });
        assert_eq!(container["securityContext"], expected, "{}", container["name"]);
    }
    let text = pod.to_string();
    for part in ["hostPath", "hostNetwork", "hostPID", "hostIPC"] {
        assert!(!text.contains(part), "{part}");
    }
}

#[test]
fn metrics_of_the_controller_are_documented() {
    let documented = deploy("../docs/METRICS.md");
    let text = Metrics::default().text();
    let families: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(families.len() >= 5, "{text}");
    for family in &families {
        let (name, kind) = family.split_once(' ').unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        let (head, tail) = (
            format!("| `{name}{suffix}` |"),
            format!("| {} |", help.unwrap().trim_end_matches('.')),
        );
        let has = documented.lines().any(|row| row.starts_with(&head) && row.ends_with(&tail));
        assert!(has, "docs/METRICS.md has no row {head} ... {tail}");
    }
    let rows = documented.lines().filter(|row| row.starts_with("| `pvferry_controller_"));
    assert_eq!(rows.count(), families.len(), "docs/METRICS.md names what does not exist");
}

/// `kubectl explain` shows one field at a time: each description must make sense without the others.
#[test]
fn every_description_stands_alone_and_lists_the_values_of_its_field() {
    // Types of Kubernetes.
    const FOREIGN: [&str; 5] =
        ["conditions", "imagePullSecrets", "resources", "seLinuxOptions", "tolerations"];
    fn look(path: &str, schema: &serde_json::Value, wrong: &mut Vec<String>) {
        let text = schema["description"].as_str().unwrap_or_default();
        let words = text.split_whitespace().count();
        let vague = ["It ", "Its ", "They ", "The same", "What ", "Which ", "As ", "Where "];
        let explained = ["What a cutover does"];
        let is_vague = vague.iter().any(|start| text.starts_with(start))
            && !explained.iter().any(|start| text.starts_with(start));
        if words < 3 || is_vague || text.contains("Auto-generated") {
            wrong.push(format!("{path}: {text:?}"));
        }
        for value in schema["enum"].as_array().into_iter().flatten() {
            let value = value.as_str().unwrap();
            if !text.contains(&format!("`{value}`")) {
                wrong.push(format!("{path}: {text:?} does not list {value}"));
            }
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if !FOREIGN.contains(&&**name) {
                look(&format!("{path}.{name}"), field, wrong);
            }
        }
        let items = &schema["items"];
        if items["properties"].is_object() {
            look(&format!("{path}[]"), items, wrong);
        }
    }
    let mut wrong = Vec::new();
    for definition in api::definitions() {
        let definition = serde_json::to_value(&definition).unwrap();
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        look(kind, schema, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `migration.openshift.io` has kinds of the same names: on a cluster with both, a short name must select these.
#[test]
fn short_names_are_not_those_of_migration_openshift_io() {
    let names: Vec<_> = api::definitions()
        .into_iter()
        .flat_map(|definition| definition.spec.names.short_names.unwrap_or_default())
        .collect();
    assert_eq!(names, ["pvm", "pvmp"]);
}
