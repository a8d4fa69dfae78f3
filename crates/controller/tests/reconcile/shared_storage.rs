//! Claims that lead to the same storage through PersistentVolumes of their own.

use controller::api::{DirectVolumeMigrationStatus, Phase};
use serde_json::{Value, json};

use super::world::{World, add, key};

/// Makes the PersistentVolume of a claim, before or after the claim.
fn volume(world: &World, namespace: &str, claim: &str, source: Value) {
    let name = format!("{namespace}-{claim}");
    let mut spec = source;
    spec["claimRef"] = json!({ "namespace": namespace, "name": claim });
    let volume = json!({ "metadata": { "name": name }, "spec": spec });
    add(&world.home, "persistentvolumes", "", volume);
    let claim = key("persistentvolumeclaims", namespace, claim);
    if world.home.store.lock().get(&claim).is_ok() {
        world.home.store.lock().change(&claim, |claim| claim["spec"]["volumeName"] = json!(name));
    }
}

fn local(path: &str, node: &str) -> Value {
    json!({
        "local": { "path": path },
        "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [
            { "key": "kubernetes.io/hostname", "operator": "In", "values": [node] },
        ]}]}},
    })
}

fn csi(handle: &str) -> Value {
    json!({ "csi": { "driver": "csi.example", "volumeHandle": handle } })
}

fn nfs(path: &str) -> Value {
    json!({ "nfs": { "server": "nas", "path": path } })
}

/// Pairs of the volume of `shop/data` with another one on the same storage.
fn shared() -> Vec<(Value, Value)> {
    vec![
        (csi("v"), csi("v")),
        (nfs("/export/a"), nfs("/export")),
        (local("/d/par/sub", "n1"), local("/d/par", "n1")),
        (local("/d/par", "n1"), local("/d/par/sub", "n1")),
        (json!({ "hostPath": { "path": "/d" } }), json!({ "hostPath": { "path": "/d" } })),
    ]
}

#[tokio::test]
async fn a_target_on_the_storage_of_its_source_is_refused_whether_it_exists_or_is_created() {
    for (source, target) in shared() {
        for exists in [false, true] {
            let case = format!("{exists} {source} {target}");
            let mut world = World::new();
            volume(&world, "shop", "data", source.clone());
            volume(&world, "shop-new", "data", target.clone());
            if exists {
                world.claim("home", "shop-new", "data", &[]);
            }
            world.migrate(json!({}));
            let status = world.ends(1).await;
            assert_eq!(status.phase, Phase::Failed, "{case} {status:#?}");
            assert_eq!(status.volumes[0].reason, "SourceIsTarget", "{case}");
            assert!(world.transfer_pods("source").is_empty(), "{case}");
        }
    }
}

#[tokio::test]
async fn directories_of_two_nodes_are_two_volumes() {
    let mut world = World::new();
    volume(&world, "shop", "data", local("/d", "n1"));
    volume(&world, "shop-new", "data", local("/d", "n2"));
    world.migrate(json!({}));
    world.completes(1).await;
}

#[tokio::test]
async fn a_target_on_the_storage_of_the_target_of_another_migration_is_reserved() {
    let mut world = World::new();
    volume(&world, "shop-new", "data", nfs("/export"));
    volume(&world, "shop-new", "below", nfs("/export/below"));
    world.migrate_as("first", json!({}));
    for _ in 0..40 {
        world.step_of("first").await;
    }
    let first = world.migration("first").unwrap().status.unwrap();
    assert_eq!(first.phase, Phase::Completed, "{first:#?}");
    world.migrate(json!({ "volumes": [{ "name": "data", "target": { "name": "below" } }] }));
    let status = world.ends(1).await;
    assert_eq!(status.volumes[0].reason, "TargetReserved", "{status:#?}");
}

/// Makes `another/alias` on the storage of a claim, and a pod that mounts it.
fn alias(world: &mut World, source: Value) {
    add(&world.home, "namespaces", "", json!({ "metadata": { "name": "another" } }));
    volume(world, "another", "alias", source);
    world.claim("home", "another", "alias", &[]);
}

fn user_of_alias(world: &World) {
    let pod = json!({
        "metadata": { "name": "user" },
        "spec": {
            "containers": [{ "name": "app", "image": "app" }],
            "volumes": [{ "name": "data", "persistentVolumeClaim": { "claimName": "alias" } }],
        },
    });
    add(&world.home, "pods", "another", pod);
}

fn copies(status: &DirectVolumeMigrationStatus) -> bool {
    status.transfers.iter().any(|transfer| transfer.source_created)
}

#[tokio::test]
async fn a_source_that_is_used_through_another_claim_is_in_use() {
    for (source, other) in shared() {
        for during in [false, true] {
            let case = format!("{during} {source} {other}");
            let mut world = World::new();
            world.kubelet.duration = 4;
            volume(&world, "shop", "data", source.clone());
            alias(&mut world, other.clone());
            if !during {
                user_of_alias(&world);
                world.tick();
            }
            world.migrate(json!({ "mode": "Cutover" }));
            if during {
                world.until("source pod", copies).await;
                user_of_alias(&world);
                world.remove("pods", "another", "user");
            }
            let status = world.ends(1).await;
            assert_eq!(status.phase, Phase::Failed, "{case} {status:#?}");
            let reason = if during { "UsedMeanwhile" } else { "ClaimInUse" };
            assert_eq!(status.volumes[0].reason, reason, "{case} {status:#?}");
            let named = |event: &String| {
                event.contains("pod user (through claim another/alias)")
                    && event.contains("shop/data")
            };
            assert!(world.events().iter().any(named), "{case} {:#?}", world.events());
        }
    }
}

#[tokio::test]
async fn a_target_that_is_used_through_another_claim_is_in_use() {
    for during in [false, true] {
        let mut world = World::new();
        world.kubelet.duration = 4;
        volume(&world, "shop-new", "data", nfs("/export"));
        world.claim("home", "shop-new", "data", &[]);
        alias(&mut world, nfs("/export/below"));
        if !during {
            user_of_alias(&world);
            world.tick();
        }
        world.migrate(json!({ "mode": "Cutover" }));
        if during {
            world.until("source pod", copies).await;
            user_of_alias(&world);
            world.remove("pods", "another", "user");
            let status = world.ends(1).await;
            assert_eq!(status.volumes[0].reason, "UsedMeanwhile", "{status:#?}");
        } else {
            for _ in 0..20 {
                world.step_of("m").await;
            }
            let (phase, message) = world.told("m");
            assert_eq!(phase, Phase::Preparing, "{message}");
            assert!(
                message
                    .contains("shop-new/data is in use by pod user (through claim another/alias)"),
                "{message}"
            );
        }
    }
}
