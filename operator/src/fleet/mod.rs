//! The fleet controller: accepts a `DeviceFleet` and says truthfully that nothing of it is enforced yet. IO: reads
//! the platform.

use crate::frame::driver::{Watches, read};
use crate::frame::{Class, Cycle, Failure, Reconciler, Scope, StepError};
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tidegate_crds::{DeviceFleet, IoTPlatform, State, conditions, reasons};

/// What every fleet is told.
const NOT_ENFORCED: &str = "accepted and stored, but this version of Tidegate enforces no fleet: every device connects as \"anonymous\" and may publish and subscribe everywhere";

/// The fleet controller.
#[derive(Debug, Default)]
pub struct FleetController;

/// Why a fleet cannot be looked at further.
#[derive(Debug, thiserror::Error)]
#[error(
    "spec.platformRef.name: there is no IoTPlatform \"{name}\" in namespace {namespace}: create it, or write one that exists"
)]
struct PlatformNotFound {
    name: String,
    namespace: String,
}

impl StepError for PlatformNotFound {
    fn reason(&self) -> &'static str {
        reasons::PLATFORM_NOT_FOUND
    }

    fn class(&self) -> Class {
        Class::Blocked
    }

    fn condition(&self) -> Option<&'static str> {
        Some(conditions::RESOLVED_REFS)
    }
}

impl Reconciler for FleetController {
    type Subject = DeviceFleet;

    const NAME: &'static str = "fleet";

    fn watch(&self, controller: Watches<DeviceFleet>, scope: &Scope) -> Watches<DeviceFleet> {
        let fleets = controller.store();
        let of_platform = move |platform: DeserializeGuard<IoTPlatform>| {
            let (namespace, name) = (platform.namespace(), platform.name_any());
            let attached = |fleet: &DeserializeGuard<DeviceFleet>| {
                fleet.namespace() == namespace
                    && fleet.0.as_ref().is_ok_and(|fleet| fleet.spec.platform_ref.name == name)
            };
            let all = fleets.state().into_iter().filter(|fleet| attached(fleet));
            all.map(|fleet| ObjectRef::from_obj(&*fleet)).collect::<Vec<_>>()
        };
        controller.watches(
            scope.api::<DeserializeGuard<IoTPlatform>>(),
            watcher::Config::default(),
            of_platform,
        )
    }

    async fn reconcile(&self, cycle: &mut Cycle<DeviceFleet>) -> Result<(), Failure> {
        let (namespace, name) = (cycle.namespace(), cycle.subject.spec.platform_ref.name.clone());
        if read::<DeserializeGuard<IoTPlatform>>(&cycle.context, &namespace, &name).await?.is_none() {
            return Err(PlatformNotFound { name, namespace }.into());
        }
        // Nobody keeps presence yet, so no count is known.
        cycle.status.devices = None;
        cycle.ready(State::False, reasons::NOT_ENFORCED, NOT_ENFORCED);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::driver::Driver;
    use crate::frame::testing::FakeServer;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const FLEET: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/devicefleets/meters";
    const PLATFORM: &str = "/apis/tidegate.io/v1alpha1/namespaces/plant/iotplatforms/plant";

    async fn conditions(platform: Option<Value>) -> Vec<String> {
        let server = FakeServer::default();
        let fleet = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet",
            "metadata": {"name": "meters", "namespace": "plant", "uid": "x", "generation": 4},
            "spec": {"platformRef": {"name": "plant"}, "authentication": {"password": {}}},
        });
        server.put(FLEET, &fleet);
        if let Some(platform) = platform {
            server.put(PLATFORM, platform);
        }
        let driver = Driver::new(Arc::new(FleetController), server.context());
        driver.pass(Arc::new(serde_json::from_value(fleet).unwrap())).await;
        assert_eq!(server.writes(), [format!("PATCH {FLEET}/status")], "a fleet has no children");
        let stored = server.get(FLEET).unwrap();
        let text = |one: &Value| {
            ["type", "status", "reason"].map(|key| one[key].as_str().unwrap().to_owned()).join(" ")
        };
        let mut all: Vec<_> = stored["status"]["conditions"].as_array().unwrap().iter().map(text).collect();
        all.sort();
        all
    }

    #[tokio::test]
    async fn a_fleet_is_accepted_and_told_that_nothing_is_enforced() {
        let platform = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": "plant", "namespace": "plant"}, "spec": {"kafka": {"managed": {}}},
        });
        assert_eq!(
            conditions(Some(platform)).await,
            [
                "Accepted True Accepted",
                "Ready False NotEnforced",
                "Reconciling False UpToDate",
                "ResolvedRefs True ResolvedRefs",
                "Stalled False UpToDate",
            ]
        );
    }

    #[tokio::test]
    async fn a_fleet_without_its_platform_is_told() {
        let all = conditions(None).await;
        assert!(all.contains(&"ResolvedRefs False PlatformNotFound".to_owned()), "{all:?}");
        assert!(all.contains(&"Stalled True PlatformNotFound".to_owned()), "{all:?}");
    }
}
