//! The fleet controller: resolves what a fleet refers to, lets the platform's sweep write its records, and says how it
//! is. IO against the API server only.

use super::authorities::{self, Authorities, AuthorityError};
use super::claims::{Candidate, Claim, Decided, Standing};
use super::judge::{AuthorityTrouble, Found, Verdict, judge, references, unread};
use super::memory::Memory;
use super::passwords::{Fleet, Passwords};
use super::records::{self, Authority, Given, build};
use super::validate::{Valid, validate};
use crate::frame::driver::{Watches, read};
use crate::frame::malformed::Malformed;
use crate::frame::platforms::{Guarded, Platforms};
use crate::frame::secrets::{Secrets, User, Version};
use crate::frame::{Class, Cycle, Failure, Reconciler, Scope, StepError};
use crate::kafka::fleets::FleetRecords;
use crate::kafka::hub::{Hub, Key};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::common::SecretKeyRef;
use tidegate_crds::conditions::RESOLVED_REFS;
use tidegate_crds::fleet::DeviceCounts;
use tidegate_crds::{DeviceFleet, State, reasons};
use time::OffsetDateTime;

/// Why a pass over a fleet ends early.
#[derive(Debug, thiserror::Error)]
enum FleetError {
    /// There is no such platform.
    #[error(
        "spec.platformRef.name: there is no IoTPlatform {0:?} in this namespace; create it or name another"
    )]
    NoPlatform(String),
    /// The platform does not fit this version.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl StepError for FleetError {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoPlatform(_) => reasons::PLATFORM_NOT_FOUND,
            Self::Malformed(error) => error.reason(),
        }
    }

    fn class(&self) -> Class {
        Class::Blocked
    }

    fn condition(&self) -> Option<&'static str> {
        Some(RESOLVED_REFS)
    }
}

/// The fleet controller.
pub struct FleetController {
    hub: Arc<Hub>,
    platforms: Platforms,
    memory: Arc<Memory>,
    pub(super) secrets: Arc<Secrets>,
    passwords: Arc<Passwords>,
}

impl FleetController {
    /// A controller that meets the platforms' sweeps in `hub`; they wait until its watches have listed all fleets.
    /// `watches`: how many that will be. Its watch of Secrets tells all who refer to `secrets`.
    pub fn new(hub: Arc<Hub>, secrets: Arc<Secrets>, watches: usize) -> Self {
        hub.expect_fleets(watches);
        let memory = Arc::<Memory>::default();
        let (kept, bell) = (Arc::clone(&memory), Arc::clone(&hub));
        let sink = move |fleet: &Fleet, made: Vec<_>| {
            kept.made(fleet, made);
            bell.fleet_bell().ring(&fleet.0, &fleet.1);
        };
        let passwords = Passwords::new(Arc::clone(&secrets), Box::new(sink));
        Self { hub, platforms: Platforms::default(), memory, secrets, passwords }
    }

    /// Says what a fleet asks for, and lets those look again whom that concerns.
    fn claim(&self, key: &Key, fleet: &DeviceFleet, ids: BTreeSet<authorities::Id>) -> Decided {
        let all = self.hub.fleets(key);
        let mut candidates: Vec<_> = all
            .iter()
            .filter(|fleet| fleet.meta().deletion_timestamp.is_none())
            .filter_map(|fleet| fleet.0.as_ref().ok().map(candidate))
            .collect();
        let own = candidate(fleet);
        candidates.retain(|one| one.name != own.name);
        let claim = Claim { uid: own.uid.clone(), ids, anonymous: own.anonymous, waits_for: None };
        let name = own.name.clone();
        candidates.push(own);
        let (decided, others) = self.memory.claim(key, &name, claim, candidates);
        for other in others {
            self.hub.fleet_bell().ring(&key.namespace, &other);
        }
        decided
    }

    /// What stays as it is asks for what it has.
    fn claim_as_before(&self, key: &Key, fleet: &DeviceFleet, before: &FleetRecords) -> Decided {
        let x509 =
            before.fleet.as_deref().and_then(records::fleet).and_then(|entry| entry.authentication.x509);
        self.claim(key, fleet, x509.map(|x509| authorities::ids(&x509.authorities)).unwrap_or_default())
    }

    /// The fleet is gone, or will be.
    fn renounce(&self, fleet: &Fleet) {
        let (namespace, name) = fleet;
        self.secrets.used(namespace, &User::fleet(name), &BTreeSet::new());
        if let Some(key) = self.memory.forget(fleet) {
            self.leave(&key, name);
        }
    }

