//! The hub's part for fleets: which are declared, and what their controller wants the directory to hold of each. No IO.

use super::{Hub, Key};
use crate::kafka::bell::Bell;
use crate::kafka::fleets::{Declared, FleetRecords, Fleets};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use kube::{Resource as _, ResourceExt as _};
use std::collections::HashMap;
use std::sync::Arc;
use tidegate_crds::{DeviceFleet, labels};
use tokio::sync::watch;

/// A fleet as it is watched.
type Guarded = DeserializeGuard<DeviceFleet>;

/// What the hub knows of fleets.
pub(super) struct Shared {
    /// All fleets, from each watch.
    stores: watch::Sender<Vec<Store<Guarded>>>,
    /// How many watches there shall be.
    expected: watch::Sender<usize>,
    /// What their controller wishes for, by platform.
    wishes: std::sync::Mutex<HashMap<Key, Arc<Fleets>>>,
    pub(super) bell: Bell<DeviceFleet>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            stores: watch::Sender::new(Vec::new()),
            expected: watch::Sender::new(0),
            wishes: std::sync::Mutex::default(),
            bell: Bell::default(),
        }
    }
}

impl Shared {
    fn wishes(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Fleets>>> {
        self.wishes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Waits until all fleets were listed once: a directory must not lose those that are not in view yet.
    pub(super) async fn wait_until_ready(&self) {
        let expected = *self.expected.borrow();
        let stores = match self.stores.subscribe().wait_for(|stores| stores.len() >= expected).await {
            Ok(stores) => stores.clone(),
            Err(_) => return,
        };
        for store in stores {
            let _ = store.wait_until_ready().await;
        }
    }

    pub(super) fn forget(&self, key: &Key) {
        self.wishes().remove(key);
    }
}

impl Hub {
    /// Says that sweeps have to wait for so many watches of fleets, before any begins.
    pub fn expect_fleets(&self, watches: usize) {
        self.fleets.expected.send_replace(watches);
    }

    /// Lets sweeps see the fleets of one more watch.
    pub fn add_fleets(&self, store: Store<Guarded>) {
        self.fleets.stores.send_modify(|stores| stores.push(store));
    }

    /// The bell for fleets.
    pub const fn fleet_bell(&self) -> &Bell<DeviceFleet> {
        &self.fleets.bell
    }

    /// The fleets of a platform that can be read.
    pub fn fleets(&self, key: &Key) -> Vec<Arc<Guarded>> {
        let stores = self.fleets.stores.borrow().clone();
        let mut all: Vec<_> = stores.iter().flat_map(Store::state).collect();
        let ours = |fleet: &DeviceFleet| fleet.spec.platform_ref.name == key.name;
        all.retain(|fleet| {
            fleet.namespace().as_deref() == Some(&key.namespace) && fleet.0.as_ref().is_ok_and(ours)
        });
        all
    }

    /// Which fleets of a platform there are. One that is being deleted is none any more.
    pub(in crate::kafka) fn declared(&self, key: &Key) -> Declared {
        let mut declared = Declared::default();
        for store in self.fleets.stores.borrow().iter() {
            for object in store.state() {
                if object.namespace().as_deref() != Some(&key.namespace)
                    || object.meta().deletion_timestamp.is_some()
                {
                    continue;
                }
                match &object.0 {
                    Err(_) => drop(declared.kept.insert(object.name_any())),
                    Ok(fleet) if fleet.spec.platform_ref.name != key.name => {}
                    Ok(fleet) if labels::is_true(fleet.annotations().get(labels::PAUSED)) => {
                        declared.kept.insert(object.name_any());
                    }
                    Ok(_) => drop(declared.followed.insert(object.name_any())),
                }
            }
        }
        declared
    }

    /// Says what the directory is to hold of a fleet; the snapshot tells what it holds.
    pub fn want_fleet(&self, key: &Key, name: &str, records: &Arc<FleetRecords>) {
        let mut wishes = self.fleets.wishes();
        let wishes = wishes.entry(key.clone()).or_default();
        if wishes.get(name) == Some(records) {
            return;
        }
        Arc::make_mut(wishes).insert(name.to_owned(), Arc::clone(records));
        self.nudge(key);
    }

    /// Nobody speaks for a fleet any more: it is gone, or another platform's.
    pub fn forget_fleet(&self, key: &Key, name: &str) {
        if let Some(wishes) = self.fleets.wishes().get_mut(key).filter(|wishes| wishes.contains_key(name)) {
            Arc::make_mut(wishes).remove(name);
        }
        self.nudge(key);
    }

    /// What is wished for.
    pub fn wishes(&self, key: &Key) -> Arc<Fleets> {
        self.fleets.wishes().get(key).cloned().unwrap_or_default()
    }

    /// Lets the fleets look of which the directory holds something else than before; all, where that is not known.
    pub(in crate::kafka) fn ring_fleets(&self, key: &Key, before: Option<&Fleets>, now: Option<&Fleets>) {
        let (Some(before), Some(now)) = (before, now) else {
            for fleet in self.fleets(key) {
                self.fleets.bell.ring(&key.namespace, &fleet.name_any());
            }
            return;
        };
        let same = |name: &str, records: &Arc<FleetRecords>| {
            before.get(name).is_some_and(|before| Arc::ptr_eq(before, records))
        };
        for (name, _) in now.iter().filter(|(name, records)| !same(name, records)) {
            self.fleets.bell.ring(&key.namespace, name);
        }
        for name in before.keys().filter(|name| !now.contains_key(*name)) {
            self.fleets.bell.ring(&key.namespace, name);
        }
    }
}
