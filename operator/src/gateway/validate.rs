//! From the resource to a gateway that can be built. Pure.
//!
//! What the definition's rules check is not checked again. What this version cannot do yet is refused with the
//! field's name, never ignored.

use super::deployment::ADMIN_PORT_NAME;
use super::networks::Interface;
use crate::frame::{Class, StepError};
use kube::ResourceExt as _;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_contract::config::{self, ADMIN_PORT};
use tidegate_crds::gateway::{
    Attachment, Autoscaling, ClientCertificates, Expose, Limits, ListenerTls, Listeners,
};
use tidegate_crds::{ProtocolGateway, Resources, conditions, reasons};

/// Ports below this one need a right that the pods do not have.
const FIRST_UNPRIVILEGED: u16 = 1024;
/// Where ports that a container cannot bind are moved to.
const MOVED_BY: u16 = 10_000;

/// A gateway that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its platform's name.
    pub platform: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Its sockets, in the order of the resource.
    pub listeners: Vec<Listener>,
    /// Pods.
    pub replicas: i32,
    /// How many pods there shall be under which load.
    pub scaling: Option<Autoscaling>,
    /// How devices reach it.
    pub expose: Expose,
    /// Bounds of each process.
    pub limits: config::Limits,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Capabilities that a node must have.
    pub capabilities: Vec<String>,
    /// The platform's networks that its pods attach to.
    pub attachments: Vec<Attachment>,
    /// The same, found in the platform.
    pub interfaces: Vec<Interface>,
    /// Whether one pod more runs for now, because one is about to move.
    pub surge: bool,
    /// What each pod asks for and may use.
    pub resources: Resources,
}

impl Gateway {
    /// The fewest pods that must serve for the gateway to work as declared. More is the scaler's wish.
    pub fn least(&self) -> i32 {
        self.scaling.as_ref().map_or(self.replicas, |scaling| scaling.min_replicas.min(self.replicas))
    }

    /// Whether an address belongs to one pod of it, so that never two may run.
    pub fn is_alone(&self) -> bool {
        self.attachments.iter().any(|each| !each.addresses.is_empty())
    }

    /// The listeners that show a certificate of the platform's authority.
    pub fn issued(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|each| each.tls.as_ref().is_some_and(|tls| tls.secret.is_none()))
    }

    /// Whether a pod has something that its successor needs: an address, or a device of the node.
    pub fn is_exclusive(&self) -> bool {
        self.is_alone() || self.interfaces.iter().any(|each| !each.devices.is_empty())
    }
}

/// What a gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT 3.1.1 and 5.
    Mqtt,
    /// HTTP/1.1.
    Http,
}

impl Protocol {
    /// The field's name in the resource.
    pub const fn field(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Http => "http",
        }
    }

    /// The scheme of URLs of a listener with or without TLS.
    pub const fn scheme(self, tls: bool) -> &'static str {
        match (self, tls) {
            (Self::Mqtt, false) => "mqtt",
            (Self::Mqtt, true) => "mqtts",
            (Self::Http, false) => "http",
            (Self::Http, true) => "https",
        }
    }
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// The port that devices connect to.
    pub port: u16,
    /// The port that the process binds.
    pub container_port: u16,
    /// Encryption.
    pub tls: Option<Tls>,
}

/// Encryption of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The Secret with the certificate; nothing: the platform's authority issues one.
    pub secret: Option<String>,
    /// Whether devices show certificates of their own.
    pub client_certificates: config::ClientCertificates,
}

impl From<&ListenerTls> for Tls {
    fn from(tls: &ListenerTls) -> Self {
        Self {
            secret: tls.secret_ref.as_ref().map(|secret| secret.name.clone()),
            client_certificates: match tls.client_certificates {
                ClientCertificates::None => config::ClientCertificates::None,
                ClientCertificates::Optional => config::ClientCertificates::Optional,
                ClientCertificates::Required => config::ClientCertificates::Required,
            },
        }
    }
}

/// Why a resource cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// This version does not do it.
    #[error("{field} is not implemented in this version of Tidegate: {instead}")]
    NotImplemented {
        /// The field's path.
        field: String,
        /// What to write.
        instead: &'static str,
    },
    /// The value cannot be used.
    #[error("{field}: {instead}")]
    Value {
        /// The field's path.
        field: String,
        /// What to write.
        instead: String,
    },
}