    /// The fleet is this platform's no more.
    fn leave(&self, key: &Key, name: &str) {
        for other in self.memory.renounce(key, name) {
            self.hub.fleet_bell().ring(&key.namespace, &other);
        }
        self.hub.forget_fleet(key, name);
    }

    /// The certificate authorities that a fleet names; read once for each version of their Secret.
    async fn authority(
        &self,
        cycle: &Cycle<DeviceFleet>,
        fleet: &Fleet,
        valid: &Valid,
        now: OffsetDateTime,
    ) -> Result<Option<Result<Authorities, AuthorityTrouble>>, Failure> {
        let Some(x509) = &valid.x509 else { return Ok(None) };
        let SecretKeyRef { name, key } = &x509.authorities;
        let version = self.secrets.version(&fleet.0, name);
        let source = version.map(|version| version.source(key));
        if let Some(known) = self.memory.authority(fleet, source.as_ref())
            && known
                .as_ref()
                .map_or_else(AuthorityTrouble::until, |known| known.until)
                .is_none_or(|until| now < until)
        {
            return Ok(Some(known));
        }
        let secret = read::<Secret>(&cycle.context, &fleet.0, name).await?;
        let seen = secret.as_ref().and_then(|secret| Version::of(&secret.metadata));
        self.secrets.saw(&fleet.0, name, seen);
        let found = authority(secret.as_ref(), &x509.authorities, now);
        self.memory.keep_authority(fleet, (seen.map(|seen| seen.source(key)), found.clone()));
        Ok(Some(found))
    }
}

impl AuthorityTrouble {
    /// When it may be another.
    fn until(&self) -> Option<OffsetDateTime> {
        match self {
            Self::Unusable { error: AuthorityError::OutOfDate { until, .. }, .. } => *until,
            _ => None,
        }
    }
}

/// The authorities that a Secret holds.
fn authority(
    secret: Option<&Secret>,
    reference: &SecretKeyRef,
    now: OffsetDateTime,
) -> Result<Authorities, AuthorityTrouble> {
    let SecretKeyRef { name, key } = reference.clone();
    let Some(secret) = secret else { return Err(AuthorityTrouble::Missing(name)) };
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(&key)) else {
        let there = secret.data.iter().flatten().map(|(key, _)| format!("{key:?}")).collect();
        return Err(AuthorityTrouble::NoKey { secret: name, key, there });
    };
    authorities::read(&value.0, now).map_err(|error| AuthorityTrouble::Unusable { secret: name, key, error })
}

fn candidate(fleet: &DeviceFleet) -> Candidate {
    Candidate {
        name: fleet.name_any(),
        uid: fleet.uid().unwrap_or_default(),
        made: fleet.metadata.creation_timestamp.as_ref().map(|time| time.0),
        x509: fleet.spec.authentication.x509.is_some(),
        anonymous: fleet.spec.authentication.anonymous.is_some(),
    }
}

fn say(cycle: &mut Cycle<DeviceFleet>, verdict: Verdict) {
    match verdict {
        Verdict::Ready(message) => cycle.ready(State::True, reasons::READY, message),
        Verdict::Waiting(reason, message) => {
            cycle.ready(State::False, reason, message.as_str());
            cycle.progressing(reason, message);
        }
    }
}

impl Reconciler for FleetController {
    type Subject = DeviceFleet;

    const NAME: &'static str = "fleet";
    const STATUS_REST: Duration = Duration::from_secs(5);

    fn watch(&self, controller: Watches<DeviceFleet>, scope: &Scope) -> Watches<DeviceFleet> {
        let fleets = controller.store();
        self.hub.add_fleets(fleets.clone());
        // Only that it came or went, or became readable, is news.
        let part = |platform: &Guarded| {
            let meta = platform.meta();
            (meta.uid.clone(), meta.deletion_timestamp.is_some(), platform.0.is_ok())
        };
        let attached = move |platform: ObjectRef<Guarded>| {
            let names = |fleet: &DeviceFleet| fleet.spec.platform_ref.name == platform.name;
            let all = fleets
                .state()
                .into_iter()
                .filter(|fleet| fleet.namespace() == platform.namespace && fleet.0.as_ref().is_ok_and(names));
            stream::iter(all.map(|fleet| ObjectRef::from_obj(&*fleet)).collect::<Vec<_>>())
        };
        controller
            .reconcile_on(self.platforms.watch(scope, part).flat_map(attached))
            .reconcile_on(self.secrets.watch(scope))
            .reconcile_on(self.hub.fleet_bell().listen())
    }

