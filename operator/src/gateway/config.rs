//! The gateway's configuration file in an immutable ConfigMap whose name is a hash of it. Pure.

use super::names;
use super::validate::{Gateway, Protocol};
use crate::frame::Backbone;
use crate::frame::backbone;
use k8s_openapi::api::core::v1::ConfigMap;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use tidegate_contract::config::{
    ADMIN_PORT, CONFIG_FILE, GatewayConfig, KAFKA_DIR, KafkaClientCertificate, KafkaConfig, KafkaSasl,
    KafkaTls, Listener, ListenerTls, Listeners,
};

/// How long open connections may drain after SIGTERM, in milliseconds.
const DRAIN_MS: u64 = 30_000;

/// What the gateway's process is told.
pub fn config(gateway: &Gateway, backbone: &Backbone) -> GatewayConfig {
    let listener = |each: &super::validate::Listener| Listener {
        name: each.name.clone(),
        port: each.container_port,
        tls: each.tls.as_ref().map(|tls| ListenerTls::mounted(&each.name, tls.client_certificates)),
    };
    let listeners = Listeners { listeners: gateway.listeners.iter().map(listener).collect() };
    let file = |name: &str| PathBuf::from(format!("{KAFKA_DIR}/{name}"));
    GatewayConfig {
        namespace: gateway.namespace.clone(),
        platform: gateway.platform.clone(),
        gateway: gateway.name.clone(),
        protocol: match gateway.protocol {
            Protocol::Mqtt => tidegate_contract::config::Protocol::Mqtt(listeners),
            Protocol::Http => tidegate_contract::config::Protocol::Http(listeners),
        },
        kafka: KafkaConfig {
            bootstrap: backbone.bootstrap.clone(),
            prefix: backbone.prefix.clone(),
            tls: backbone.tls.then(|| KafkaTls {
                ca: backbone.has(backbone::CA).then(|| file(backbone::CA)),
                client: backbone.has(backbone::KEY).then(|| KafkaClientCertificate {
                    certificate: file(backbone::CERTIFICATE),
                    key: file(backbone::KEY),
                }),
            }),
            sasl: backbone.sasl.clone().map(|(mechanism, username)| KafkaSasl {
                mechanism,
                username,
                password: file(backbone::PASSWORD),
            }),
        },
        limits: gateway.limits.clone(),
        admin_port: ADMIN_PORT,
        drain_ms: DRAIN_MS,
    }
}

/// The ConfigMap with the file. Another file is another ConfigMap, so a change rolls the pods.
pub fn config_map(gateway: &Gateway, backbone: &Backbone) -> ConfigMap {
    // The type has nothing that JSON cannot hold; an empty file would make the gateway say what is wrong.
    let text = serde_json::to_string_pretty(&config(gateway, backbone)).unwrap_or_default();
    let digest = Sha256::digest(text.as_bytes());
    let hash = digest.iter().take(5).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
    ConfigMap {
        metadata: names::meta(gateway, format!("{}-config-{hash:010x}", gateway.name)),
        data: Some([(CONFIG_FILE.to_owned(), text)].into()),
        immutable: Some(true),
        binary_data: None,
    }
}
