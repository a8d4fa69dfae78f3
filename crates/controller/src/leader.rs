//! One instance leads: by a Lease, as other controllers do it.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::build::MANAGER;

/// Seconds for which a lease holds.
const HOLDS: i32 = 15;
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(4);
/// After so long without a renewal a leader is none any more: earlier than another one may take over.
const GIVE_UP: Duration = Duration::from_secs(10);

pub(crate) struct Leadership {
    leases: Api<Lease>,
    name: String,
    me: String,
}

impl Leadership {
    pub(crate) fn new(client: Client, namespace: &str, name: &str, me: &str) -> Self {
        Self { leases: Api::namespaced(client, namespace), name: name.into(), me: me.into() }
    }

    /// Waits until this instance leads.
    pub(crate) async fn acquire(&self) {
        loop {
            match self.try_acquire().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!("leader election: {error}"),
            }
            sleep(RENEW / 2).await;
        }
    }

    /// Renews the lease; returns once it is lost.
    pub(crate) async fn keep(&self) {
        let mut renewed = Instant::now();
        loop {
            let given_up = renewed + GIVE_UP;
            sleep_until(given_up.min(Instant::now() + RENEW)).await;
            let begun = Instant::now();
            if begun >= given_up {
                return;
            }
            match timeout_at(given_up.min(begun + RENEW), self.try_acquire()).await {
                Ok(Ok(true)) => renewed = begun,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!("leader election: {error}"),
                Err(_) => tracing::warn!("leader election: the API server does not respond"),
            }
        }
    }

    /// Lets another instance lead at once.
    pub(crate) async fn release(&self) {
        let patch =
            serde_json::json!({ "spec": { "holderIdentity": "", "leaseDurationSeconds": 1 } });
        let ours = self.leases.get_opt(&self.name).await.ok().flatten();
        if ours.is_some_and(|lease| self.holder(&lease) == Some(&self.me)) {
            let _ =
                self.leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await;
        }
    }

    fn holder<'a>(&self, lease: &'a Lease) -> Option<&'a String> {
        lease.spec.as_ref()?.holder_identity.as_ref()
    }

    async fn try_acquire(&self) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.held(now, LeaseSpec::default())),
            };
            let params =
                PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
            return match self.leases.create(&params, &lease).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
                Err(error) => Err(error),
            };
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let renewed = spec.renew_time.as_ref().map_or(0, |time| time.0.as_second());
        let expired =
            now.as_second() > renewed + i64::from(spec.lease_duration_seconds.unwrap_or(HOLDS));
        if holder != self.me && !holder.is_empty() && !expired {
            return Ok(false);
        }
        lease.spec = Some(self.held(now, spec));
        // The version in its metadata makes this fail where somebody else was quicker.
        match self.leases.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn held(&self, now: Timestamp, before: LeaseSpec) -> LeaseSpec {
        let mine = before.holder_identity.as_deref() == Some(&self.me);
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(!mine);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: Some(HOLDS),
            acquire_time: if mine { before.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}
