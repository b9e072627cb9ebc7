//! The platform's certificates as Secrets: what is there and fits is kept, the rest is made. Pure but for
//! randomness; the caller reads what is there and applies what comes out, authorities first.

use crate::frame::{Class, StepError};
use crate::kafka::access::{ClientCertificate, Tls};
use crate::kafka::cluster::Cluster;
use crate::kafka::names::{Names, VOTERS};
use crate::kafka::rights::{GATEWAY, OPERATOR, application};
use crate::pki::{Authority, CA_CRT, Issued, LeafSpec, PkiError, Renewal, TLS_CRT, TLS_KEY, keep_or_issue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use tidegate_crds::reasons;
use time::OffsetDateTime;

/// The brokers' Secret's key with the fingerprint of what else it holds: how a pod knows that its mount is new.
pub const FINGERPRINT: &str = "fingerprint";
/// The component label of applications' Secrets.
pub const APPLICATION: &str = "application";
/// The key of an application's Secret with its private key and its certificate in one text, as Java's clients want it.
pub const KEY_STORE: &str = "keystore.pem";
/// The key of an application's Secret with where to connect.
pub const BOOTSTRAP: &str = "bootstrap";

/// The data of the Secrets that are there, by name.
pub type Existing = BTreeMap<String, BTreeMap<String, String>>;

/// Certificates that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A Secret of ours was changed by hand. No field of a spec is at fault.
    #[error(
        "Secret {secret} holds no certificate authority that can sign ({why}): restore its ca.crt and ca.key from a backup; without one delete the Secret: a new authority is made, {then}"
    )]
    Authority {
        /// The Secret.
        secret: String,
        /// What is wrong.
        why: &'static str,
        /// What a new one would mean.
        then: &'static str,
    },
    /// The library refused to make one.
    #[error("failed to make the certificates of Secret {secret}; it is tried again, report it if it stays")]
    Make {
        /// The Secret.
        secret: String,
        /// Why not.
        source: rcgen::Error,
    },
}

impl SecretError {
    pub(super) fn new(names: &Names, secret: &str, source: PkiError) -> Self {
        let devices = secret == names.device_ca();
        let secret = secret.to_owned();
        let then = if devices {
            "which devices have to be given"
        } else {
            "which brokers trust after they were restarted, one at a time, by themselves"
        };
        match source {
            PkiError::Authority(why) => Self::Authority { secret, why, then },
            PkiError::Make(source) => Self::Make { secret, source },
        }
    }
}

impl StepError for SecretError {
    fn reason(&self) -> &'static str {
        reasons::SECRET_BROKEN
    }

    fn class(&self) -> Class {
        Class::Blocked
    }
}

/// All Secrets of a platform.
#[derive(Debug)]
pub struct Settled {
    /// In the order in which they are applied.
    pub secrets: Vec<Secret>,
    /// What the operator itself shows to Kafka.
    pub operator: Tls,
    /// Which certificates brokers should hold: changes with them and with the authorities that they trust, and not with
    /// a broker that is added.
    pub fingerprint: String,
    /// What was made anew, and why: Secret, name in it, reason.
    pub renewed: Vec<(String, String, Renewal)>,
}

impl Settled {
    /// The Secrets' data, by name.
    pub fn data(&self) -> Existing {
        self.secrets.iter().map(|each| (each.metadata.name.clone().unwrap_or_default(), data(each))).collect()
    }
}

/// The names of all Secrets of a platform.
pub fn names(cluster: &Cluster) -> Vec<String> {
    let names = &cluster.names;
    let own =
        [names.kafka_ca(), names.device_ca(), names.broker_tls(), names.operator_tls(), names.gateway_tls()];
    let applications = cluster.applications.iter().map(|one| names.application_tls(&one.name));
    own.into_iter().chain(applications).collect()
}

/// A Secret's data as text; what is no text is left out (it is none of ours).
pub fn data(secret: &Secret) -> BTreeMap<String, String> {
    let text =
        |(key, value): (&String, &ByteString)| Some((key.clone(), String::from_utf8(value.0.clone()).ok()?));
    secret.data.iter().flatten().filter_map(text).collect()
}

