//! What lies in `deploy/` is what the code means.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{fs, path::PathBuf};

use controller::{api, build::Defaults, plan, render};

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
        let pods = render::render(&migration, &Defaults { image: "pvferry:1".into(), open: false })
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
    wrong("[{name: x}, {name: x}]", "named twice");
    wrong("[{name: x}, {name: y, target: {name: x}}]", "two volumes would become");
    wrong("[{name: x, target: {namespace: a}}]", "onto itself");
    wrong("[{name: x, target: {namespace: a, name: y}}, {name: y}]", "a source and a target");
}
