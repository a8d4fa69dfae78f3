//! Which volumes begin now.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use k8s_openapi::{api::core::v1::PersistentVolumeClaim, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt as _;
use parking_lot::Mutex;

use super::Step;
use crate::{
    api::{ActiveTransfer, PodNodes, VolumePhase, VolumeStatus},
    build,
    error::{Error, Result},
    informers::{Key, Name, Wakes, mounted},
    plan::{self, Claim, Planned},
};

/// How many volumes move, over all migrations of this controller. One that has just started does not know of those it has not
/// looked at yet.
///
/// Those that find no room wait in a queue, and are woken when there is some again.
pub(crate) struct VolumeSlots {
    limit: usize,
    wakes: Arc<Wakes>,
    state: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    by_migration: HashMap<String, usize>,
    waiting: VecDeque<Name>,
}

impl VolumeSlots {
    /// No more than `limit`.
    pub(crate) fn new(limit: Option<usize>, wakes: Arc<Wakes>) -> Self {
        Self { limit: limit.unwrap_or(usize::MAX), wakes, state: Mutex::default() }
    }

    /// How many of `wanted` volumes the migration may begin, of which `active` move already.
    fn claim(&self, uid: &str, active: usize, wanted: usize) -> usize {
        let mut state = self.state.lock();
        let all = &mut state.by_migration;
        let others: usize = all.iter().filter(|(of, _)| *of != uid).map(|(_, moving)| moving).sum();
        let given = wanted.min(self.limit.saturating_sub(others.saturating_add(active)));
        all.insert(uid.to_owned(), active + given);
        given
    }

    /// So many volumes of the migration move now. `waiting` is the migration, if it wants to begin more and finds no room.
    fn settle(&self, uid: &str, moving: usize, waiting: Option<&Name>) {
        let mut state = self.state.lock();
        state.by_migration.insert(uid.to_owned(), moving);
        if let Some(waiting) = waiting
            && !state.waiting.contains(waiting)
        {
            state.waiting.push_back(waiting.clone());
        }
        self.wake(&mut state);
    }

    /// Nothing of the migration moves any more.
    pub(super) fn release(&self, uid: &str) {
        let mut state = self.state.lock();
        if state.by_migration.remove(uid).is_some() {
            self.wake(&mut state);
        }
    }

    /// Wakes as many as there is room for, in the order in which they came. One that takes nothing makes room for the next when it says so.
    fn wake(&self, state: &mut Slots) {
        let moving: usize = state.by_migration.values().sum();
        let room = self.limit.saturating_sub(moving).min(state.waiting.len());
        if room > 0 {
            self.wakes.wake(state.waiting.drain(..room));
        }
    }
}

/// The volumes of a run that begins, after the run that has left `before`.
pub(super) fn fresh(volumes: &[Planned], before: &[VolumeStatus]) -> Vec<VolumeStatus> {
    let status = |volume: &Planned| {
        let claim = volume.claim.to_string();
        let before = before.iter().find(|before| before.claim == claim).cloned();
        let VolumeStatus { created, target, owned, foreign_content, .. } =
            before.unwrap_or_default();
        VolumeStatus { claim, created, target, owned, foreign_content, ..VolumeStatus::default() }
    };
    volumes.iter().map(status).collect()
}

