//! Pods that use claims at the destination before anything is copied there.
//!
//! A run waits for them, and not without a limit: a pod that is replaced leaves a gap, in which a run that nobody remembers would overwrite what
//! an application writes.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};

use super::{Step, reached::ReachedClaims};
use crate::{
    build::Role,
    error::{Error, Result},
    observe,
    plan::Planned,
};

const REASON: &str = "TargetInUse";

/// A volume that cannot be copied, by its index, with the reason and a message.
pub(super) type Invalid = (usize, &'static str, String);

/// The volumes whose targets pods use, each with a description of such a pod.
#[derive(Default)]
pub(super) struct UsedTargets(BTreeMap<usize, String>);

impl UsedTargets {
    /// Enters the targets that a pod of a namespace uses.
    pub(super) fn enter(&mut self, reached: &ReachedClaims, namespace: &str, pod: &Pod) {
        for (index, pod) in reached.used_by(namespace, pod) {
            self.0.entry(index).or_insert(pod);
        }
    }
}

impl Step<'_> {
    /// Waits while pods use the targets of `volumes`. Returns those that were in use for longer than a run waits.
    pub(super) async fn check_use_of_targets(
        &mut self,
        volumes: &[Planned],
    ) -> Result<Vec<Invalid>> {
        let mut used = self.used_targets(volumes, self.live).await?;
        if !used.0.is_empty() && !self.live && self.is_overdue() {
            // What a watch knows can be old.
            used = self.used_targets(volumes, true).await?;
        }
        if used.0.is_empty() {
            self.status.target_in_use_since = None;
            return Ok(Vec::new());
        }
        if !self.is_overdue() {
            self.refuse_used_targets(&used)?;
        }
        self.disown(&used);
        let limit = self.migration.spec.limits.start_seconds;
        let overdue = |(index, pod): (&usize, &String)| {
            let target = &self.volumes.get(*index)?.target;
            let what = format!(
                "destination PVC {target} is in use by pod {pod}, for longer than limits.startSeconds ({limit} s)"
            );
            Some((*index, REASON, what))
        };
        Ok(used.0.iter().filter_map(overdue).collect())
    }

    /// Waits for the pods that use targets. What they write there is not of this migration, even if it created or filled the claim before.
    pub(super) fn refuse_used_targets(&mut self, used: &UsedTargets) -> Result<()> {
        let first = used.0.first_key_value();
        let first = first.and_then(|(index, pod)| Some((self.volumes.get(*index)?, pod)));
        let Some((volume, pod)) = first else { return Ok(()) };
        let what = format!("destination PVC {} is in use by pod {pod}", volume.target);
        self.disown(used);
        let since = self.status.target_in_use_since.get_or_insert(Time(self.now)).clone();
        self.due_after(&since, self.migration.spec.limits.start_seconds + 1);
        Err(Error::Waiting(REASON, what))
    }

    /// Fails volumes whose targets were in use for too long, beside others that are copied.
    pub(super) async fn fail_used_targets(&mut self, overdue: Vec<Invalid>) -> Result<()> {
        self.status.target_in_use_since = None;
        for (index, reason, what) in overdue {
            let Some(volume) = self.volumes.get(index).cloned() else { continue };
            self.fail_success(&volume, reason, what.clone()).await?;
            if let Some(status) = self.status.volumes.get_mut(index) {
                status.message = what;
            }
        }
        Ok(())
    }

    fn disown(&mut self, used: &UsedTargets) {
        for index in used.0.keys() {
            if let Some(status) = self.status.volumes.get_mut(*index) {
                status.disown();
            }
        }
    }

    /// Whether the run has waited for users of targets for as long as it waits.
    fn is_overdue(&self) -> bool {
        let since = self.status.target_in_use_since.as_ref();
        let limit = self.migration.spec.limits.start_seconds;
        since.is_some_and(|since| observe::seconds_since(since, self.now) > limit)
    }

    async fn used_targets(&self, volumes: &[Planned], live: bool) -> Result<UsedTargets> {
        let reached = self.reached(Role::Destination, volumes).await?;
        let mut used = UsedTargets::default();
        for namespace in reached.namespaces() {
            if live {
                let (pods, _) = self.users_at(&self.destination, &namespace).await?;
                pods.iter().for_each(|pod| used.enter(&reached, &namespace, pod));
            } else {
                let pods = self.users(&self.destination, &namespace).await?;
                pods.iter().for_each(|pod| used.enter(&reached, &namespace, pod));
            }
        }
        Ok(used)
    }
}
