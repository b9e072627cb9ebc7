//! A device's place in this process: what it may do, and the signal that it has to go. No IO.

use super::Roster;
use super::allowance::Allowance;
use super::expiry::Expiry;
use super::records::Rules;
use arc_swap::ArcSwap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tidegate_contract::desired::{self, Document};
use tidegate_contract::fleet::DeviceLimits;
use tidegate_contract::{Address, Filter, Permission, Principal};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What a device wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write a record.
    Publish,
    /// Ask for records, by filter or by address.
    Subscribe,
    /// Be given one record that a subscription matched.
    Receive,
}

/// What the action is about.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// One address.
    Address(&'a Address),
    /// Every address that a filter matches.
    Filter(&'a Filter),
}

impl<'a> From<&'a Address> for Target<'a> {
    fn from(address: &'a Address) -> Self {
        Self::Address(address)
    }
}

impl<'a> From<&'a Filter> for Target<'a> {
    fn from(filter: &'a Filter) -> Self {
        Self::Filter(filter)
    }
}

/// The answer no: permanent, the device must not try again (MQTT 5 0x87, HTTP 403).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has no right to do this")]
pub struct Denied;

/// A connection of a device that was let in. It follows the directory: rights change under it, and
/// [`Admission::ended`] tells when it has to go. Dropping it gives the place back.
pub struct Admission {
    roster: Roster,
    id: u64,
    pass: Arc<Pass>,
    ended: CancellationToken,
    /// Looked at by whoever waits for the end.
    expiry: Option<Mutex<Expiry>>,
}

/// What all connections of a device share.
#[derive(Debug)]
pub(super) struct Pass {
    principal: Principal,
    rights: ArcSwap<Rights>,
    allowance: Mutex<Allowance>,
    /// Told when the desired document in `rights` is another.
    configured: Notify,
}

/// A fleet's rules for one device. Few filters, so each is asked: a tree of them costs every device more memory than
/// it saves time.
#[derive(Debug, Default)]
struct Rights {
    publish: Box<[Filter]>,
    subscribe: Box<[Filter]>,
    limits: DeviceLimits,
    configuration: Option<Arc<Document>>,
}

impl Pass {
    /// A pass that allows nothing yet.
    pub(super) fn new(principal: Principal) -> Self {
        Self { principal, rights: ArcSwap::default(), allowance: Mutex::default(), configured: Notify::new() }
    }

    /// Takes over the rules of the device's fleet.
    pub(super) fn resolve(&self, rules: &Rules) {
        let filters = |permissions: &[Permission]| {
            permissions.iter().filter_map(|permission| permission.resolve(&self.principal)).collect()
        };
        let (publish, subscribe) = (filters(&rules.publish), filters(&rules.subscribe));
        let configuration = rules.configuration.clone();
        let before =
            self.rights.swap(Arc::new(Rights { publish, subscribe, limits: rules.limits, configuration }));
        if before.configuration != rules.configuration {
            self.configured.notify_waiters();
        }
    }

    /// Whether nothing is owed for what was published.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        self.allowance().is_settled(now)
    }

    fn allowance(&self) -> std::sync::MutexGuard<'_, Allowance> {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission {
    pub(super) fn new(
        roster: Roster,
        id: u64,
        pass: Arc<Pass>,
        ended: CancellationToken,
        not_after: Option<SystemTime>,
    ) -> Self {
        Self { roster, id, pass, ended, expiry: not_after.map(Expiry::new).map(Mutex::new) }
    }

    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.pass.principal
    }

    /// Whether the device may do it, as of now. Whatever no permission of its fleet allows is denied.
    ///
    /// An address is allowed if one filter matches it. A filter is allowed if one of them covers it whole: a wider
    /// subscription is refused, not thinned out, because its owner would take silence for absence, and the gateway
    /// would read topics for nobody. Rights may shrink under a subscription, so each delivery is asked for as well.
    pub fn check<'a>(&self, action: Action, target: impl Into<Target<'a>>) -> Result<(), Denied> {
        let rights = self.pass.rights.load();
        let filters = match action {
            Action::Publish => &rights.publish,
            Action::Subscribe | Action::Receive => &rights.subscribe,
        };
        let allowed = match target.into() {
            Target::Address(address) => filters.iter().any(|filter| filter.matches(address)),
            Target::Filter(wanted) if wanted.is_kept() => {
                let owner = desired::owner(wanted.as_str()).filter(|_| action != Action::Publish);
                return owner.map_or(Err(Denied), |owner| self.owns(owner));
            }
            Target::Filter(wanted) => filters.iter().any(|filter| filter.covers(wanted)),
        };
        if allowed && !self.ended.is_cancelled() { Ok(()) } else { Err(Denied) }
    }

    /// Whether the device may read the desired document of `owner` (see [`desired::owner`]): its own without a
    /// permission, another's never.
    pub fn owns(&self, owner: &str) -> Result<(), Denied> {
        let own = owner == self.pass.principal.as_str();
        if own && !self.ended.is_cancelled() { Ok(()) } else { Err(Denied) }
    }

    /// The device's desired document, as of now; nothing if its fleet has none.
    pub fn configuration(&self) -> Option<Arc<Document>> {
        self.pass.rights.load().configuration.clone()
    }

    /// Returns when the desired document is another than `known`. Cancel-safe.
    pub async fn configured(&self, known: Option<&Document>) {
        loop {
            // it hears of what happens from here on, so nothing is missed between the look and the wait
            let told = self.pass.configured.notified();
            if self.pass.rights.load().configuration.as_deref() != known {
                return;
            }
            told.await;
        }
    }

    /// How long the device has to wait before it may publish again; nothing: it may now.
    pub fn wait(&self) -> Option<Duration> {
        self.pass.allowance().wait(Instant::now())
    }

    /// Counts a message with a payload of so many bytes that the device publishes.
    pub fn spend(&self, bytes: usize) {
        let limits = self.pass.rights.load().limits;
        if limits.publish_rate.is_some() || limits.publish_bytes.is_some() {
            self.pass.allowance().spend(&limits, bytes, Instant::now());
        }
    }

    /// Returns when the device may not be here any more: it was removed, disabled, got another password, its
    /// certificate is out of date, or its fleet did not leave it the way in which it came. For one task at a time;
    /// cancel-safe.
    pub async fn ended(&self) {
        let Some(expiry) = &self.expiry else { return self.ended.cancelled().await };
        let expired = poll_fn(|context| expiry.lock().unwrap_or_else(PoisonError::into_inner).poll(context));
        tokio::select! {
            () = self.ended.cancelled() => {}
            () = expired => self.ended.cancel(),
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.roster.release(&self.pass.principal, self.id);
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("principal", &self.pass.principal).finish_non_exhaustive()
    }
}