impl StepError for Invalid {
    fn reason(&self) -> &'static str {
        match self {
            Self::NotImplemented { .. } => reasons::NOT_IMPLEMENTED,
            Self::Value { .. } => reasons::INVALID,
        }
    }

    fn class(&self) -> Class {
        Class::Invalid
    }

    fn condition(&self) -> Option<&'static str> {
        Some(conditions::ACCEPTED)
    }
}

/// Turns the resource into a gateway that can be built.
pub fn validate(resource: &ProtocolGateway) -> Result<Gateway, Invalid> {
    let spec = &resource.spec;
    let (protocol, listeners) = protocol(resource)?;
    let replicas = match &spec.autoscaling {
        // The scaler brings the number between its bounds; until it has, the bounds hold all the same. Zero stops it.
        Some(scaling) if spec.replicas > 0 => {
            spec.replicas.max(scaling.min_replicas).min(scaling.max_replicas)
        }
        _ => spec.replicas,
    };
    let placement = spec.placement.clone().unwrap_or_default();
    Ok(Gateway {
        name: resource.name_any(),
        namespace: resource.namespace().unwrap_or_default(),
        platform: spec.platform_ref.name.clone(),
        protocol,
        listeners: sockets(protocol, listeners)?,
        replicas,
        scaling: spec.autoscaling.clone(),
        expose: spec.expose.clone(),
        limits: limits(&spec.limits)?,
        node_selector: placement.node_selector,
        capabilities: placement.capabilities,
        attachments: spec.networks.clone(),
        interfaces: Vec::new(),
        surge: false,
        resources: spec.resources.clone().filter(|given| !given.is_empty()).unwrap_or_else(default_resources),
    })
}

fn protocol(resource: &ProtocolGateway) -> Result<(Protocol, &Listeners), Invalid> {
    let spec = &resource.spec;
    if let Some(listeners) = &spec.mqtt {
        return Ok((Protocol::Mqtt, listeners));
    }
    if let Some(listeners) = &spec.http {
        return Ok((Protocol::Http, listeners));
    }
    let later = [
        (spec.coap.is_some(), "coap"),
        (spec.modbus.is_some(), "modbus"),
        (spec.bacnet.is_some(), "bacnet"),
        (spec.sml.is_some(), "sml"),
    ];
    match later.into_iter().find(|(there, _)| *there) {
        Some((_, name)) => Err(Invalid::NotImplemented {
            field: format!("spec.{name}"),
            instead: "make a gateway with mqtt or http instead",
        }),
        None => Err(Invalid::Value {
            field: "spec".to_owned(),
            instead: "a gateway speaks exactly one protocol: write mqtt or http".to_owned(),
        }),
    }
}

/// Gives each listener a port that the process may bind: its own where that is possible.
fn sockets(protocol: Protocol, listeners: &Listeners) -> Result<Vec<Listener>, Invalid> {
    let field = |name: &str, rest: &str| format!("spec.{}.listeners[{name}].{rest}", protocol.field());
    let mut ports = Vec::new();
    for listener in &listeners.listeners {
        if listener.name == ADMIN_PORT_NAME {
            let instead = "this name is kept for the health and metrics port: choose another".to_owned();
            return Err(Invalid::Value { field: field(&listener.name, "name"), instead });
        }
        let port =
            u16::try_from(listener.port).ok().filter(|port| *port > 0).ok_or_else(|| Invalid::Value {
                field: field(&listener.name, "port"),
                instead: "write a port from 1 to 65535".to_owned(),
            })?;
        ports.push((listener, port));
    }
    let own = |port: u16| port >= FIRST_UNPRIVILEGED && port != ADMIN_PORT;
    let mut taken: BTreeSet<u16> = ports.iter().map(|(_, port)| *port).filter(|port| own(*port)).collect();
    taken.insert(ADMIN_PORT);
    let place = |(listener, port): (&tidegate_crds::gateway::Listener, u16)| {
        let mut container_port = port;
        if !own(port) {
            container_port = port + MOVED_BY;
            while !taken.insert(container_port) {
                container_port += 1;
            }
        }
        Listener {
            name: listener.name.clone(),
            port,
            container_port,
            tls: listener.tls.as_ref().map(Tls::from),
        }
    };
    Ok(ports.into_iter().map(place).collect())
}