/// Settles all Secrets.
pub fn settle(cluster: &Cluster, existing: &Existing, now: OffsetDateTime) -> Result<Settled, SecretError> {
    let names = &cluster.names;
    let failed = |secret: &str| {
        let secret = secret.to_owned();
        move |source| SecretError::new(names, &secret, source)
    };
    let authority = |name: &str, title: &str| {
        Authority::keep_or_make(existing.get(name), &format!("{} {title}", names.platform), now)
            .map_err(failed(name))
    };
    let trusted = existing.get(&names.broker_tls()).and_then(|held| held.get(CA_CRT));
    let kafka = match trusted.filter(|_| !existing.contains_key(&names.kafka_ca())) {
        // Its Secret is lost, and what it signed runs.
        Some(trusted) => Authority::replace(trusted, &format!("{} Kafka", names.platform), now)
            .map_err(failed(&names.kafka_ca()))?,
        None => authority(&names.kafka_ca(), "Kafka")?,
    };
    let devices = authority(&names.device_ca(), "devices")?;
    let mut renewed = Vec::new();

    let broker = brokers(cluster, existing.get(&names.broker_tls()), &kafka, now)
        .map_err(failed(&names.broker_tls()))?;
    renewed.extend(broker.renewed.into_iter().map(|(name, why)| (names.broker_tls(), name, why)));

    let mut client = |secret: &str, principal: &str| -> Result<Issued, SecretError> {
        let held = existing.get(secret);
        let part = |key: &str| held.and_then(|all| all.get(key)).map(String::as_str);
        let parts =
            part(TLS_CRT).zip(part(TLS_KEY)).map(|(crt, key)| (crt, key, part(CA_CRT).unwrap_or_default()));
        let (issued, why) =
            keep_or_issue(parts, &LeafSpec::client(principal), &kafka, now).map_err(failed(secret))?;
        renewed.extend(why.map(|why| (secret.to_owned(), principal.to_owned(), why)));
        Ok(issued)
    };
    let operator = client(&names.operator_tls(), OPERATOR)?;
    let gateway = client(&names.gateway_tls(), GATEWAY)?;
    let mut applications = Vec::new();
    for one in &cluster.applications {
        let name = names.application_tls(&one.name);
        let issued = client(&name, &application(&one.name))?;
        applications.push((name, issued));
    }

    let labelled = |name: String, component: &str, data: BTreeMap<String, String>| Secret {
        metadata: cluster.metadata(name, component),
        data: Some(data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let secret = |name, data| labelled(name, "certificates", data);
    let leaf = |issued: &Issued| {
        BTreeMap::from([
            (CA_CRT.to_owned(), issued.authorities.clone()),
            (TLS_CRT.to_owned(), issued.certificate.clone()),
            (TLS_KEY.to_owned(), issued.key.pem().to_owned()),
        ])
    };
    let mut secrets = vec![
        secret(names.kafka_ca(), kafka.data()),
        secret(names.device_ca(), devices.data()),
        secret(names.broker_tls(), broker.data),
        secret(names.operator_tls(), leaf(&operator)),
        secret(names.gateway_tls(), leaf(&gateway)),
    ];
    for (name, issued) in applications {
        let mut data = leaf(&issued);
        data.insert(KEY_STORE.to_owned(), issued.key_store());
        data.insert(BOOTSTRAP.to_owned(), names.bootstrap());
        secrets.push(labelled(name, APPLICATION, data));
    }
    let client = ClientCertificate { certificate: operator.certificate, key: operator.key };
    let operator = Tls { authorities: Some(operator.authorities), client: Some(client) };
    Ok(Settled { secrets, operator, renewed, fingerprint: broker.fingerprint })
}

/// The brokers' key stores.
struct Brokers {
    data: BTreeMap<String, String>,
    fingerprint: String,
    renewed: Vec<(String, Renewal)>,
}

/// Keeps or makes the brokers' key stores. Where one has to be renewed all are, so that the oldest, which the
/// fingerprint covers, speak for those of brokers that were added later.
fn brokers(
    cluster: &Cluster,
    there: Option<&BTreeMap<String, String>>,
    authority: &Authority,
    now: OffsetDateTime,
) -> Result<Brokers, PkiError> {
    let names = &cluster.names;
    let trusted = there.and_then(|all| all.get(CA_CRT)).map(String::as_str).unwrap_or_default();
    let mut stores = Vec::new();
    for node in 0..cluster.brokers {
        let spec = LeafSpec::peer(&format!("broker-{node}"), names.certificate_names(node));
        let store = there.and_then(|all| all.get(&store_of(node)));
        let parts = store.map(|store| (store.as_str(), store.as_str(), trusted));
        stores.push((node, spec.clone(), store, keep_or_issue(parts, &spec, authority, now)?));
    }
    let again = stores.iter().any(|(.., (_, why))| why.is_some_and(|why| why != Renewal::Missing));
    let (mut data, mut renewed) = (BTreeMap::new(), Vec::new());
    let mut authorities = authority.bundle().to_owned();
    let mut hasher = Sha256::new();
    for (node, spec, store, (mut issued, mut why)) in stores {
        if again && why.is_none() {
            (issued, _) = keep_or_issue(None, &spec, authority, now)?;
            why = Some(Renewal::Together);
        }
        let text = match (why, store) {
            (None, Some(store)) => store.clone(),
            _ => issued.key_store(),
        };
        renewed.extend(why.map(|why| (spec.common_name, why)));
        if node < VOTERS {
            hasher.update(issued.public());
        }
        data.insert(store_of(node), text);
        if issued.authorities.len() > authorities.len() {
            authorities = issued.authorities;
        }
    }
    hasher.update(&authorities);
    let fingerprint = hasher.finalize().iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    data.insert(CA_CRT.to_owned(), authorities);
    data.insert(FINGERPRINT.to_owned(), fingerprint.clone());
    Ok(Brokers { data, fingerprint, renewed })
}

fn store_of(node: i32) -> String {
    format!("node-{node}.pem")
}

/// The devices' authority alone, for a platform whose Kafka is somebody else's.
pub fn device_authority(
    names: &Names,
    existing: Option<&BTreeMap<String, String>>,
    now: OffsetDateTime,
) -> Result<Secret, SecretError> {
    let secret = names.device_ca();
    let authority = Authority::keep_or_make(existing, &format!("{} devices", names.platform), now)
        .map_err(|source| SecretError::new(names, &secret, source))?;
    let data = authority.data().into_iter().map(|(key, text)| (key, ByteString(text.into_bytes())));
    Ok(Secret {
        metadata: names.metadata(secret, "certificates"),
        data: Some(data.collect()),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::samples::managed;

    fn cluster(brokers: i32) -> Cluster {
        let spec = format!("{{kafka: {{managed: {{brokers: {brokers}}}}}}}");
        managed(&spec).cluster
    }

    fn written(settled: &Settled) -> Existing {
        settled.data()
    }

    #[test]
    fn settling_again_changes_nothing() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        assert_eq!(first.renewed.len(), 5);
        let second = settle(&cluster(3), &written(&first), now).unwrap();
        assert!(second.renewed.is_empty(), "{:?}", second.renewed);
        assert_eq!(written(&first), written(&second));
    }

    #[test]
    fn a_crash_after_any_secret_makes_no_pair_that_does_not_fit() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        for count in 0..first.secrets.len() {
            let all = written(&first);
            let kept: Existing =
                names(&cluster(3)).iter().take(count).map(|name| (name.clone(), all[name].clone())).collect();
            let second = settle(&cluster(3), &kept, now).unwrap();
            let third = settle(&cluster(3), &written(&second), now).unwrap();
            assert!(third.renewed.is_empty(), "after {count}: {:?}", third.renewed);
        }
    }

    #[test]
    fn another_broker_gets_a_certificate_and_the_others_keep_theirs() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        let grown = settle(&cluster(4), &written(&first), now).unwrap();
        assert_eq!(grown.renewed.len(), 1);
        let (old, new) = (written(&first), written(&grown));
        assert_eq!(old["plant-kafka-broker"]["node-2.pem"], new["plant-kafka-broker"]["node-2.pem"]);
        assert!(new["plant-kafka-broker"].contains_key("node-3.pem"));
    }

    #[test]
    fn the_fingerprint_changes_with_certificates_and_trust_and_not_with_another_broker() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        let held = written(&first);
        assert_eq!(held["plant-kafka-broker"][FINGERPRINT], first.fingerprint);
        assert_eq!(settle(&cluster(3), &held, now).unwrap().fingerprint, first.fingerprint);
        assert_eq!(settle(&cluster(5), &held, now).unwrap().fingerprint, first.fingerprint);
        for lost in ["plant-kafka-broker", "plant-kafka-ca"] {
            let mut left = held.clone();
            left.remove(lost);
            let second = settle(&cluster(3), &left, now).unwrap();
            assert_ne!(second.fingerprint, first.fingerprint, "{lost}");
            let third = settle(&cluster(3), &written(&second), now).unwrap();
            assert_eq!(third.fingerprint, second.fingerprint, "{lost}");
        }
        let mut other = held.clone();
        other.remove("plant-kafka-gateway");
        assert_eq!(settle(&cluster(3), &other, now).unwrap().fingerprint, first.fingerprint);
    }

    #[test]
    fn all_brokers_certificates_are_renewed_together_so_that_none_expires_unseen() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        let later = now + time::Duration::days(100);
        let grown = settle(&cluster(4), &written(&first), later).unwrap();
        let due = settle(&cluster(4), &written(&grown), now + time::Duration::days(250)).unwrap();
        let (old, new) = (written(&grown), written(&due));
        for node in 0..4 {
            let key = format!("node-{node}.pem");
            assert_ne!(old["plant-kafka-broker"][&key], new["plant-kafka-broker"][&key], "{key}");
        }
        assert_ne!(due.fingerprint, grown.fingerprint);
        let mut garbled = written(&first);
        garbled.get_mut("plant-kafka-broker").unwrap().insert("node-1.pem".to_owned(), "x".to_owned());
        assert_ne!(settle(&cluster(3), &garbled, now).unwrap().fingerprint, first.fingerprint);
    }

    #[test]
    fn a_lost_authority_leaves_what_runs_able_to_talk() {
        let now = OffsetDateTime::now_utc();
        let first = settle(&cluster(3), &Existing::new(), now).unwrap();
        let mut left = written(&first);
        left.remove("plant-kafka-ca");
        let second = settle(&cluster(3), &left, now).unwrap();
        assert!(second.renewed.is_empty(), "{:?}", second.renewed);
        assert!(written(&second)["plant-kafka-broker"][CA_CRT].matches("BEGIN CERTIFICATE").count() == 2);
    }
}
