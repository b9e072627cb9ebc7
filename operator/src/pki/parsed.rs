//! Reading PEM that a Secret holds. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use time::OffsetDateTime;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

/// A private key as PEM (PKCS#8). Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Takes PEM text.
    pub const fn new(pem: String) -> Self {
        Self(pem)
    }

    /// The PEM text.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(redacted)")
    }
}

/// What the checks need of one certificate.
pub(super) struct Facts {
    pub common_name: String,
    pub issuer: String,
    pub subject: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    pub names: BTreeSet<String>,
    pub public_key: Vec<u8>,
    pub key_id: Option<Vec<u8>>,
    pub authority_key_id: Option<Vec<u8>>,
    pub is_ca: bool,
}

/// The certificates of a PEM text; blocks of another kind are skipped, an unreadable text is empty.
pub(super) fn certificates(pem: &str) -> Vec<(String, Facts)> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()).map_while(Result::ok) {
        if block.label == "CERTIFICATE"
            && let Ok(certificate) = block.parse_x509()
        {
            found.push((encode(&block.contents), facts(&certificate)));
        }
    }
    found
}

/// The subject of the first certificate of a PEM text.
pub fn subject(pem: &str) -> Option<String> {
    certificates(pem).into_iter().next().map(|(_, facts)| facts.subject)
}

/// The public half of a private key in PEM.
pub(super) fn public_key(pem: &str) -> Option<Vec<u8>> {
    let pair = rcgen::KeyPair::from_pem(pem).ok()?;
    Some(rcgen::PublicKeyData::subject_public_key_info(&pair))
}

/// When the first certificate of a PEM text expires.
pub fn expires(pem: &str) -> Option<OffsetDateTime> {
    certificates(pem).into_iter().next().map(|(_, facts)| facts.not_after)
}

/// From when until when the first certificate of a PEM text is valid.
pub(crate) fn validity(pem: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    certificates(pem).into_iter().next().map(|(_, facts)| (facts.not_before, facts.not_after))
}

/// A time for people.
pub(crate) fn minute(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    format!("{date} {:02}:{:02} UTC", clock.hour(), clock.minute())
}

/// One certificate as PEM, with the line length that every reader takes.
pub(crate) fn encode(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn facts(certificate: &X509Certificate<'_>) -> Facts {
    let mut facts = Facts {
        common_name: certificate
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .unwrap_or_default()
            .to_owned(),
        issuer: certificate.issuer().to_string(),
        subject: certificate.subject().to_string(),
        not_before: certificate.validity().not_before.to_datetime(),
        not_after: certificate.validity().not_after.to_datetime(),
        names: BTreeSet::new(),
        public_key: certificate.public_key().raw.to_vec(),
        key_id: None,
        authority_key_id: None,
        is_ca: certificate.is_ca(),
    };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => {
                facts.names = names.general_names.iter().filter_map(name).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            _ => {}
        }
    }
    facts
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|octets| IpAddr::from(octets).to_string()),
            _ => None,
        },
        _ => None,
    }
}