fn limits(limits: &Limits) -> Result<config::Limits, Invalid> {
    let number = |value: i32, field: &str| {
        u32::try_from(value).map_err(|_| Invalid::Value {
            field: format!("spec.limits.{field}"),
            instead: "write a number that is not negative".to_owned(),
        })
    };
    let bad = |field: &str, instead: &str| Invalid::Value {
        field: format!("spec.limits.{field}"),
        instead: instead.to_owned(),
    };
    Ok(config::Limits {
        connections: number(limits.connections, "connections")?,
        connect_rate: number(limits.connect_rate, "connectRate")?,
        packet_bytes: u32::try_from(limits.packet_bytes.value())
            .map_err(|_| bad("packetBytes", "write a size up to 64Mi"))?,
        in_flight: u16::try_from(limits.in_flight)
            .map_err(|_| bad("inFlight", "write a number from 1 to 65535"))?,
        subscriptions: number(limits.subscriptions, "subscriptions")?,
        idle_time_ms: limits.idle_time.as_millis(),
    })
}

fn default_resources() -> Resources {
    let amounts = |all: &[(&str, &str)]| {
        all.iter().filter_map(|(name, amount)| Some(((*name).to_owned(), amount.parse().ok()?))).collect()
    };
    Resources {
        requests: amounts(&[("cpu", "100m"), ("memory", "128Mi")]),
        limits: amounts(&[("memory", "512Mi")]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::samples::resource;

    #[test]
    fn a_small_resource_gets_the_documented_defaults() {
        let gateway = validate(&resource(
            "{platformRef: {name: plant}, mqtt: {listeners: [{name: mqtt, port: 1883}]}}",
        ))
        .unwrap();
        assert_eq!(gateway.replicas, 1);
        assert_eq!(gateway.limits, config::Limits::default());
        assert_eq!(gateway.listeners[0].container_port, 1883);
        assert_eq!(gateway.resources.limits["memory"].as_str(), "512Mi");
    }

    #[test]
    fn ports_that_a_container_cannot_bind_are_moved_and_never_meet_another() {
        let gateway = validate(&resource(
            "{platformRef: {name: plant}, http: {listeners: [{name: a, port: 80}, {name: b, port: 10080}, {name: c, port: 9100}, {name: d, port: 65535}]}}",
        ))
        .unwrap();
        let ports: Vec<_> = gateway.listeners.iter().map(|each| (each.port, each.container_port)).collect();
        assert_eq!(ports, [(80, 10081), (10080, 10080), (9100, 19100), (65535, 65535)]);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_the_fields_name() {
        for (spec, field) in [
            ("{platformRef: {name: p}, coap: {listeners: [{name: c, port: 5683}]}}", "spec.coap"),
            ("{platformRef: {name: p}, modbus: {}}", "spec.modbus"),
            ("{platformRef: {name: p}, bacnet: {}}", "spec.bacnet"),
            ("{platformRef: {name: p}, sml: {}}", "spec.sml"),
        ] {
            let error = validate(&resource(spec)).unwrap_err();
            assert_eq!(error.reason(), reasons::NOT_IMPLEMENTED);
            assert!(error.to_string().starts_with(&format!("{field} is not implemented")), "{error}");
        }
    }

    #[test]
    fn a_listener_with_tls_names_a_secret_or_is_issued_a_certificate() {
        let gateway = validate(&resource(
            "{platformRef: {name: p}, mqtt: {listeners: [{name: plain, port: 1883}, {name: issued, port: 8883, tls: {}},
                {name: own, port: 8884, tls: {secretRef: {name: mine}, clientCertificates: Required}}]}}",
        ))
        .unwrap();
        let tls: Vec<_> = gateway.listeners.iter().map(|each| each.tls.clone()).collect();
        let optional = config::ClientCertificates::Optional;
        let required = config::ClientCertificates::Required;
        assert_eq!(tls[0], None);
        assert_eq!(tls[1], Some(Tls { secret: None, client_certificates: optional }));
        assert_eq!(tls[2], Some(Tls { secret: Some("mine".to_owned()), client_certificates: required }));
        assert_eq!(gateway.issued().map(|each| each.name.as_str()).collect::<Vec<_>>(), ["issued"]);
    }

    #[test]
    fn autoscaling_bounds_the_replicas_and_zero_stops_it() {
        let pods = |replicas: i32| {
            let gateway = validate(&resource(&format!(
                "{{platformRef: {{name: p}}, mqtt: {{listeners: [{{name: m, port: 1}}]}}, replicas: {replicas}, autoscaling: {{minReplicas: 2, maxReplicas: 10}}}}",
            )))
            .unwrap();
            (gateway.replicas, gateway.least())
        };
        assert_eq!([0, 1, 5, 11].map(pods), [(0, 0), (2, 2), (5, 2), (10, 2)]);
    }
}