impl Step<'_> {
    /// Enters into the status what begins now; true where that is something. Its objects are made in the next step, when this
    /// is written.
    pub(super) async fn begin_transfers(&mut self) -> Result<bool> {
        let limits = self.migration.spec.limits.clone();
        let active = self.active();
        let waiting = self.startable();
        let beside = self.due_beside_their_groups();
        let due = waiting.len() + beside.len();
        let wanted = count(limits.parallel).saturating_sub(active).min(due);
        let uid = self.migration.uid().unwrap_or_default();
        let room = self.context.slots.claim(&uid, active, wanted);
        let begun = self.begin_within(waiting, beside, wanted, room).await;
        let moving = self.active();
        let more = (wanted > 0 && room == 0).then_some(&self.name);
        self.context.slots.settle(&uid, moving, more);
        begun
    }

    async fn begin_within(
        &mut self,
        mut waiting: Vec<Planned>,
        beside: Vec<(Planned, PodNodes)>,
        wanted: usize,
        room: usize,
    ) -> Result<bool> {
        if wanted == 0 {
            return Ok(false);
        }
        if room == 0 {
            self.status.message = "waiting for other migrations: the controller limits the volumes copied at once (--parallel)".into();
            return Ok(false);
        }
        let all = waiting.iter().chain(beside.iter().map(|(volume, _)| volume));
        let overdue = self.check_use_of_targets(&all.cloned().collect::<Vec<_>>()).await?;
        if !overdue.is_empty() {
            self.fail_used_targets(overdue).await?;
            return Ok(true);
        }
        let (nodes, held) = self.nodes_of(&waiting).await?;
        waiting.retain(|volume| !held.contains_key(&volume.claim));
        let nothing_else = waiting.is_empty() && self.status.transfers.is_empty();
        if let (true, Some(what)) = (nothing_else, held.into_values().next()) {
            return Err(Error::Waiting("ClaimInUse", what));
        }
        // Behind a router, the host belongs to one transfer at a time.
        let shares_host = build::shares_host(&self.migration.spec.endpoint);
        if shares_host && !self.status.transfers.is_empty() {
            return Ok(false);
        }
        let retried = self.begin_beside(beside, room).await?;
        let room = room - retried;
        let candidates = waiting.into_iter().map(|v| (v.clone(), nodes.get(&v.claim).cloned()));
        let selected = plan::select(candidates.collect(), room, |node| self.node_room(node));
        let mut groups = plan::group(&self.reach_of(selected).await?);
        if shares_host {
            groups.truncate(1);
        }
        let started: Vec<Planned> = groups
            .iter()
            .flat_map(|group| &group.volumes)
            .filter_map(|index| self.volumes.get(*index).cloned())
            .collect();
        self.watch_targets(&started).await?;
        let begun = retried > 0 || !groups.is_empty();
        for group in groups {
            self.begin(group.volumes, group.node, None)?;
        }
        Ok(begun)
    }

    /// Begins up to `room` volumes again whose groups go on; how many that were.
    async fn begin_beside(&mut self, due: Vec<(Planned, PodNodes)>, room: usize) -> Result<usize> {
        let mut begun = 0;
        for (volume, nodes) in due {
            if begun == room {
                break;
            }
            let Some(retry) = self.retry(volume, nodes).await? else { continue };
            if self.node_room(retry.source.as_deref()) > 0 {
                self.begin(vec![retry.volume.index], retry.source, retry.destination)?;
                begun += 1;
            }
        }
        Ok(begun)
    }

    /// How many more volumes may begin at a node.
    fn node_room(&self, node: Option<&str>) -> usize {
        let per_node = self.migration.spec.limits.parallel_per_node.map_or(usize::MAX, count);
        let there = self.status.transfers.iter().filter(|t| t.node.as_deref() == node);
        per_node.saturating_sub(there.map(|t| self.active_in(t)).sum())
    }

    /// The volumes that could begin: of a try that has ended, once its pods are gone, for they hold its claims.
    fn startable(&mut self) -> Vec<Planned> {
        let retries: Vec<_> =
            self.status.volumes.iter().filter_map(|v| v.retry_at.clone()).collect();
        let now = self.now;
        for at in retries.iter().filter(|at| at.0 > now) {
            self.due_at(at.0);
        }
        let held: BTreeSet<usize> =
            self.status.transfers.iter().flat_map(|t| t.volumes.iter().copied()).collect();
        let due = |v: &VolumeStatus| match v.phase {
            VolumePhase::Pending => true,
            _ => self.is_retry_due(v),
        };
        let all = self.volumes.iter().filter(|v| !held.contains(&v.index));
        all.filter(|v| self.status.volumes.get(v.index).is_some_and(due)).cloned().collect()
    }

    fn begin(
        &mut self,
        volumes: Vec<usize>,
        node: Option<String>,
        destination_node: Option<String>,
    ) -> Result<()> {
        self.status.transfers_started += 1;
        for transfer in &mut self.status.transfers {
            transfer.volumes.retain(|index| !volumes.contains(index));
        }
        for index in &volumes {
            if let Some(volume) = self.status.volumes.get_mut(*index) {
                volume.phase = VolumePhase::Starting;
                volume.attempts += 1;
                volume.retry_at = None;
                volume.reason.clear();
                volume.message.clear();
            }
        }
        self.status.transfers.push(ActiveTransfer {
            number: self.status.transfers_started,
            token: token()?,
            volumes,
            node,
            destination_node,
            start_time: Some(Time(self.now)),
            ..ActiveTransfer::default()
        });
        Ok(())
    }

    /// The nodes at which volumes are in use that one node at a time may mount; and those that no second pod may mount at
    /// all, each with the reason.
    async fn nodes_of(
        &self,
        volumes: &[Planned],
    ) -> Result<(BTreeMap<Claim, String>, BTreeMap<Claim, String>)> {
        let (mut nodes, mut held) = (BTreeMap::new(), BTreeMap::new());
        let namespaces: BTreeSet<_> = volumes.iter().map(|v| v.claim.namespace.clone()).collect();
        for volume in volumes {
            let Claim { namespace, name } = &volume.claim;
            self.source.informers().register(Key::users(namespace, name), &self.name);
        }
        for namespace in namespaces {
            let pods = self.users(&self.source, &namespace).await?;
            for volume in volumes.iter().filter(|v| v.claim.namespace == namespace) {
                // One that waits for a node itself says nothing about where the volume is.
                let placed = pods.iter().find_map(|pod| {
                    let mounts = mounted(pod).any(|claim| claim == volume.claim.name);
                    let node = pod.spec.as_ref()?.node_name.clone()?;
                    mounts.then(|| (pod.name_any(), node))
                });
                let Some((pod, node)) = placed else { continue };
                let claim: Option<PersistentVolumeClaim> =
                    self.look(&self.source, &namespace, &volume.claim.name).await?;
                let modes = claim.and_then(|claim| claim.spec?.access_modes).unwrap_or_default();
                let has = |mode: &str| modes.iter().any(|m| m == mode);
                if has("ReadWriteMany") || has("ReadOnlyMany") {
                    continue;
                }
                if has("ReadWriteOncePod") {
                    let claim = &volume.claim;
                    let what = format!("PVC {claim} is ReadWriteOncePod and in use by pod {pod}");
                    held.insert(volume.claim.clone(), what);
                } else {
                    nodes.insert(volume.claim.clone(), node);
                }
            }
        }
        Ok((nodes, held))
    }
}

