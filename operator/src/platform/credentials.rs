//! What an external Kafka is reached with, from the Secrets that a platform refers to. Pure.

use crate::frame::backbone::mechanism;
use crate::frame::{Class, StepError};
use crate::kafka::access::{ClientCertificate, Password, Sasl, Tls};
use crate::pki::{Key, TLS_CRT, TLS_KEY, subject};
use k8s_openapi::api::core::v1::Secret;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_contract::config::password;
use tidegate_crds::conditions::RESOLVED_REFS;
use tidegate_crds::platform::ExternalKafka;
use tidegate_crds::reasons;

const CA_FIELD: &str = "spec.kafka.external.tls.caSecretRef";
const CLIENT_FIELD: &str = "spec.kafka.external.tls.clientSecretRef";
const PASSWORD_FIELD: &str = "spec.kafka.external.sasl.passwordSecretRef";

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The Secret.
    #[error("{field}: there is no Secret {secret:?} in this namespace: create it or name another")]
    Secret {
        /// The field that names it.
        field: &'static str,
        /// Its name.
        secret: String,
    },
    /// A key in it.
    #[error("{field}: Secret {secret:?} has no key {key:?} (it has {has}): add it")]
    Key {
        /// The field that names it.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// Those that are there.
        has: String,
    },
    /// What it holds cannot be used.
    #[error("{field}: key {key:?} of Secret {secret:?} {why}")]
    Unusable {
        /// The field that names it.
        field: &'static str,
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong and what to write.
        why: &'static str,
    },
}

/// Credentials that are not all there: everything that is missing, at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct CredentialError(pub Vec<Missing>);

impl StepError for CredentialError {
    fn reason(&self) -> &'static str {
        if self.0.iter().any(|each| matches!(each, Missing::Secret { .. })) {
            reasons::SECRET_NOT_FOUND
        } else {
            reasons::SECRET_UNUSABLE
        }
    }

    fn class(&self) -> Class {
        Class::Blocked
    }

    fn condition(&self) -> Option<&'static str> {
        Some(RESOLVED_REFS)
    }
}

/// The names of all Secrets that are referred to.
pub fn names(external: &ExternalKafka) -> BTreeSet<&str> {
    let tls = external.tls.iter();
    let tls = tls.flat_map(|tls| {
        let ca = tls.ca_secret_ref.iter().map(|reference| reference.name.as_str());
        ca.chain(tls.client_secret_ref.iter().map(|reference| reference.name.as_str()))
    });
    tls.chain(external.sasl.iter().map(|sasl| sasl.password_secret_ref.name.as_str())).collect()
}

/// What Kafka is reached with. `secrets`: those that exist, by name.
pub fn resolve(
    external: &ExternalKafka,
    secrets: &BTreeMap<String, Secret>,
) -> Result<(Option<Tls>, Option<Sasl>), CredentialError> {
    let mut reading = Reading { secrets, missing: Vec::new() };
    let tls = external.tls.as_ref().map(|tls| Tls {
        authorities: tls
            .ca_secret_ref
            .as_ref()
            .map(|reference| reading.certificate(CA_FIELD, &reference.name, &reference.key)),
        client: tls.client_secret_ref.as_ref().map(|reference| ClientCertificate {
            certificate: reading.certificate(CLIENT_FIELD, &reference.name, TLS_CRT),
            key: Key::new(reading.key(&reference.name)),
        }),
    });
    let sasl = external.sasl.as_ref().map(|sasl| Sasl {
        mechanism: mechanism(sasl.mechanism),
        username: sasl.username.clone(),
        password: Password::new(
            reading.password(&sasl.password_secret_ref.name, &sasl.password_secret_ref.key),
        ),
    });
    if reading.missing.is_empty() { Ok((tls, sasl)) } else { Err(CredentialError(reading.missing)) }
}

struct Reading<'a> {
    secrets: &'a BTreeMap<String, Secret>,
    missing: Vec<Missing>,
}

