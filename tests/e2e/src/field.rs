//! The field network in stories: its DHCP server, gateways' interfaces on it, and devices that publish through them.

use crate::{Credentials, Kubectl};
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::{Child, Stdio};
use tidegate_cluster::field::Device;

/// A device that waits no longer than these seconds for its acknowledgement begins anew.
const PATIENCE: &str = "2";

/// A DHCP server on the field network, whose leases begin with `172.31.9.15`; it ends when this is dropped.
pub struct Dhcp(Child);

impl Dhcp {
    /// Starts it where a device is.
    pub fn start(at: &Device) -> Result<Self> {
        let mut command = at.command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--user=root",
            "--pid-file=",
        ]);
        command.args(["--interface=eth0", "--dhcp-authoritative", "--leasefile-ro", "--log-facility=-"]);
        command.arg("--dhcp-range=172.31.9.150,172.31.9.159,1h");
        let child = command.stdin(Stdio::null()).spawn().context("failed to start dnsmasq")?;
        Ok(Self(child))
    }
}

impl Drop for Dhcp {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An MQTT gateway on the platform's network of the same name, with `more` in its `spec`.
pub fn gateway(name: &str, more: &str) -> String {
    format!(
        "apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {{name: {name}, namespace: plant}}
spec:
  platformRef: {{name: plant}}
  mqtt: {{listeners: [{{name: mqtt, port: 1883}}]}}
  expose: {{type: ClusterIP}}
  networks: [{{ref: {name}, interface: net1}}]
{more}"
    )
}

/// The endpoints of a gateway on second networks.
pub fn interfaces(kubectl: &Kubectl, gateway: &str) -> Result<Vec<Value>> {
    let object = kubectl.get(&["pgw", gateway])?;
    let all = object["status"]["endpoints"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|one| one["via"] == "Network").collect())
}

/// The address of such an endpoint.
pub fn host(endpoint: &Value) -> Result<String> {
    let url = endpoint["url"].as_str().and_then(|url| url.strip_prefix("mqtt://")?.strip_suffix(":1883"));
    Ok(url.with_context(|| endpoint.to_string())?.to_owned())
}

/// One record with QoS 1, as a device does it; what the client said.
pub fn publish(device: &Device, who: &Credentials, host: &str) -> Result<String> {
    let output = device
        .command("timeout")
        .args([PATIENCE, "mosquitto_pub", "--debug", "--qos", "1", "--protocol-version", "5", "--host", host])
        .args(["--username", &who.username, "--pw", &who.password])
        .args(["--topic", "sites/hall-1/telemetry/meter", "--message", "on the wire"])
        .output()
        .context("failed to start mosquitto_pub")?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Whether the client was told that its record is stored.
pub fn acknowledged(said: &str) -> bool {
    said.lines().any(|line| line.contains("received PUBACK") && line.contains("RC:0"))
}
