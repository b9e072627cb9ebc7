//! Who may come in, and who is in: the directory's fleets and devices with the connections of this process. A change
//! of either reaches a connection at once. No IO: the directory's thread feeds it.

mod admission;
mod allowance;
mod authorities;
mod expiry;
mod records;

pub use admission::{Action, Admission, Denied, Target};
pub(crate) use authorities::Authority;
pub(crate) use records::{Barred, Records, Unnamed, Way};

use crate::tls::DeviceCertificate;
use admission::Pass;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;
use tidegate_contract::Principal;
use tidegate_contract::credential::Credential;
use tidegate_contract::fleet::{DeviceEntry, FleetEntry};
use tokio_util::sync::CancellationToken;

/// So many devices are kept before those are looked for that are no longer connected.
const SWEEP: usize = 1024;

/// Fleets, devices and who of them is connected here. Cheap to clone.
#[derive(Clone, Default)]
pub struct Roster {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    records: RwLock<Records>,
    /// Taken before `records` where both are.
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    devices: HashMap<Principal, Seat>,
    /// With so many of them the next sweep is due.
    sweep_at: usize,
    next: u64,
}

/// A device that is connected, or owes for what it published a moment ago.
struct Seat {
    pass: Arc<Pass>,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    way: Way,
    name: Option<Box<str>>,
    ended: CancellationToken,
}

/// Whom a change concerns.
#[derive(Clone, Copy)]
enum Whom<'a> {
    Device(&'a Principal),
    Fleet {
        name: &'a str,
        /// Others who came with certificates as well.
        authorities: bool,
    },
    All,
}

/// Why a device that proved who it is has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSeat {
    /// It may not be here.
    Barred(Barred),
    /// It has as many connections as it may have.
    TooMany,
}

impl Roster {
    /// Takes a fleet's record, or that it has none any more. Whoever may not stay is told to go.
    pub fn put_fleet(&self, name: &str, entry: Option<&FleetEntry>) {
        let authorities = self.write().put_fleet(name, entry);
        self.reassess(Whom::Fleet { name, authorities });
    }

    /// Takes a device's record, or that it has none any more. False: its credential cannot be read.
    pub fn put_device(&self, principal: &Principal, entry: Option<&DeviceEntry>) -> bool {
        let readable = self.write().put_device(principal, entry);
        self.reassess(Whom::Device(principal));
        readable
    }

    /// How many fleets and devices there are.
    pub fn count(&self) -> (usize, usize) {
        self.read().count()
    }

    /// Takes all records anew.
    pub(crate) fn replace(&self, records: Records) {
        *self.write() = records;
        self.reassess(Whom::All);
    }

    /// The credential that a device's password has to fit.
    pub(crate) fn credential(&self, principal: &Principal) -> Option<Credential> {
        self.read().credential(principal)
    }

    /// Who somebody is who says nothing at all.
    pub(crate) fn anonymous(&self) -> Option<Principal> {
        self.read().anonymous().cloned()
    }

    /// The authorities of all fleets for which the question is answered with yes.
    pub(crate) fn authorities(&self, which: impl Fn(&Authority) -> bool) -> Vec<Arc<Authority>> {
        self.read().authorities(which)
    }

    /// Who came with a certificate, and how.
    pub(crate) fn named(&self, certificate: &DeviceCertificate) -> Result<(Principal, Way), Unnamed> {
        self.read().named(certificate)
    }

    /// Lets a device in that proved in this way who it is. A connection with the name of an earlier one of the same
    /// device takes its place.
    pub(crate) fn seat(
        &self,
        principal: &Principal,
        way: Way,
        name: Option<&str>,
    ) -> Result<Admission, NoSeat> {
        let mut seats = self.seats();
        // a change comes before this look, or finds the new connection
        let rules = self.read().standing(principal, &way).map(Arc::clone).map_err(NoSeat::Barred)?;
        seats.sweep();
        seats.next += 1;
        let id = seats.next;
        let seat = seats.devices.entry(principal.clone()).or_insert_with(|| Seat {
            pass: Arc::new(Pass::new(principal.clone())),
            connections: HashMap::new(),
        });
        seat.pass.resolve(&rules);
        let limit = rules.limits.connections_per_device.map_or(usize::MAX, |limit| limit as usize);
        if seat.connections.len() >= limit {
            let others =
                seat.connections.values().filter(|other| name.is_none() || other.name.as_deref() != name);
            if others.count() >= limit {
                return Err(NoSeat::TooMany);
            }
        }
        let (ended, not_after) = (CancellationToken::new(), way.not_after());
        let connection = Connection { way, name: name.map(Into::into), ended: ended.clone() };
        seat.connections.insert(id, connection);
        Ok(Admission::new(self.clone(), id, Arc::clone(&seat.pass), ended, not_after))
    }

    /// A connection ended.
    fn release(&self, principal: &Principal, id: u64) {
        let mut seats = self.seats();
        let Some(seat) = seats.devices.get_mut(principal) else { return };
        seat.connections.remove(&id);
        if seat.is_vacant(Instant::now()) {
            seats.devices.remove(principal);
        }
    }

    /// Looks again whether those who are connected may be, and by which rules.
    fn reassess(&self, whom: Whom<'_>) {
        let mut seats = self.seats();
        let records = self.read();
        match whom {
            Whom::Device(principal) => {
                if let Some(seat) = seats.devices.get_mut(principal) {
                    seat.reassess(principal, &records);
                }
            }
            Whom::Fleet { name, authorities } => {
                // who is anonymous may have changed for another fleet as well
                let concerned = |(principal, seat): &(&Principal, &mut Seat)| {
                    principal.fleet() == name || seat.is_shared(authorities)
                };
                for (principal, seat) in seats.devices.iter_mut().filter(concerned) {
                    seat.reassess(principal, &records);
                }
            }
            Whom::All => {
                for (principal, seat) in &mut seats.devices {
                    seat.reassess(principal, &records);
                }
            }
        }
    }

    // a panic elsewhere leaves nothing half done that matters here

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.inner.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, Records> {
        self.inner.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Records> {
        self.inner.records.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Forgets devices that are gone and owe nothing; whenever there are twice as many as were left the last time.
    fn sweep(&mut self) {
        if self.devices.len() >= self.sweep_at.max(SWEEP) {
            let now = Instant::now();
            self.devices.retain(|_, seat| !seat.is_vacant(now));
            self.sweep_at = 2 * self.devices.len();
        }
    }
}

impl Seat {
    /// Tells those to go who may not be here any more; the others follow the rules as they are now.
    fn reassess(&mut self, principal: &Principal, records: &Records) {
        let mut rules = None;
        self.connections.retain(|_, connection| {
            let standing = records.standing(principal, &connection.way);
            match standing {
                Ok(found) => rules = Some(found),
                Err(_) => connection.ended.cancel(),
            }
            standing.is_ok()
        });
        if let Some(rules) = rules {
            self.pass.resolve(rules);
        }
    }

    /// Whether another fleet's record may concern it.
    fn is_shared(&self, authorities: bool) -> bool {
        self.connections.values().any(|connection| match connection.way {
            Way::Anonymous => true,
            Way::Certificate(_) => authorities,
            Way::Password(_) => false,
        })
    }

    fn is_vacant(&self, now: Instant) -> bool {
        self.connections.is_empty() && self.pass.is_settled(now)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roster").field("count", &self.count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
