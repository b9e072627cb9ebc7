//! Who is connected to this process under which client identifier. No IO.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// The owners of client identifiers. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    owners: Arc<Mutex<HashMap<String, Owner>>>,
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
    client_id: String,
    connection: u64,
    ended: CancellationToken,
}

impl Registry {
    /// Makes `connection` the owner. The owner before it, if there is one, is told (MQTT-3.1.4-3).
    pub(super) fn claim(&self, client_id: String, connection: u64) -> Claim {
        let ended = CancellationToken::new();
        let owner = Owner { connection, ended: ended.clone() };
        let before = self.lock().insert(client_id.clone(), owner);
        if let Some(before) = before {
            before.ended.cancel();
        }
        Claim { registry: self.clone(), client_id, connection, ended }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Owner>> {
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
        if owners.get(&self.client_id).is_some_and(|owner| owner.connection == self.connection) {
            owners.remove(&self.client_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_connection_owns_the_identifier_and_the_older_ones_end_does_not_change_that() {
        let registry = Registry::default();
        let first = registry.claim("meter".to_owned(), 1);
        let second = registry.claim("meter".to_owned(), 2);
        assert!(first.ended.is_cancelled() && !second.ended.is_cancelled());
        drop(first);
        let third = registry.claim("meter".to_owned(), 3);
        assert!(second.ended.is_cancelled());
        drop((second, third));
        assert!(registry.lock().is_empty());
    }
}
