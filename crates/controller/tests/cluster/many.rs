//! Many volumes, few at a time.

use std::{fs, time::Duration};

use controller::api::VolumePhase;
use serde_json::json;
use testkit::assert_same;

use super::support::in_place;

const VOLUMES: usize = 50;
const PARALLEL: usize = 5;

#[test]
fn fifty_volumes_five_at_a_time() {
    in_place(async |mut place| {
        let names: Vec<String> = (0..VOLUMES).map(|n| format!("v{n}")).collect();
        let mut pairs = Vec::new();
        for name in &names {
            let from = place.source_volume(name).await;
            fs::write(from.join("content"), name.repeat(1000)).unwrap();
            pairs.push((from, place.target_volume(name).await));
        }
        place.start_controller();
        let claims: Vec<&str> = names.iter().map(String::as_str).collect();
        place.migrate(&claims, json!({ "limits": { "parallel": PARALLEL } })).await;
        let mut most = 0;
        loop {
            let status = place.status().await;
            // A volume that has ended takes up no slot, though its pods may be there for others.
            let is_active = |phase| matches!(phase, VolumePhase::Starting | VolumePhase::Running);
            let active = status.volumes.iter();
            // Nor does one that is copied and waits for the report of its server.
            let active = active.filter(|v| is_active(v.phase) && v.reported_at.is_none()).count();
            most = most.max(active);
            assert!(active <= PARALLEL, "{status:#?}");
            if status.phase.is_final() {
                assert_eq!(status.volumes_done, format!("{VOLUMES}/{VOLUMES}"), "{status:#?}");
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert_eq!(most, PARALLEL);
        for (from, to) in pairs {
            assert_same(&from, &to);
        }
        let (peak, calls) = place.controller_figures().await;
        println!(
            "the controller took {peak} KiB at its peak and {:.1} calls a volume",
            calls / VOLUMES as f64
        );
        // More than in the reconcilers' tests: on a busy machine copies take longer, and their progress is read more often.
        assert!(calls <= 15.0 * VOLUMES as f64, "{calls} calls");
        place.assert_clean().await;
    });
}
