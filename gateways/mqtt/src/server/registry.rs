//! Who is connected to this process under which client identifier. An identifier is a device's own: no device can end
//! another's connection with it. No IO.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_core::Principal;
use tokio_util::sync::CancellationToken;

/// A device's client identifier.
type Name = (Principal, String);

/// The owners of client identifiers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    owners: Arc<Mutex<HashMap<Name, Owner>>>,
}

#[derive(Debug)]
struct Owner {
    connection: u64,
    ended: CancellationToken,
}

/// Ownership of one client identifier; dropping it gives it up.
#[derive(Debug)]
pub(super) struct Claim {
    registry: Registry,
    name: Name,
    connection: u64,
    ended: CancellationToken,
}

impl Registry {
    /// Makes `connection` the owner. The owner before it, if there is one, is told (MQTT-3.1.4-3).
    pub(super) fn claim(&self, principal: Principal, client_id: String, connection: u64) -> Claim {
        let name = (principal, client_id);
        let ended = CancellationToken::new();
        let owner = Owner { connection, ended: ended.clone() };
        let before = self.lock().insert(name.clone(), owner);
        if let Some(before) = before {
            before.ended.cancel();
        }
        Claim { registry: self.clone(), name, connection, ended }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Returns when another connection owns the identifier.
    pub(super) async fn lost(&self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut owners = self.registry.lock();
        if owners.get(&self.name).is_some_and(|owner| owner.connection == self.connection) {
            owners.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_connection_owns_the_identifier_and_the_older_ones_end_does_not_change_that() {
        let registry = Registry::default();
        let claim = |device, connection| {
            registry.claim(Principal::parse(device).unwrap(), "meter".to_owned(), connection)
        };
        let first = claim("meters/1", 1);
        let other = claim("meters/2", 2);
        assert!(!first.ended.is_cancelled(), "an identifier is a device's own");
        let second = claim("meters/1", 3);
        assert!(first.ended.is_cancelled() && !second.ended.is_cancelled());
        drop(first);
        let third = claim("meters/1", 4);
        assert!(second.ended.is_cancelled() && !other.ended.is_cancelled());
        drop((second, third, other));
        assert!(registry.lock().is_empty());
    }
}