fn count(number: i32) -> usize {
    usize::try_from(number).unwrap_or(0)
}

/// Something that nobody can know before the transfer begins. Later it is a label, and not a secret.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    match rustix::rand::getrandom(&mut bytes, flags) {
        Ok(16) => Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
        _ => Err(Error::SetUp("cannot read random bytes from the kernel".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_share_the_limit_of_the_controller() {
        let moving = VolumeSlots::new(Some(5), Arc::default());
        assert_eq!(moving.claim("a", 0, 4), 4);
        assert_eq!(moving.claim("b", 0, 4), 1);
        assert_eq!(moving.claim("a", 4, 9), 0);
        // One of a's has ended.
        assert_eq!(moving.claim("a", 3, 0), 0);
        assert_eq!(moving.claim("b", 1, 3), 1);
        moving.release("a");
        assert_eq!(moving.claim("b", 2, 9), 3);
        assert_eq!(VolumeSlots::new(None, Arc::default()).claim("a", 7, 9), 9);
    }

    #[test]
    fn a_slot_that_becomes_free_wakes_the_first_that_waits_and_one_that_is_not_taken_the_next() {
        let wakes = Arc::new(Wakes::default());
        let moving = VolumeSlots::new(Some(1), Arc::clone(&wakes));
        let name = |name: &str| ("home".to_owned(), name.to_owned());
        let woken = || wakes.take().map(|(_, name)| name);
        assert_eq!(moving.claim("a", 0, 1), 1);
        moving.settle("a", 1, None);
        for waiting in ["c", "b", "b"] {
            assert_eq!(moving.claim(waiting, 0, 1), 0);
            moving.settle(waiting, 0, Some(&name(waiting)));
        }
        assert_eq!(woken(), None);
        moving.release("a");
        assert_eq!((woken().as_deref(), woken()), (Some("c"), None));
        // It could take the slot and does not.
        assert_eq!(moving.claim("c", 0, 1), 1);
        moving.settle("c", 0, None);
        assert_eq!((woken().as_deref(), woken()), (Some("b"), None));
    }
}
