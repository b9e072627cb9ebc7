//! A device's certificate after it was verified, and the name in it. Pure.

use crate::roster::Authority;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidegate_contract::fleet::DeviceFrom;
use x509_parser::prelude::{GeneralName, X509Certificate};

/// A certificate that an authority of a fleet signed, shown by whoever has its key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeviceCertificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    authority: Arc<Authority>,
    /// The subject's common name, if there is exactly one.
    common_name: Option<Box<str>>,
    /// The URI among the alternative names, if there is exactly one.
    uri: Option<Box<str>>,
    not_after: SystemTime,
}

impl DeviceCertificate {
    pub(super) fn new(authority: Arc<Authority>, certificate: &X509Certificate<'_>) -> Self {
        let common_name = only(certificate.subject().iter_common_name()).and_then(|name| name.as_str().ok());
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|found| &found.value.general_names);
        let uri = only(names.filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        }));
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        // valid to the end of that second (RFC 5280 §4.1.2.5)
        let not_after = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.saturating_add(1)));
        Self(Arc::new(Inner {
            authority,
            common_name: common_name.map(Into::into),
            uri: uri.map(Into::into),
            not_after: not_after.unwrap_or(SystemTime::UNIX_EPOCH),
        }))
    }

    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.0.authority
    }

    /// When it is out of date.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// The device that it names, if it names one. Whether it is a name that a device may have is not looked at.
    pub(crate) fn device(&self, from: DeviceFrom) -> Option<&str> {
        match from {
            DeviceFrom::CommonName => self.0.common_name.as_deref(),
            DeviceFrom::UriSan => device_of(self.0.uri.as_deref()?),
        }
    }
}

fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    items.next().filter(|_| items.next().is_none())
}

/// The device in a URI: the last segment of its path, or what is behind the last colon of one without slashes
/// (RFC 3986 §3, RFC 8141). A query, a fragment or percent-encoding would give one device several names: such a URI
/// has none.
fn device_of(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    let plain = !scheme.is_empty() && !uri.contains(['?', '#', '%']);
    let device = match rest.strip_prefix("//") {
        Some(rest) => rest.split_once('/')?.1.rsplit('/').next()?,
        None => rest.rsplit(['/', ':']).next()?,
    };
    (plain && !device.is_empty()).then_some(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_in_a_uri_is_its_last_part() {
        for (uri, device) in [
            ("spiffe://example.org/plant/meter-7", Some("meter-7")),
            ("https://example.org:8443/meter-7", Some("meter-7")),
            ("urn:dev:mac:0024befffe804ff1", Some("0024befffe804ff1")),
            ("urn:example:plant/meter-7", Some("meter-7")),
            ("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", Some("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")),
            ("spiffe://example.org", None),
            ("spiffe://meter-7", None),
            ("spiffe://example.org/", None),
            ("spiffe://example.org/meter-7/", None),
            ("spiffe://example.org/meter-7?x", None),
            ("spiffe://example.org/meter-7#x", None),
            ("spiffe://example.org/meter%2D7", None),
            ("urn:dev:", None),
            ("meter-7", None),
            (":meter-7", None),
            ("", None),
        ] {
            assert_eq!(device_of(uri), device, "{uri}");
        }
    }
}