    async fn reconcile(&self, cycle: &mut Cycle<DeviceFleet>) -> Result<(), Failure> {
        let subject = Arc::clone(&cycle.subject);
        let fleet: Fleet = (cycle.namespace(), cycle.name());
        let key = Key::new(&fleet.0, &subject.spec.platform_ref.name);
        if let Some(before) = self.memory.meet(&fleet, &subject.uid().unwrap_or_default(), &key) {
            self.leave(&before, &fleet.1);
        }
        let snapshot = self.hub.snapshot(&key);
        let held = snapshot.as_ref().and_then(|snapshot| snapshot.fleets.clone());
        let held = held.map(|held| held.get(&fleet.1).cloned().unwrap_or_default());
        // What was wished for last is newer than what is there.
        let before = held.as_ref().map(|held| self.memory.wish(&fleet).unwrap_or_else(|| Arc::clone(held)));
        let checked = validate(&subject);
        if let (Some(before), true) = (&before, checked.is_err() || cycle.paused()) {
            self.claim_as_before(&key, &subject, before);
        }
        let valid = checked?;
        self.secrets.used(&fleet.0, &User::fleet(&fleet.1), &valid.secrets());
        let platform = self.platforms.read(&cycle.context, &key.namespace, &key.name).await?;
        platform.ok_or_else(|| FleetError::NoPlatform(key.name.clone()))?.map_err(FleetError::from)?;
        let (Some(snapshot), Some(held), Some(before)) = (&snapshot, held, before) else {
            say(cycle, unread(snapshot.as_deref()));
            return Ok(());
        };
        if !self.secrets.listed(&fleet.0) {
            let text = "waiting for the list of Secrets".to_owned();
            say(cycle, Verdict::Waiting(reasons::PROGRESSING, text));
            return Ok(());
        }

        let now = OffsetDateTime::from_unix_timestamp(cycle.now().as_second())
            .unwrap_or_else(|_| OffsetDateTime::now_utc());
        let authority = self.authority(cycle, &fleet, &valid, now).await?;
        let usable = authority.as_ref().and_then(|found| found.as_ref().ok());
        let trouble = authority.as_ref().and_then(|found| found.as_ref().err());
        let until = usable.map_or_else(|| trouble.and_then(AuthorityTrouble::until), |usable| usable.until);
        if let Some(wait) = until.and_then(|until| Duration::try_from(until - now).ok()) {
            // A certificate is valid to the end of its last second.
            cycle.requeue_after(wait + Duration::from_secs(1));
        }
        let decided = if cycle.paused() {
            self.claim_as_before(&key, &subject, &before)
        } else {
            self.claim(&key, &subject, usable.map(|usable| usable.ids.clone()).unwrap_or_default())
        };

        let progress = self.memory.progress(&fleet);
        let source = |secret: &SecretKeyRef| {
            self.secrets.version(&fleet.0, &secret.name).map(|version| version.source(&secret.key))
        };
        let mut built = build(&Given {
            valid: &valid,
            before: &before,
            authority: match (&decided.x509, usable) {
                (Standing::Has, Some(usable)) => Authority::Some(&usable.pem),
                (Standing::Unknown(_), Some(_)) => Authority::AsBefore,
                (Standing::Lost(_), _) | (_, None) => Authority::None,
            },
            anonymous: decided.anonymous == Standing::Has,
            progress: &progress,
            source: &source,
        });
        cycle.status.devices =
            Some(DeviceCounts { registered: Some(built.registered), ..DeviceCounts::default() });
        if !cycle.paused() {
            let mut needs = Vec::new();
            for (source, need) in std::mem::take(&mut built.needs) {
                self.memory.asked(&fleet, &need.device, &source);
                needs.push(need);
            }
            self.passwords.ask(&cycle.context, &fleet, needs);
            // Records that are as they were are the same ones: a sweep then has nothing to compare.
            let same = [held, before].into_iter().find(|known| **known == built.records);
            let records = same.unwrap_or_else(|| Arc::new(built.records.clone()));
            self.memory.wished(&fleet, &records);
            self.hub.want_fleet(&key, &fleet.1, &records);
        }
        let left_out = usable.map(|usable| usable.left_out.as_slice()).unwrap_or_default();
        let found = Found {
            name: &fleet.1,
            snapshot,
            built: &built,
            authority: trouble,
            left_out,
            decided: &decided,
        };
        if let Some((reason, message)) = references(&found) {
            cycle.set(RESOLVED_REFS, State::False, reason, message);
        }
        say(cycle, judge(&found)?);
        Ok(())
    }

    async fn finalize(&self, cycle: &mut Cycle<DeviceFleet>) -> Result<(), Failure> {
        self.renounce(&(cycle.namespace(), cycle.name()));
        Ok(())
    }

    fn gone(&self, namespace: &str, name: &str) {
        self.renounce(&(namespace.to_owned(), name.to_owned()));
    }
}
