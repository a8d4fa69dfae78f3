//! The controller ends at any call, and begins anew; or a call fails, and it goes on.

use controller::api::Phase;
use serde_json::json;

use super::{calls::Fate, world::World};

/// Runs that meet a fault at one of their calls.
#[derive(Clone, Copy, Debug)]
enum Run {
    Stage,
    /// It has all the phases.
    Cutover,
    /// After a cutover.
    Rollback,
    /// In the middle of a cutover.
    RollbackMidway,
}

impl Run {
    /// What comes before the run, without faults.
    async fn prepare(self) -> World {
        let mut world = World::new();
        world.workload("deployments", "web");
        if matches!(self, Self::Rollback | Self::RollbackMidway) {
            world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" }));
        }
        match self {
            Self::Rollback => drop(world.completes(1).await),
            Self::RollbackMidway => {
                let copies = |s: &controller::api::DirectVolumeMigrationStatus| {
                    s.transfers.iter().any(|transfer| transfer.source_created)
                };
                world.until("source pod", copies).await;
            }
            Self::Stage | Self::Cutover => {}
        }
        world
    }

    async fn carry_out(self, world: &mut World, at: &str) {
        match self {
            Self::Stage => world.migrate(json!({ "quiesce": "ScaleToZero" })),
            Self::Cutover => world.migrate(json!({ "mode": "Cutover", "quiesce": "ScaleToZero" })),
            Self::Rollback | Self::RollbackMidway => {
                world.change(&json!({ "run": 2, "mode": "Rollback" }));
            }
        }
        let (run, phase) = match self {
            Self::Stage | Self::Cutover => (1, Phase::Completed),
            Self::Rollback | Self::RollbackMidway => (2, Phase::RolledBack),
        };
        let ended = |s: &controller::api::DirectVolumeMigrationStatus| {
            s.run == run && s.phase.is_final() && s.leftovers.is_none()
        };
        let status = world.until(&format!("end at {at}"), ended).await;
        assert_eq!(status.phase, phase, "{at}: {status:#?}");
    }

    fn check(self, world: &World, at: &str) {
        let copied = world.files("home", "shop-new", "data");
        if !matches!(self, Self::RollbackMidway) {
            assert_eq!(copied, world.files("home", "shop", "data"), "{at}");
        }
        let replicas = i64::from(!matches!(self, Self::Cutover));
        assert_eq!(world.replicas("deployments", "web"), replicas, "{at}");
        let succeeded = match self {
            Self::Stage | Self::Cutover => ("True", "Completed"),
            Self::Rollback | Self::RollbackMidway => ("Unknown", "RolledBack"),
        };
        let (status, reason) = world.condition("Succeeded");
        assert_eq!((&*status, &*reason), succeeded, "{at}");
        world.assert_clean();
    }

    /// One run, of which call `number` meets `fate`; how many calls it made.
    async fn with(self, number: usize, fate: Fate) -> usize {
        let mut world = self.prepare().await;
        let before = world.calls.count();
        world.calls.fault(before.saturating_add(number), fate);
        let at = format!("{self:?}, call {number} {fate:?}");
        self.carry_out(&mut world, &at).await;
        let called = world.calls.all().get(before.saturating_add(number) - 1).cloned();
        self.check(&world, &format!("{at}: {called:?}"));
        world.calls.count() - before
    }

    async fn every_call(self, fate: Fate) {
        let calls = self.with(usize::MAX, fate).await;
        assert!(calls > 3, "{calls}");
        for number in 1..=calls {
            self.with(number, fate).await;
        }
    }
}

#[tokio::test]
async fn a_stage_run_ends_well_if_the_controller_is_killed_before_any_call() {
    Run::Stage.every_call(Fate::Lost).await;
}

#[tokio::test]
async fn a_stage_run_ends_well_if_the_controller_is_killed_after_any_call() {
    Run::Stage.every_call(Fate::AnswerLost).await;
}

#[tokio::test]
async fn a_stage_run_ends_well_if_any_call_fails() {
    Run::Stage.every_call(Fate::Refused).await;
}

#[tokio::test]
async fn a_stage_run_ends_well_if_any_call_is_done_and_times_out() {
    Run::Stage.every_call(Fate::TimedOut).await;
}

#[tokio::test]
async fn a_cutover_ends_well_if_the_controller_is_killed_before_any_call() {
    Run::Cutover.every_call(Fate::Lost).await;
}

#[tokio::test]
async fn a_cutover_ends_well_if_the_controller_is_killed_after_any_call() {
    Run::Cutover.every_call(Fate::AnswerLost).await;
}

#[tokio::test]
async fn a_cutover_ends_well_if_any_call_fails() {
    Run::Cutover.every_call(Fate::Refused).await;
}

#[tokio::test]
async fn a_cutover_ends_well_if_any_call_is_done_and_times_out() {
    Run::Cutover.every_call(Fate::TimedOut).await;
}

#[tokio::test]
async fn a_rollback_ends_well_if_the_controller_is_killed_before_any_call() {
    Run::Rollback.every_call(Fate::Lost).await;
}

#[tokio::test]
async fn a_rollback_ends_well_if_the_controller_is_killed_after_any_call() {
    Run::Rollback.every_call(Fate::AnswerLost).await;
}

#[tokio::test]
async fn a_rollback_ends_well_if_any_call_fails() {
    Run::Rollback.every_call(Fate::Refused).await;
}

#[tokio::test]
async fn a_rollback_ends_well_if_any_call_is_done_and_times_out() {
    Run::Rollback.every_call(Fate::TimedOut).await;
}

#[tokio::test]
async fn a_rollback_midway_ends_well_if_the_controller_is_killed_before_any_call() {
    Run::RollbackMidway.every_call(Fate::Lost).await;
}

#[tokio::test]
async fn a_rollback_midway_ends_well_if_the_controller_is_killed_after_any_call() {
    Run::RollbackMidway.every_call(Fate::AnswerLost).await;
}

#[tokio::test]
async fn a_rollback_midway_ends_well_if_any_call_fails() {
    Run::RollbackMidway.every_call(Fate::Refused).await;
}

#[tokio::test]
async fn a_rollback_midway_ends_well_if_any_call_is_done_and_times_out() {
    Run::RollbackMidway.every_call(Fate::TimedOut).await;
}
