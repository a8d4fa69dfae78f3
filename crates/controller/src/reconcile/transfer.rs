//! Transfers under way: what is missing is made, what has ended is settled and removed.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Node, Pod, Service},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{ResourceExt as _, runtime::controller::Action};
use pod::ExitCode;

use super::{
    SOON, Step, conditions,
    objects::{self, is_ours},
    ownership,
};
use crate::{
    api::{ActiveTransfer, EndpointKind, IdentityUids, Mode, Phase, VolumePhase},
    build::{self, Address, Names, Role},
    error::{Error, Result},
    informers::Key,
    observe::{self, Failure, Seen},
    plan::Planned,
};

/// What is known of a transfer while a step looks at it.
pub(super) struct Current {
    pub(super) transfer: ActiveTransfer,
    pub(super) names: Names,
    pub(super) volumes: Vec<Planned>,
}

impl Current {
    pub(super) fn source_namespace(&self) -> &str {
        self.volumes.first().map_or("", |v| &v.claim.namespace)
    }

    pub(super) fn destination_namespace(&self) -> &str {
        self.volumes.first().map_or("", |v| &v.target.namespace)
    }

    fn chosen(&self) -> Vec<&Planned> {
        self.volumes.iter().collect()
    }
}

impl Step<'_> {
    pub(super) async fn transfer(&mut self) -> Result<Action> {
        // Whatever else there is to say replaces it.
        self.status.message = "copying volumes".into();
        let mut first_error = None;
        let mut blocked = false;
        let ending: BTreeSet<i64> =
            self.status.transfers.iter().filter(|t| t.ending).map(|t| t.number).collect();
        for at in 0..self.status.transfers.len() {
            let Some(transfer) = self.status.transfers.get(at).cloned() else { continue };
            let chosen = transfer.volumes.iter().filter_map(|i| self.volumes.get(*i).cloned());
            let mut current = Current {
                volumes: chosen.collect(),
                names: Names::new(
                    &self.migration,
                    self.status.run,
                    transfer.number,
                    &transfer.token,
                )
                .owned_by(transfer.identities.as_ref()),
                transfer,
            };
            let ending = current.transfer.ending;
            let mut outcome = Box::pin(self.advance(&mut current)).await;
            if let Err(error) = &outcome
                && error.is_quota()
            {
                // Like a scheduler without a node: for as long as pods may take to start.
                let what = error.to_string();
                self.check_start(&mut current, &what, &format!("QuotaExceeded: {what}")).await;
                (blocked, outcome) = (true, Ok(()));
            }
            if let Err(error) = &outcome {
                self.refused(&mut current, error).await;
            }
            if let Some(place) = self.status.transfers.get_mut(at) {
                *place = current.transfer;
            }
            match outcome {
                // What cannot be removed is nobody's failure, and has to be told.
                Err(error)
                    if ending || !(error.is_refusal() || matches!(error, Error::Invalid(..))) =>
                {
                    // The others go on all the same.
                    first_error.get_or_insert(error);
                }
                _ => {}
            }
        }
        // Gone for good: marked by an empty list of volumes.
        self.status.transfers.retain(|transfer| !transfer.volumes.is_empty());
        let begun = Box::pin(self.begin_transfers()).await?;
        let settled = self.status.volumes.iter().all(|volume| volume.phase.is_final());
        if let Some(error) = first_error {
            return Err(error);
        }
        let watched = self.look_at_watches().await?;
        if settled && self.status.transfers.is_empty() {
            if !watched {
                self.status.message = "waiting for the watches of the pods".into();
                return Ok(Action::requeue(SOON));
            }
            self.look_at_other_claims().await?;
            self.fail_used().await?;
            self.settle_use_of_targets().await?;
            self.fail_replaced().await?;
            return Ok(self.enter(Phase::CleaningUp, "deleting transfer pods"));
        }
        // What has begun, and what has ended, goes on when this is written; the rest when a watch wakes the migration.
        let ended = self.status.transfers.iter().any(|t| t.ending && !ending.contains(&t.number));
        self.write_in_time();
        Ok(match () {
            () if begun || ended => Action::requeue(SOON),
            () if blocked => self.poll(),
            () => self.rest(),
        })
    }

    /// What the API server refuses for one transfer is that transfer's failure.
    async fn refused(&mut self, current: &mut Current, error: &Error) {
        if error.is_refusal() || matches!(error, Error::Invalid(..)) {
            let failure = Failure::new(error.reason(), error.to_string(), false);
            self.fail_all(current, &failure).await;
        }
    }

    async fn advance(&mut self, current: &mut Current) -> Result<()> {
        if current.transfer.ending {
            if self.remove(current).await? {
                current.transfer.volumes.clear();
            }
            return Ok(());
        }
        let Some(server) = self.pod(current, Role::Destination).await? else {
            if current.transfer.destination_created {
                let failure = Failure::new(
                    "DestinationPodLost",
                    "the destination pod no longer exists",
                    true,
                );
                self.fail_all(current, &failure).await;
                return Ok(());
            }
            return self.make_destination(current).await;
        };
        if !is_ours(&server, &current.names, Role::Destination) {
            self.fail_all(current, &not_ours(&server)).await;
            return Ok(());
        }
        current.transfer.destination_created = true;
        match self.pod(current, Role::Source).await? {
            Some(client) if !is_ours(&client, &current.names, Role::Source) => {
                self.fail_all(current, &not_ours(&client)).await;
                Ok(())
            }
            Some(client) => {
                current.transfer.source_created = true;
                self.watch(current, &client, &server).await
            }
            None if current.transfer.source_created => {
                let failure =
                    Failure::new("SourcePodLost", "the source pod no longer exists", true);
                self.fail_all(current, &failure).await;
                Ok(())
            }
            None => self.make_source(current, &server).await,
        }
    }

    /// A pod of a transfer. What its watch knows can be old: that a pod is gone which was there, or a volume of it has ended, is read
    /// from the server.
    async fn pod(&mut self, current: &Current, role: Role) -> Result<Option<Pod>> {
        let (cluster, namespace, made) = match role {
            Role::Source => {
                (&self.source, current.source_namespace(), current.transfer.source_created)
            }
            Role::Destination => (
                &self.destination,
                current.destination_namespace(),
                current.transfer.destination_created,
            ),
        };
        let name = current.names.of(role);
        let informer = cluster.informers().current::<Pod>().await;
        let known = informer.as_ref().and_then(|pods| pods.get(namespace, &name));
        let pod = match known {
            Some(known) if !self.has_ended(current, role, &known) && !self.is_late(current) => {
                Some(Pod::clone(&known))
            }
            None if informer.is_some() && !made => None,
            _ => cluster.read(namespace, &name).await?,
        };
        let going = pod.as_ref().and_then(|pod| pod.metadata.deletion_timestamp.clone());
        if let Some(since) = going {
            self.due_after(&since, observe::OVERDUE + 1);
        }
        Ok(pod)
    }

    /// Whether the transfer has failed, unless its pods have done since what they should: then they are read from the server.
    fn is_late(&self, current: &Current) -> bool {
        let limits = &self.migration.spec.limits;
        let over = |since: &Option<Time>, limit: i64| {
            since.as_ref().is_some_and(|since| observe::seconds_since(since, self.now) > limit)
        };
        let starting = |volume: &Planned| {
            let status = self.status.volumes.get(volume.index);
            status.is_some_and(|status| status.phase == VolumePhase::Starting)
        };
        over(&current.transfer.start_time, limits.start_seconds)
            && current.volumes.iter().any(starting)
            || limits.run_seconds.is_some_and(|limit| over(&current.transfer.running_since, limit))
    }

    /// Whether a container of the pod has ended whose end has not been entered into the status.
    fn has_ended(&self, current: &Current, role: Role, pod: &Pod) -> bool {
        let ended = |seen: Seen| !matches!(seen, Seen::Running | Seen::Waiting(_));
        let mut open = current.volumes.iter().filter(|volume| self.is_moving(volume.index));
        match role {
            Role::Source => {
                open.any(|volume| {
                    let container = build::sync_container(volume);
                    ended(observe::sync(pod, &container, &volume.name, self.now))
                }) || ended(observe::sidecar(pod, build::TUNNEL, self.now))
            }
            Role::Destination => ended(observe::sidecar(pod, build::SERVE, self.now)),
        }
    }

    async fn make_destination(&mut self, current: &mut Current) -> Result<()> {
        self.check_permission()?;
        self.protect_targets(current).await?;
        let namespace = current.destination_namespace().to_owned();
        if current.transfer.identities.is_none() {
            let identities = self.make_identities(current).await?;
            current.names = current.names.clone().owned_by(Some(&identities));
            current.transfer.identities = Some(identities);
        }
        self.apply_policy(&self.destination, Role::Destination, &namespace, None).await?;
        let endpoint = build::endpoint_objects(&self.migration, &current.names, &namespace);
        let uid = self.migration.uid().unwrap_or_default();
        objects::create(&self.destination, &endpoint.service, &uid).await?;
        if let Some(ingress) = &endpoint.ingress {
            objects::create(&self.destination, ingress, &uid).await?;
        }
        if let Some(route) = &endpoint.route {
            let (kind, labels) = (build::route_resource(), current.names.selector());
            objects::create_dynamic(&self.destination, route, &kind, &labels).await?;
        }
        let mut pod = build::destination_pod(
            &self.migration,
            &self.context.defaults,
            &current.names,
            &current.chosen(),
        );
        if let Some(node) = &current.transfer.destination_node {
            build::bind(&mut pod, node);
        }
        self.destination.create_watched(&pod).await?;
        current.transfer.destination_created = true;
        Ok(())
    }

    /// Both Secrets by one authority, whose key is gone when this returns.
    async fn make_identities(&self, current: &Current) -> Result<IdentityUids> {
        let (names, uid) = (&current.names, self.migration.uid().unwrap_or_default());
        let (near, far) = (current.source_namespace(), current.destination_namespace());
        let volumes: Vec<_> = current.volumes.iter().map(|volume| &*volume.name).collect();
        let made = self.context.issuer.issue(&uid, &volumes).map_err(Error::Identity)?;
        let secret = build::source_secret(names, near, &made);
        let source = objects::create_secret(&self.source, &secret, names).await?;
        let secret = build::destination_secret(names, far, &made);
        let destination = objects::create_secret(&self.destination, &secret, names).await?;
        Ok(IdentityUids { source, destination })
    }

    async fn make_source(&mut self, current: &mut Current, server: &Pod) -> Result<()> {
        match observe::sidecar(server, build::SERVE, self.now) {
            Seen::Failed(failure) => {
                self.fail_all(current, &failure).await;
                return Ok(());
            }
            Seen::Waiting(what) => {
                self.check_start(current, &format!("destination pod: {what}"), &what).await;
                return Ok(());
            }
            Seen::Running | Seen::Succeeded(_) => {}
        }
        let namespace = current.destination_namespace().to_owned();
        let name = current.names.of(Role::Destination);
        let service: Option<Service> = self.look(&self.destination, &namespace, &name).await?;
        let nodes = match self.migration.spec.endpoint.kind {
            EndpointKind::NodePort if self.migration.spec.endpoint.host.is_none() => {
                self.nodes().await?
            }
            _ => Vec::new(),
        };
        let address = service
            .and_then(|service| build::reached(&self.migration, &current.names, &service, &nodes));
        let Some(address) = address.filter(|_| observe::is_ready(server)) else {
            self.check_start(
                current,
                "waiting for the endpoint of the destination pod",
                "Endpoint",
            )
            .await;
            return Ok(());
        };
        self.make_client(current, &address, server).await
    }

    async fn make_client(
        &mut self,
        current: &mut Current,
        address: &Address,
        peer: &Pod,
    ) -> Result<()> {
        self.check_permission()?;
        let targets = match self.bind_targets(current, peer).await? {
            Ok(targets) => targets,
            Err(failure) => {
                self.fail_all(current, &failure).await;
                return Ok(());
            }
        };
        let namespace = current.source_namespace().to_owned();
        let server = Some((address, current.destination_namespace()));
        self.apply_policy(&self.source, Role::Source, &namespace, server).await?;
        let mut pod = build::source_pod(
            &self.migration,
            &self.context.defaults,
            &current.names,
            &current.chosen(),
            address,
            current.transfer.node.as_deref(),
        );
        ownership::record(&mut pod, &targets);
        self.source.create_watched(&pod).await?;
        current.transfer.source_created = true;
        self.condition(conditions::PREPARED, Some(true), "Prepared", "transfer pods are starting");
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        self.destination.informers().register(Key::all::<Node>(), &self.name);
        let nodes = self.destination.look_at_all::<Node>("").await?;
        Ok(nodes.iter().map(|node| Node::clone(node)).collect())
    }

    /// Both pods are there: what each container has come to.
    async fn watch(&mut self, current: &mut Current, client: &Pod, server: &Pod) -> Result<()> {
        Self::place(&mut current.transfer, client, server);
        let mut waits = None;
        let mut running = Vec::new();
        let mut sources = Vec::new();
        for volume in current.volumes.clone() {
            if !self.is_open(volume.index) {
                continue;
            }
            let container = build::sync_container(&volume);
            match observe::sync(client, &container, &volume.name, self.now) {
                Seen::Succeeded(report) => {
                    self.reported(&volume, client);
                    sources.push((volume, *report));
                }
                Seen::Failed(failure) => {
                    // Files change under a stage run. Only a cutover has to copy every one.
                    let is_stage = self.status.mode == Mode::Stage;
                    match failure.source_changed(&volume.name).filter(|_| is_stage) {
                        Some(report) => {
                            self.reported(&volume, client);
                            sources.push((volume, report.clone()));
                        }
                        None => {
                            let failure = not_empty(&volume, client, failure);
                            self.failed(&volume, client, &failure).await?;
                        }
                    }
                }
                Seen::Running => running.push(volume),
                Seen::Waiting(what) => waits = Some(observe::more_telling(waits, what)),
            }
        }
        self.compare_reports(current, client, server, &sources).await?;
        self.running(&running, client).await?;
        if current.volumes.iter().all(|volume| !self.is_open(volume.index)) {
            current.transfer.ending = true;
            return Ok(());
        }
        for (pod, name) in [(server, build::SERVE), (client, build::TUNNEL)] {
            if let Seen::Failed(failure) = observe::sidecar(pod, name, self.now) {
                self.fail_all(current, &failure).await;
                return Ok(());
            }
        }
        if let Some(what) = waits {
            self.check_start(current, &format!("source pod: {what}"), &what).await;
        } else if !running.is_empty() {
            let since = current.transfer.running_since.get_or_insert(Time(self.now)).clone();
            let limit = self.migration.spec.limits.run_seconds;
            if let Some(limit) = limit {
                self.due_after(&since, limit + 1);
            }
            if let Some(limit) =
                limit.filter(|limit| observe::seconds_since(&since, self.now) > *limit)
            {
                let what = format!("not finished within limits.runSeconds ({limit} s)");
                self.fail_all(current, &Failure::new("DeadlineExceeded", what, true)).await;
            }
        }
        Ok(())
    }

    /// Pods may take so long to start; `what` is said until then.
    async fn check_start(&mut self, current: &mut Current, message: &str, what: &str) {
        let limit = self.migration.spec.limits.start_seconds;
        self.status.message = message.into();
        let begun = current.transfer.start_time.clone();
        if let Some(begun) = &begun {
            self.due_after(begun, limit + 1);
        }
        let late = begun.is_some_and(|begun| observe::seconds_since(&begun, self.now) > limit);
        if late {
            let failure = observe::too_late(what, limit);
            self.fail_all(current, &failure).await;
        }
    }

    /// True while a volume of an active transfer has not come to an end.
    pub(super) fn is_open(&self, index: usize) -> bool {
        let phase = self.status.volumes.get(index).map(|volume| volume.phase);
        matches!(phase, Some(VolumePhase::Starting | VolumePhase::Running))
    }
}

/// A limit of zero deletions that was reached means that the target holds what the source does not have.
fn not_empty(volume: &Planned, client: &Pod, failure: Failure) -> Failure {
    if !build::keeps_extraneous(client, volume)
        || failure.exit_code != Some(i32::from(ExitCode::DeleteLimit.number()))
    {
        return failure;
    }
    let (entries, written) =
        failure.report.as_ref().map_or((0, 0), |report| (report.entries, report.files_written));
    let message = format!(
        "PVC {} contains files that {} does not have: {entries} entries compared, {written} files written, 0 deleted; \
         set transfer.overwrite to delete them, or choose another PVC",
        volume.target, volume.claim
    );
    Failure {
        reason: "TargetNotEmpty".into(),
        message: message.into(),
        retryable: false,
        ..failure
    }
}

fn not_ours(pod: &Pod) -> Failure {
    let what = format!("pod {} exists and was not created by this migration", pod.name_any());
    Failure::new("PodNotOwned", what, false)
}
