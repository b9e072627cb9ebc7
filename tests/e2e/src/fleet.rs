//! Who stories are at gateways: a platform lets nobody in whom no fleet names. One fleet for everything that is not about
//! access, and what a story needs that is.

use crate::{Credentials, Kubectl};
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;
use tidegate_cluster::credentials;

/// The fleet of stories that are not about access.
const FLEET: &str = "stories";
/// Its one device, which may do everything.
const DEVICE: &str = "tester";
const LIMIT: Duration = Duration::from_secs(60);

/// Lets a device in that may do everything, with a password made by a machine: gateways check those for next to nothing.
pub fn open(kubectl: &Kubectl, platform: &str) -> Result<Credentials> {
    let tester = kept(kubectl, FLEET, DEVICE)?;
    kubectl.apply(&declared(FLEET, platform, &[DEVICE], &["#"], &["#"]).to_string())?;
    kubectl.condition(&format!("dfl/{FLEET}"), "Ready", "True", LIMIT)?;
    Ok(tester)
}

/// A device's credentials, from its Secret, which is made where it is missing.
pub fn kept(kubectl: &Kubectl, fleet: &str, device: &str) -> Result<Credentials> {
    Credentials::kept(&|arguments| kubectl.command(arguments), fleet, device)
}

/// Gives a device another password.
pub fn renew(kubectl: &Kubectl, fleet: &str, device: &str) -> Result<Credentials> {
    let password = credentials::password()?;
    credentials::keep(&|arguments| kubectl.command(arguments), device, &password)?;
    Ok(Credentials::new(fleet, device, &password))
}

/// A fleet whose devices have their passwords in Secrets of their names.
pub fn declared(name: &str, platform: &str, devices: &[&str], publish: &[&str], subscribe: &[&str]) -> Value {
    let device = |name: &&str| json!({"name": name, "passwordSecretRef": {"name": name, "key": "password"}});
    json!({"apiVersion": "tidegate.io/v1alpha1", "kind": "DeviceFleet", "metadata": {"name": name},
    "spec": {
        "platformRef": {"name": platform},
        "authentication": {"password": {}},
        "devices": devices.iter().map(device).collect::<Vec<_>>(),
        "permissions": {"publish": publish, "subscribe": subscribe},
    }})
}