impl Reading<'_> {
    /// The text under a key; empty where it is noted as missing.
    fn text(&mut self, field: &'static str, secret: &str, key: &str) -> String {
        let Some(found) = self.secrets.get(secret) else {
            let missing = Missing::Secret { field, secret: secret.to_owned() };
            if !self.missing.contains(&missing) {
                self.missing.push(missing);
            }
            return String::new();
        };
        let data = found.data.as_ref();
        let Some(value) = data.and_then(|data| data.get(key)) else {
            let has: Vec<_> = data.into_iter().flatten().map(|(key, _)| format!("{key:?}")).collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            let (secret, key) = (secret.to_owned(), key.to_owned());
            self.missing.push(Missing::Key { field, secret, key, has });
            return String::new();
        };
        let text = std::str::from_utf8(&value.0).unwrap_or_default();
        if text.trim().is_empty() {
            self.unusable(
                field,
                secret,
                key,
                "is empty or no text: put the text itself there (under data: in base64)",
            );
        }
        text.to_owned()
    }

    fn unusable(&mut self, field: &'static str, secret: &str, key: &str, why: &'static str) {
        let (secret, key) = (secret.to_owned(), key.to_owned());
        self.missing.push(Missing::Unusable { field, secret, key, why });
    }

    fn certificate(&mut self, field: &'static str, secret: &str, key: &str) -> String {
        let text = self.text(field, secret, key);
        if !text.trim().is_empty() && subject(&text).is_none() {
            self.unusable(
                field,
                secret,
                key,
                "holds no certificate in PEM (-----BEGIN CERTIFICATE-----): put one there",
            );
        }
        text
    }

    fn key(&mut self, secret: &str) -> String {
        let text = self.text(CLIENT_FIELD, secret, TLS_KEY);
        if text.contains("ENCRYPTED") {
            self.unusable(
                CLIENT_FIELD,
                secret,
                TLS_KEY,
                "is protected with a passphrase: put the key without one there",
            );
        } else if !text.trim().is_empty() && !text.contains("PRIVATE KEY-----") {
            self.unusable(CLIENT_FIELD, secret, TLS_KEY, "holds no private key in PEM: put one there");
        }
        text
    }

    fn password(&mut self, secret: &str, key: &str) -> String {
        password(&self.text(PASSWORD_FIELD, secret, key)).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::Authority;
    use k8s_openapi::ByteString;
    use time::OffsetDateTime;

    const SPEC: &str = "{bootstrapServers: ['k:1'], tls: {caSecretRef: {name: ca, key: root.pem}, clientSecretRef: {name: me}},
        sasl: {mechanism: SCRAM-SHA-512, username: tidegate, passwordSecretRef: {name: login, key: pass}}}";

    fn spec() -> ExternalKafka {
        serde_yaml::from_str(SPEC).unwrap()
    }

    fn secrets(entries: &[(&str, &str, &str)]) -> BTreeMap<String, Secret> {
        let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
        for (name, key, text) in entries {
            let data = secrets.entry((*name).to_owned()).or_default().data.get_or_insert_default();
            data.insert((*key).to_owned(), ByteString(text.as_bytes().to_vec()));
        }
        secrets
    }

    #[test]
    fn everything_is_read_from_where_the_spec_says() {
        let pem = Authority::keep_or_make(None, "x", OffsetDateTime::now_utc()).unwrap().bundle().to_owned();
        let all = secrets(&[
            ("ca", "root.pem", &pem),
            ("me", "tls.crt", &pem),
            ("me", "tls.key", "-----BEGIN PRIVATE KEY-----\n"),
            ("login", "pass", "hard to guess\n"),
        ]);
        assert_eq!(names(&spec()).into_iter().collect::<Vec<_>>(), ["ca", "login", "me"]);
        let (tls, sasl) = resolve(&spec(), &all).unwrap();
        assert_eq!(tls.unwrap().authorities, Some(pem));
        assert_eq!(sasl.unwrap().password, Password::new("hard to guess".to_owned()));
        let public: ExternalKafka = serde_yaml::from_str("{bootstrapServers: ['k:1'], tls: {}}").unwrap();
        let (tls, sasl) = resolve(&public, &BTreeMap::new()).unwrap();
        assert_eq!((tls, sasl), (Some(Tls { authorities: None, client: None }), None));
    }

    #[test]
    fn whatever_is_missing_is_told_at_once_with_its_field_and_never_with_its_text() {
        let all = secrets(&[
            ("ca", "ca.crt", "hard to guess"),
            ("login", "pass", " \n"),
            ("login", "x", "hard to guess"),
        ]);
        let error = resolve(&spec(), &all).unwrap_err();
        assert_eq!(error.reason(), "SecretNotFound");
        let text = error.to_string();
        for part in [
            "spec.kafka.external.tls.caSecretRef: Secret \"ca\" has no key \"root.pem\" (it has \"ca.crt\"): add it",
            "spec.kafka.external.tls.clientSecretRef: there is no Secret \"me\" in this namespace",
            "spec.kafka.external.sasl.passwordSecretRef: key \"pass\" of Secret \"login\" is empty",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert_eq!(text.matches("\"me\"").count(), 1, "{text}");
        assert!(!text.contains("hard to guess"), "{text}");
    }

    #[test]
    fn what_is_no_certificate_or_a_locked_key_is_told() {
        let all = secrets(&[
            ("ca", "root.pem", "MIIB"),
            ("me", "tls.crt", "MIIB"),
            ("me", "tls.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            ("login", "pass", "x"),
        ]);
        let error = resolve(&spec(), &all).unwrap_err();
        assert_eq!(error.reason(), "SecretUnusable");
        let text = error.to_string();
        assert_eq!(text.matches("holds no certificate in PEM").count(), 2, "{text}");
        assert!(text.contains("protected with a passphrase"), "{text}");
    }
}
